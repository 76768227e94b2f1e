//! The settings of `Server`: times, limits, HTTP and signals.

use std::path::PathBuf;
use std::time::Duration;

use hyper::server::conn::{http1, http2};

use super::Server;
use crate::drain::Http2Executor;
use crate::signals::Signals;

impl Server {
    /// Sets how long a successor may take from its start until it is ready. Then it is told to leave, and 5 s later it is
    /// killed. Default: [`READY_TIMEOUT`](crate::defaults::READY_TIMEOUT).
    pub fn ready_timeout(mut self, timeout: Duration) -> Server {
        self.config.timings.ready_timeout = timeout;
        self
    }

    /// Sets how long the old generation keeps its listener open after a successor took over, while new connections are
    /// steered to the successor. In that time it finishes the TCP handshakes that it began, and can serve again if the
    /// successor crashes. If a client's handshake takes longer than this, its connection is lost. Default:
    /// [`STANDBY`](crate::defaults::STANDBY).
    pub fn standby(mut self, standby: Duration) -> Server {
        self.config.timings.standby = standby;
        self
    }

    /// Sets how long an idle HTTP connection is kept open after a successor took over. Longer is safer: a client that does
    /// not know yet about the handover may have its next request on the wire. Default:
    /// [`IDLE_GRACE`](crate::defaults::IDLE_GRACE).
    pub fn idle_grace(mut self, grace: Duration) -> Server {
        self.config.idle_grace = grace;
        self
    }

    /// Sets how long an idle HTTP connection is kept open after the server was told to stop. The default is shorter than
    /// that of [`idle_grace`](Server::idle_grace), because no successor serves meanwhile. Default:
    /// [`STOP_IDLE_GRACE`](crate::defaults::STOP_IDLE_GRACE).
    pub fn stop_idle_grace(mut self, grace: Duration) -> Server {
        self.config.stop_idle_grace = grace;
        self
    }

    /// Sets how long the server may wait before it sends GOAWAY on an HTTP/2 connection, after a successor took over or the
    /// server was told to stop. It waits for a moment without requests in flight, because many clients fail requests that
    /// cross a GOAWAY, but never longer than the idle grace. Default: [`GOAWAY_DELAY`](crate::defaults::GOAWAY_DELAY).
    pub fn goaway_delay(mut self, delay: Duration) -> Server {
        self.config.drain = self.config.drain.goaway_delay(delay);
        self
    }

    /// Sets how long a handler may run without a byte of its response being written, once its HTTP/1 client has half-closed
    /// the connection. A half-close means either that the client has gone or that it will send no further request. A longer
    /// timeout serves more clients that still wait for the response; a shorter one stops work for departed clients sooner.
    /// Zero drops the handler at once, as hyper does. Default: [`HALF_CLOSE_TIMEOUT`](crate::defaults::HALF_CLOSE_TIMEOUT).
    pub fn half_close_timeout(mut self, timeout: Duration) -> Server {
        self.config.drain = self.config.drain.half_close_timeout(timeout);
        self
    }

    /// Sets how long a client may take to send a request head, counted from accept for the first request and from the first
    /// byte for each later one. Then its connection is closed. Zero: no limit. Default:
    /// [`HEADER_TIMEOUT`](crate::defaults::HEADER_TIMEOUT).
    pub fn header_timeout(mut self, timeout: Duration) -> Server {
        self.config.drain = self.config.drain.header_timeout(timeout);
        self
    }

    /// Sets how long a connection may be idle after its first request. Then it is closed. An HTTP/2 connection is closed
    /// with GOAWAY, so that no request on its way is lost. Zero: no limit. Default:
    /// [`KEEP_ALIVE_TIMEOUT`](crate::defaults::KEEP_ALIVE_TIMEOUT).
    ///
    /// A client that sends a request just as its HTTP/1 connection is closed has to send it again, so a load balancer in
    /// front of the server should close its idle connections sooner than this.
    pub fn keep_alive_timeout(mut self, timeout: Duration) -> Server {
        self.config.drain = self.config.drain.keep_alive_timeout(timeout);
        self
    }

