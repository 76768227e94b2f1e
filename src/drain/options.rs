//! The settings of a [`Drain`](super::Drain).

use std::time::Duration;

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
/// A time of more than 365 days is one of 365 days.
#[derive(Debug, Clone, Copy)]
pub struct DrainOptions {
    pub(super) half_close_timeout: Duration,
    pub(super) goaway_delay: Duration,
    pub(super) header_timeout: Duration,
    pub(super) keep_alive_timeout: Duration,
    pub(super) body_timeout: Duration,
    pub(super) send_timeout: Duration,
    pub(super) http2_ping_interval: Duration,
    pub(super) http2_max_concurrent_streams: u32,
}

impl DrainOptions {
    /// How long a handler may go on without a byte of its response being written once its HTTP/1 client has closed its
    /// sending side. Such a client may have gone, or may only have said that its request is the last. Zero treats it as
    /// gone, as hyper does: the handler is dropped at once. Default: [`defaults::HALF_CLOSE_TIMEOUT`].
    pub fn half_close_timeout(mut self, timeout: Duration) -> DrainOptions {
        self.half_close_timeout = timeout;
        self
    }

    /// How long a lame duck waits at most, and never longer than the idle grace, for a moment in which nothing is under way
    /// on an HTTP/2 connection, to say GOAWAY then. Zero says it at once. Default: [`defaults::GOAWAY_DELAY`].
    pub fn goaway_delay(mut self, delay: Duration) -> DrainOptions {
        self.goaway_delay = delay;
        self
    }

    /// How long a client may take for the head of its first request, from accept on, and for that of each later one from
    /// its first byte on. Then its connection is closed. Zero: as long as it likes. Default: [`defaults::HEADER_TIMEOUT`].
    pub fn header_timeout(mut self, timeout: Duration) -> DrainOptions {
        self.header_timeout = timeout;
        self
    }

    /// How long a connection may have no request in flight, after its first one. Then it is closed: with GOAWAY if it is one of
    /// HTTP/2, which loses no request that is on its way. Zero: as long as the client likes. Default:
    /// [`defaults::KEEP_ALIVE_TIMEOUT`].
    ///
    /// A client that sends a request in the moment in which its HTTP/1 connection is closed has to send it again, so a load
    /// balancer in front should close its idle connections sooner than this.
    pub fn keep_alive_timeout(mut self, timeout: Duration) -> DrainOptions {
        self.keep_alive_timeout = timeout;
        self
    }

    /// How long a client may send nothing of the body that its HTTP/1 request has announced, while the handler waits for it
    /// and has not answered. Then the body ends with an error. Zero: as long as it likes. Default: [`defaults::BODY_TIMEOUT`].
    ///
    /// The bodies of HTTP/2 are for the handler to time, because its clients may wait for the answer to what they sent first.
    pub fn body_timeout(mut self, timeout: Duration) -> DrainOptions {
        self.body_timeout = timeout;
        self
    }

    /// How long a client may take nothing of its response. Then the connection is ended, or on HTTP/2 the stream is
    /// reset, if only that one does not get on. Zero: as long as it likes. Default: [`defaults::SEND_TIMEOUT`].
    ///
    /// A client that reads slowly gets on. One on this machine must take about 64 KiB in that time, because its kernel
    /// does not tell of less.
    pub fn send_timeout(mut self, timeout: Duration) -> DrainOptions {
        self.send_timeout = timeout;
        self
    }

    /// After how long a client of HTTP/2 that has requests in flight and sends nothing gets a PING. If nothing comes for 20 s
    /// more, its connection is ended. Zero: it is never asked. Default: [`defaults::HTTP2_PING_INTERVAL`].
    pub fn http2_ping_interval(mut self, interval: Duration) -> DrainOptions {
        self.http2_ping_interval = interval;
        self
    }

    /// So many requests at a time may a client send on one HTTP/2 connection, from 1 to 1000. Default:
    /// [`defaults::HTTP2_MAX_CONCURRENT_STREAMS`].
    pub fn http2_max_concurrent_streams(mut self, streams: u32) -> DrainOptions {
        self.http2_max_concurrent_streams = streams;
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

    /// A mistake is not reported here: see [`Server::check`](crate::Server::check).
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
        }
    }
}

/// Zero is no limit.
pub(super) fn limit(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}
