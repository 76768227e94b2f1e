//! The settings of a [`Drain`](super::Drain).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};

use super::streams::Http2Executor;
use crate::defaults;
use crate::error::LONGEST;

/// How a [`Drain`](crate::Drain) treats its connections.
///
/// ```
/// # use std::time::Duration;
/// let options = handover::DrainOptions::default().half_close_timeout(Duration::from_secs(60));
/// let drain = handover::Drain::with_options(options);
/// ```
///
/// A time of more than 365 days is reduced to 365 days.
#[derive(Debug, Clone)]
#[must_use = "options do nothing until a `Drain` is made with them"]
pub struct DrainOptions {
    pub(super) half_close_timeout: Duration,
    pub(super) goaway_delay: Duration,
    pub(super) header_timeout: Duration,
    pub(super) keep_alive_timeout: Duration,
    pub(super) body_timeout: Duration,
    pub(super) send_timeout: Duration,
    pub(super) http2_ping_interval: Duration,
    pub(super) http2_max_concurrent_streams: u32,
    pub(super) http2_extended_connect: bool,
    pub(super) connect_info: bool,
    pub(super) http1: Configure<http1::Builder>,
    pub(super) http2: Configure<http2::Builder<Http2Executor>>,
}

type Change<B> = Arc<dyn Fn(&mut B) + Send + Sync>;

/// What the application changes in a builder of hyper.
#[derive(Clone)]
pub(super) struct Configure<B>(Option<Change<B>>);

impl<B> Configure<B> {
    fn with(change: impl Fn(&mut B) + Send + Sync + 'static) -> Configure<B> {
        Configure(Some(Arc::new(change)))
    }

    pub(super) fn none() -> Configure<B> {
        Configure(None)
    }

    pub(super) fn apply(&self, builder: &mut B) {
        self.0.iter().for_each(|change| change(builder));
    }
}

impl<B> fmt::Debug for Configure<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "changed" } else { "as it is" })
    }
}

impl DrainOptions {
    /// Sets how long a handler may run without a byte of its response being written once its HTTP/1 client has half-closed the
    /// connection. Such a client may have gone, or may only have said that its request is the last. Zero treats it as gone,
    /// as hyper does: the handler is dropped at once. Default: [`defaults::HALF_CLOSE_TIMEOUT`].
    pub fn half_close_timeout(mut self, timeout: Duration) -> DrainOptions {
        self.half_close_timeout = timeout;
        self
    }

    /// Sets how long a lame duck waits for a moment in which nothing is in flight on an HTTP/2 connection, before it sends
    /// GOAWAY. It never waits longer than the idle grace. Zero sends GOAWAY at once. Default: [`defaults::GOAWAY_DELAY`].
    pub fn goaway_delay(mut self, delay: Duration) -> DrainOptions {
        self.goaway_delay = delay;
        self
    }

    /// Sets how long a client may take to send the head of a request: counted from accept for the first request, and from the
    /// first byte of the head for each later one. Then the connection is closed. Zero: no limit. Default:
    /// [`defaults::HEADER_TIMEOUT`].
    pub fn header_timeout(mut self, timeout: Duration) -> DrainOptions {
        self.header_timeout = timeout;
        self
    }

    /// Sets how long a connection may be idle after its first request. Then it is closed: on HTTP/2 with GOAWAY, which loses no
    /// request that is on its way. Zero: no limit. Default: [`defaults::KEEP_ALIVE_TIMEOUT`].
    ///
    /// A client that sends a request at the moment its HTTP/1 connection is closed has to retry it, so a load balancer in front
    /// should close its idle connections sooner than this.
    pub fn keep_alive_timeout(mut self, timeout: Duration) -> DrainOptions {
        self.keep_alive_timeout = timeout;
        self
    }

    /// Sets how long a client may pause in the body of an HTTP/1 request while the handler has not answered. Then the body ends
    /// with an error. Zero: no limit. Default: [`defaults::BODY_TIMEOUT`].
    ///
    /// HTTP/2 bodies have no timeout here, because a client may wait for a response before it sends more of its body. A handler
    /// can limit them itself.
    pub fn body_timeout(mut self, timeout: Duration) -> DrainOptions {
        self.body_timeout = timeout;
        self
    }

    /// Sets how long a client may read nothing of its response. Then the connection is closed, or, if only one HTTP/2 stream
    /// makes no progress, that stream is reset. Zero: no limit. Default: [`defaults::SEND_TIMEOUT`].
    ///
    /// A client that reads slowly makes progress. A client on the same machine must read about 64 KiB in that time, because
    /// its kernel does not report less.
    pub fn send_timeout(mut self, timeout: Duration) -> DrainOptions {
        self.send_timeout = timeout;
        self
    }

    /// Sets after how long an HTTP/2 client that has requests in flight and sends nothing gets a PING. If nothing comes for 20 s
    /// more, its connection is closed. Zero: no PINGs. Default: [`defaults::HTTP2_PING_INTERVAL`].
    pub fn http2_ping_interval(mut self, interval: Duration) -> DrainOptions {
        self.http2_ping_interval = interval;
        self
    }