    /// Sets how long an HTTP/1 client may pause while it sends a request body that the handler is waiting for and has not
    /// yet answered. Then the body ends with an error. Zero: no limit. Default:
    /// [`BODY_TIMEOUT`](crate::defaults::BODY_TIMEOUT).
    pub fn body_timeout(mut self, timeout: Duration) -> Server {
        self.config.drain = self.config.drain.body_timeout(timeout);
        self
    }

    /// Sets how long a client may read nothing of its response. Then the connection is ended. On HTTP/2, if only one stream
    /// makes no progress, that stream is reset instead. A client that reads slowly does make progress; see
    /// [`DrainOptions::send_timeout`](crate::DrainOptions::send_timeout). Zero: no limit. Default:
    /// [`SEND_TIMEOUT`](crate::defaults::SEND_TIMEOUT).
    pub fn send_timeout(mut self, timeout: Duration) -> Server {
        self.config.drain = self.config.drain.send_timeout(timeout);
        self
    }

    /// Sets how long an HTTP/2 client with requests in flight may send nothing before it gets a PING. If it stays silent
    /// for another 20 s, its connection is ended. Zero: no PING. Default:
    /// [`HTTP2_PING_INTERVAL`](crate::defaults::HTTP2_PING_INTERVAL).
    pub fn http2_ping_interval(mut self, interval: Duration) -> Server {
        self.config.drain = self.config.drain.http2_ping_interval(interval);
        self
    }

    /// Sets how many requests a client may have in flight on one HTTP/2 connection, from 1 to 1000. Default:
    /// [`HTTP2_MAX_CONCURRENT_STREAMS`](crate::defaults::HTTP2_MAX_CONCURRENT_STREAMS).
    pub fn http2_max_concurrent_streams(mut self, streams: u32) -> Server {
        self.config.drain = self.config.drain.http2_max_concurrent_streams(streams);
        self
    }

    /// Allows extended CONNECT on HTTP/2 (RFC 8441), with which a WebSocket is opened on a stream. A tunnel counts as a
    /// request in flight until it ends, and its application learns from [`Retiring`](crate::Retiring) when to end it.
    /// Default: off.
    pub fn http2_extended_connect(mut self, on: bool) -> Server {
        self.config.drain = self.config.drain.http2_extended_connect(on);
        self
    }

    /// Changes hyper's options of HTTP/1. It is applied last and wins over the settings of this crate: see
    /// [`DrainOptions::http1`](crate::DrainOptions::http1) for what it can break.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use {hyper::{Request, Response, body::Incoming, service::service_fn}, std::convert::Infallible};
    /// # async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> { Ok(Response::new("".into())) }
    /// # async fn run() -> Result<(), handover::Error> {
    /// let server = handover::Server::bind("0.0.0.0:8080").http1(|http1| {
    ///     http1.max_buf_size(64 * 1024).title_case_headers(true);
    /// });
    /// server.serve(service_fn(hello)).await?;
    /// # Ok(()) }
    /// ```
    pub fn http1(mut self, change: impl Fn(&mut http1::Builder) + Send + Sync + 'static) -> Server {
        self.config.drain = self.config.drain.http1(change);
        self
    }

    /// Changes hyper's options of HTTP/2. It is applied last and wins over the settings of this crate: see
    /// [`DrainOptions::http2`](crate::DrainOptions::http2) for what it can break.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use {hyper::{Request, Response, body::Incoming, service::service_fn}, std::convert::Infallible};
    /// # async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> { Ok(Response::new("".into())) }
    /// # async fn run() -> Result<(), handover::Error> {
    /// let server = handover::Server::bind("0.0.0.0:8080").http2(|http2| {
    ///     http2.initial_stream_window_size(1 << 20).max_header_list_size(64 * 1024);
    /// });
    /// server.serve(service_fn(hello)).await?;
    /// # Ok(()) }
    /// ```
    pub fn http2(
        mut self,
        change: impl Fn(&mut http2::Builder<Http2Executor>) + Send + Sync + 'static,
    ) -> Server {
        self.config.drain = self.config.drain.http2(change);
        self
    }

