//! The socket options of `Server`'s connections.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use super::Server;

type Change = Arc<dyn Fn(&TcpStream) + Send + Sync>;

#[derive(Clone)]
pub(super) struct SocketOptions {
    nodelay: bool,
    keepalive: Option<Duration>,
    change: Option<Change>,
}

impl Default for SocketOptions {
    fn default() -> SocketOptions {
        SocketOptions { nodelay: true, keepalive: None, change: None }
    }
}

impl SocketOptions {
    /// Sets the options of an accepted connection. An option fails only if the connection is dead already; then its first read fails.
    pub(super) fn apply(&self, stream: &TcpStream) {
        if self.nodelay {
            let _ = stream.set_nodelay(true);
        }
        if let Some(time) = self.keepalive {
            let _ = SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(time));
        }
        self.change.iter().for_each(|change| change(stream));
    }
}

impl fmt::Debug for SocketOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SocketOptions { nodelay, keepalive, change } = self;
        let mut all = f.debug_struct("SocketOptions");
        all.field("nodelay", nodelay)
            .field("keepalive", keepalive)
            .field("change", &change.is_some())
            .finish()
    }
}

impl Server {
    /// Sets TCP_NODELAY on each connection: a small packet is sent at once, and does not wait for the acknowledgement of the one
    /// before. Default: on.
    pub fn tcp_nodelay(mut self, on: bool) -> Server {
        self.config.socket.nodelay = on;
        self
    }

    /// Sets SO_KEEPALIVE on each connection: the kernel asks whether the client is there once it has been silent for this long
    /// (TCP_KEEPIDLE). Default: none, because [`keep_alive_timeout`](Server::keep_alive_timeout) and
    /// [`send_timeout`](Server::send_timeout) end connections without a client.
    pub fn tcp_keepalive(mut self, idle: Duration) -> Server {
        self.config.socket.keepalive = Some(idle);
        self
    }

    /// Sets any other option of each connection, right after it was accepted and before TLS.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use {hyper::{Request, Response, body::Incoming, service::service_fn}, std::convert::Infallible};
    /// # async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> { Ok(Response::new("".into())) }
    /// # async fn run() -> Result<(), handover::Error> {
    /// let server = handover::Server::bind("0.0.0.0:8080").on_connection(|socket| {
    ///     // Fails only if the client has left already.
    ///     let _ = socket.set_ttl(32);
    /// });
    /// server.serve(service_fn(hello)).await?;
    /// # Ok(()) }
    /// ```
    pub fn on_connection(mut self, change: impl Fn(&TcpStream) + Send + Sync + 'static) -> Server {
        self.config.socket.change = Some(Arc::new(change));
        self
    }
}
