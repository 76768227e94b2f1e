//! Code shared by the peers on hyper: the answer, the settings, and connections that are served and ended as in hyper-util's
//! example `server_graceful`.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

/// The file in the working directory in which the serving process writes its pid.
pub const PID_FILE: &str = "pid";

pub const BACKLOG: u32 = 4096;

/// How long connections may take to end, as in `server_graceful`.
pub const PATIENCE: Duration = Duration::from_secs(10);

static BODY: LazyLock<Bytes> = LazyLock::new(|| {
    let pid = std::process::id();
    format!("generation={pid} pid={pid}\n").into()
});

/// The first argument, as an address.
pub fn address() -> SocketAddr {
    let address = std::env::args().nth(1).and_then(|address| address.parse().ok());
    address.expect("the first argument is IP:PORT")
}

/// Listens with SO_REUSEPORT, so that other processes can listen on the same address.
pub fn listen_beside(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Writes the pid file by rename, so that a reader never finds a part of the number.
pub fn write_pid_file() -> io::Result<()> {
    let draft = Path::new("pid.draft");
    std::fs::write(draft, std::process::id().to_string())?;
    std::fs::rename(draft, PID_FILE)
}

/// Serves HTTP/1 or HTTP/2 on a connection. Idle connections are not closed.
pub fn connection(stream: TcpStream) -> impl GracefulConnection<Error: Send> + Send + 'static {
    let _ = stream.set_nodelay(true);
    let service =
        service_fn(|_: Request<_>| async { Ok::<_, Infallible>(Response::new(Full::new(BODY.clone()))) });
    Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .into_owned()
}

/// Connections that end together.
#[derive(Default)]
pub struct Connections(GracefulShutdown);

impl Connections {
    pub fn serve(&self, stream: TcpStream) {
        tokio::spawn(self.0.watch(connection(stream)));
    }

    /// Ends all connections gracefully. The caller must close the listener first.
    pub async fn end(self) {
        let _ = timeout(PATIENCE, self.0.shutdown()).await;
    }
}