    /// Sets how many requests a client may have in flight on one HTTP/2 connection, from 1 to 1000. Default:
    /// [`defaults::HTTP2_MAX_CONCURRENT_STREAMS`].
    pub fn http2_max_concurrent_streams(mut self, streams: u32) -> DrainOptions {
        self.http2_max_concurrent_streams = streams;
        self
    }

    /// Allows extended CONNECT on HTTP/2 (RFC 8441), with which a WebSocket is opened on a stream. A tunnel counts as a request in
    /// flight until it ends, and its application learns from [`Retiring`](crate::Retiring) when to end it. Default: off.
    pub fn http2_extended_connect(mut self, on: bool) -> DrainOptions {
        self.http2_extended_connect = on;
        self
    }

    /// Adds a [`ConnectInfo`](crate::ConnectInfo) to the extensions of each request, with the feature `axum` also an
    /// `axum::extract::ConnectInfo<SocketAddr>`, and with the feature `tonic` what its `Request::remote_addr` looks for. Default: off,
    /// because each request pays for it; [`Conn::connect_info`](crate::Conn::connect_info) has the same for the connection.
    pub fn connect_info(mut self, on: bool) -> DrainOptions {
        self.connect_info = on;
        self
    }

    /// Changes hyper's options of HTTP/1, after everything that this crate sets, which is nothing at present.
    ///
    /// A [`timer`](http1::Builder::timer) switches on hyper's own header timeout of 30 s, which also ends idle connections, without
    /// the care for requests that are on their way. [`keep_alive(false)`](http1::Builder::keep_alive) and
    /// [`half_close`](http1::Builder::half_close) change what [`idle_grace`](crate::Server::idle_grace) and
    /// [`half_close_timeout`](DrainOptions::half_close_timeout) do.
    pub fn http1(mut self, change: impl Fn(&mut http1::Builder) + Send + Sync + 'static) -> DrainOptions {
        self.http1 = Configure::with(change);
        self
    }

    /// Changes hyper's options of HTTP/2, after everything that this crate sets: its timer, the number of streams
    /// ([`http2_max_concurrent_streams`](DrainOptions::http2_max_concurrent_streams)), at most 16 KiB of headers, at most 20 streams
    /// that were reset and 1024 errors.
    ///
    /// hyper's keep-alive PING cannot tell a client that is gone from one whose answer is withheld for a moment at the end of a
    /// drain, so [`http2_ping_interval`](DrainOptions::http2_ping_interval) is the better one.
    pub fn http2(
        mut self,
        change: impl Fn(&mut http2::Builder<Http2Executor>) + Send + Sync + 'static,
    ) -> DrainOptions {
        self.http2 = Configure::with(change);
        self
    }

    pub(crate) fn times(&self) -> [(&'static str, Duration); 7] {
        [
            ("half-close timeout", self.half_close_timeout),
            ("GOAWAY delay", self.goaway_delay),
            ("header timeout", self.header_timeout),
            ("keep-alive timeout", self.keep_alive_timeout),
            ("body timeout", self.body_timeout),
            ("send timeout", self.send_timeout),
            ("HTTP/2 PING interval", self.http2_ping_interval),
        ]
    }

    /// Brings all options into their bounds, without an error: see [`Server::check`](crate::Server::check) for those.
    pub(super) fn bounded(self) -> DrainOptions {
        DrainOptions {
            half_close_timeout: self.half_close_timeout.min(LONGEST),
            goaway_delay: self.goaway_delay.min(LONGEST),
            header_timeout: self.header_timeout.min(LONGEST),
            keep_alive_timeout: self.keep_alive_timeout.min(LONGEST),
            body_timeout: self.body_timeout.min(LONGEST),
            send_timeout: self.send_timeout.min(LONGEST),
            http2_ping_interval: self.http2_ping_interval.min(LONGEST),
            http2_max_concurrent_streams: self.http2_max_concurrent_streams.clamp(1, 1000),
            ..self
        }
    }
}

impl Default for DrainOptions {
    fn default() -> DrainOptions {
        DrainOptions {
            half_close_timeout: defaults::HALF_CLOSE_TIMEOUT,
            goaway_delay: defaults::GOAWAY_DELAY,
            header_timeout: defaults::HEADER_TIMEOUT,
            keep_alive_timeout: defaults::KEEP_ALIVE_TIMEOUT,
            body_timeout: defaults::BODY_TIMEOUT,
            send_timeout: defaults::SEND_TIMEOUT,
            http2_ping_interval: defaults::HTTP2_PING_INTERVAL,
            http2_max_concurrent_streams: defaults::HTTP2_MAX_CONCURRENT_STREAMS,
            http2_extended_connect: false,
            connect_info: false,
            http1: Configure::none(),
            http2: Configure::none(),
        }
    }
}

/// Returns the limit that a time sets: none if it is zero.
pub(super) fn limit(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}