    /// Adds a [`ConnectInfo`](crate::ConnectInfo) to the extensions of each request, with the feature `axum` also an
    /// `axum::extract::ConnectInfo<SocketAddr>`, and with the feature `tonic` what its `Request::remote_addr` looks for.
    /// Default: off, because each request pays for it; [`serve_with`](Server::serve_with) gives it once for each
    /// connection.
    pub fn connect_info(mut self, on: bool) -> Server {
        self.config.drain = self.config.drain.connect_info(on);
        self
    }

    /// Sets how long connections may continue after a successor took over. Then the remaining connections are cut. A value
    /// below the standby time is raised to it. Default: [`DRAIN_TIMEOUT`](crate::defaults::DRAIN_TIMEOUT).
    pub fn drain_timeout(mut self, timeout: Duration) -> Server {
        self.config.timings.drain_timeout = timeout;
        self
    }

    /// Sets how long connections may continue after the server was told to stop. Then the remaining connections are cut.
    /// Default: [`STOP_TIMEOUT`](crate::defaults::STOP_TIMEOUT), less than the 30 s that container runtimes usually grant.
    pub fn stop_timeout(mut self, timeout: Duration) -> Server {
        self.config.timings.stop_timeout = timeout;
        self
    }

    /// Sets how long the server keeps accepting after it was told to stop, so that a load balancer can take it out of
    /// rotation first (see [`Handle::is_stopping`](crate::Handle::is_stopping)). Meanwhile HTTP/1 responses carry `Connection: close`. Default:
    /// [`STOP_DELAY`](crate::defaults::STOP_DELAY).
    pub fn stop_delay(mut self, delay: Duration) -> Server {
        self.config.timings.stop_delay = delay;
        self
    }

    /// Sets how many connections may be open at once. At the limit, a few old connections are closed to make room for new
    /// ones: first those that have sent nothing for more than 0.1 s since accept, then those that have sent no complete
    /// request for more than 0.1 s, then those that have been idle for more than 1 s; in each group the oldest first. If
    /// all connections are busy, new ones wait in the accept queue. A client that sends a request just as its idle
    /// connection is closed has to send it again.
    ///
    /// Default: half of the file descriptors that are free when the server starts, because a connection often needs a
    /// second one. The soft limit of file descriptors (RLIMIT_NOFILE) is always raised to the hard limit. A larger value is
    /// reduced so that 64 descriptors, or a quarter of them if that is less, remain for the rest of the process.
    pub fn max_connections(mut self, connections: usize) -> Server {
        self.config.max_connections = Some(connections.max(1));
        self
    }

    /// Sets the length of the accept queue of each address; the kernel caps it at `net.core.somaxconn`. Default:
    /// [`BACKLOG`](crate::defaults::BACKLOG).
    pub fn backlog(mut self, connections: u32) -> Server {
        self.config.backlog = connections;
        self
    }

    /// Writes the main pid of the service to a file. The file is written by rename, names the successor once standby ends,
    /// and is removed by the generation that stops. Under [`supervise`](crate::supervise) it names the supervisor. Default:
    /// no pid file.
    pub fn pid_file(mut self, path: impl Into<PathBuf>) -> Server {
        self.config.pid_file = Some(path.into());
        self
    }

    /// Uses signal handlers that were installed earlier. Default: they are installed when the server begins to listen.
    pub fn signals(mut self, signals: Signals) -> Server {
        self.config.signals = Some(signals);
        self
    }
}
