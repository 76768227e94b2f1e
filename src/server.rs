//! The public builder: the addresses to listen on, the timeouts, and the service.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};
use tracing::Instrument;

use crate::defaults;
use crate::drain::{Conn, ConnectInfo, Drain, DrainOptions};
use crate::error::{Error, Kind, LONGEST};
use crate::handle::{EngineSide, Handle};
use crate::lifecycle::Timings;
use crate::listeners::{Listeners, Serve};
use crate::pid_file::PidFile;
use crate::process::{self, Launch};
use crate::report::Outcome;
use crate::signals::Signals;

mod engine;
mod listener;
mod settings;
mod socket;
#[cfg(feature = "tls")]
mod tls;
use engine::Engine;
pub use listener::Listener;
use socket::SocketOptions;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Check = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// A server that can be replaced by its next generation without losing a request.
///
/// ```no_run
/// # use {hyper::{Request, Response, body::Incoming, service::service_fn}, std::convert::Infallible};
/// # async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> { Ok(Response::new("".into())) }
/// # async fn run() -> Result<(), handover::Error> {
/// handover::Server::bind("0.0.0.0:8080").serve(service_fn(hello)).await?;
/// # Ok(()) }
/// ```
///
/// # Signals
///
/// SIGHUP and SIGUSR2 restart the server. SIGTERM and SIGINT stop it; a second one stops it at once. Generations signal
/// each other by SIGURG. The server catches and unblocks these signals when it begins to listen; [`Signals`] catches SIGHUP
/// and SIGUSR2 earlier. A SIGHUP that reports a closed terminal, from the kernel or from the shell of that terminal, does
/// not restart the server.
///
/// A program may install further handlers for these signals with `tokio::signal` or `signal-hook`. The server's handlers
/// stay in force beside them, and a handover does not trigger those for SIGHUP, SIGUSR2, SIGTERM and SIGINT. A program may
/// act on SIGTERM itself, but dropping the server's future cuts all connections: wait for the future, which ends by
/// itself. Do not replace the handlers with `sigaction`, block these signals in every thread, or wait for them with
/// `sigwait`.
///
/// Create the server before the program changes its working directory: a successor is started in the directory that was
/// current when [`bind`](Server::bind) was called.
#[must_use = "a server does nothing until `serve`, `serve_with` or `listen` is called"]
pub struct Server {
    config: Config,
    check: Option<Check>,
    remote: EngineSide,
    handle: Handle,
}

/// The settings of the engine.
#[derive(Debug)]
struct Config {
    addresses: io::Result<Vec<SocketAddr>>,
    /// The subset of `addresses` whose connections do not count towards `max_connections`.
    reserved: Vec<SocketAddr>,
    launch: Result<Launch, Error>,
    timings: Timings,
    idle_grace: Duration,
    stop_idle_grace: Duration,
    backlog: u32,
    max_connections: Option<usize>,
    drain: DrainOptions,
    pid_file: Option<PathBuf>,
    signals: Option<Signals>,
    socket: SocketOptions,
    #[cfg(feature = "tls")]
    tls: tls::Tls,
}

/// File descriptors left for everything but connections: listeners, logs, pipes, clients of a control socket.
const OTHER_DESCRIPTORS: usize = 64;

impl Config {
    /// Returns the first mistake that can be found without listening.
    fn check(&self) -> Result<(), Error> {
        let t = &self.timings;
        let times = [
            ("ready timeout", t.ready_timeout),
            ("standby", t.standby),
            ("idle grace", self.idle_grace),
            ("drain timeout", t.drain_timeout),
            ("stop timeout", t.stop_timeout),
            ("idle grace when stopping", self.stop_idle_grace),
            ("stop delay", t.stop_delay),
            #[cfg(feature = "tls")]
            ("handshake timeout", self.tls.timeout),
        ];
        if let Some((setting, time)) =
            times.into_iter().chain(self.drain.times()).find(|(_, time)| *time > LONGEST)
        {
            return Err(Kind::TooLong { setting, time }.into());
        }
        // An address that failed to resolve is reported when the server listens, because `io::Error` cannot be cloned.
        self.addresses.iter().try_for_each(|addresses| Listeners::check(addresses))?;
        self.pid_file.iter().try_for_each(|path| PidFile::check(path))
    }

    fn drain(&self) -> Drain {
        let descriptors = process::raise_descriptor_limit();
        let most = (descriptors - OTHER_DESCRIPTORS.min(descriptors / 4)).max(1);
        let limit = match self.max_connections {
            Some(asked) if asked > most => {
                tracing::warn!(
                    "cannot allow {asked} connections with {descriptors} file descriptors: the limit is {most} connections; \
                     raise the file descriptor limit (`ulimit -n`, LimitNOFILE=)"
                );
                most
            }
            Some(asked) => asked,
            None => (descriptors / 2).max(1),
        };
        Drain::with_limit(limit, self.drain.clone())
    }
}

impl Server {
    /// The longest duration that a setting accepts: 365 days.
    pub const LONGEST: Duration = LONGEST;

    /// Listens on `address`, or on every address it resolves to, once [`serve`](Server::serve) or
    /// [`listen`](Server::listen) is called. For port 0 the kernel picks a port, which stays the same across generations.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use {hyper::{Request, Response, body::Incoming, service::service_fn}, std::convert::Infallible};
    /// # async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> { Ok(Response::new("".into())) }
    /// # async fn run() -> Result<(), handover::Error> {
    /// handover::Server::bind("0.0.0.0:8080").serve(service_fn(hello)).await?;
    /// // A port that the kernel picks, and that stays the same over generations.
    /// handover::Server::bind(("127.0.0.1", 0)).serve(service_fn(hello)).await?;
    /// # Ok(()) }
    /// ```
    pub fn bind(address: impl ToSocketAddrs) -> Server {
        let (handle, remote) = Handle::new();
        Server {
            config: Config {
                addresses: address.to_socket_addrs().map(Iterator::collect),
                reserved: vec![],
                launch: Launch::capture(),
                timings: Timings {
                    ready_timeout: defaults::READY_TIMEOUT,
                    standby: defaults::STANDBY,
                    drain_timeout: defaults::DRAIN_TIMEOUT,
                    stop_timeout: defaults::STOP_TIMEOUT,
                    stop_delay: defaults::STOP_DELAY,
                },
                idle_grace: defaults::IDLE_GRACE,
                stop_idle_grace: defaults::STOP_IDLE_GRACE,
                backlog: defaults::BACKLOG,
                max_connections: None,
                drain: DrainOptions::default(),
                pid_file: None,
                signals: None,
                socket: SocketOptions::default(),
                #[cfg(feature = "tls")]
                tls: tls::Tls::default(),
            },
            check: None,
            remote,
            handle,
        }
    }

    /// Listens on one more address. The next generation may listen on more, fewer or other addresses.
    pub fn also_bind(mut self, address: impl ToSocketAddrs) -> Server {
        if let Ok(addresses) = &mut self.config.addresses {
            match address.to_socket_addrs() {
                Ok(more) => addresses.extend(more),
                Err(error) => self.config.addresses = Err(error),
            }
        }
        self
    }

    /// Listens on one more address, reserved for operators. Its connections do not count towards
    /// [`max_connections`](Server::max_connections): up to 64 of them are served in addition, so other clients cannot lock
    /// operators out.
    pub fn also_bind_reserved(mut self, address: impl ToSocketAddrs) -> Server {
        let before = self.config.addresses.as_ref().map_or(0, Vec::len);
        self = self.also_bind(address);
        self.config.reserved.extend(self.config.addresses.iter().flatten().skip(before));
        self
    }

    /// Sets a check that must succeed before this generation takes over. Until then a predecessor keeps all connections; if
    /// the check fails, the predecessor keeps serving. The check runs once the server listens. Default: ready at once.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use {hyper::{Request, Response, body::Incoming, service::service_fn}, std::convert::Infallible};
    /// # async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> { Ok(Response::new("".into())) }
    /// # async fn run() -> Result<(), handover::Error> {
    /// # async fn connect_to_database() -> Result<(), std::io::Error> { Ok(()) }
    /// let server = handover::Server::bind("0.0.0.0:8080").ready_when(connect_to_database());
    /// server.serve(service_fn(hello)).await?;
    /// # Ok(()) }
    /// ```
    pub fn ready_when<F, E>(mut self, check: F) -> Server
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.check = Some(Box::pin(async { check.await.map_err(Into::into) }));
        self
    }

    /// Checks the settings without listening; [`serve`](Server::serve) does the same first.
    ///
    /// # Errors
    ///
    /// - A duration is longer than [`LONGEST`](Server::LONGEST).
    /// - One address takes the connections of another, as `0.0.0.0:80` takes those of `127.0.0.1:80`. (`0.0.0.0:80` and
    ///   `[::]:80` may be named together.)
    /// - The path of the pid file is a directory, or its parent is not an accessible directory.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn run() -> () {
    /// let error = handover::Server::bind("0.0.0.0:80").also_bind("127.0.0.1:80").check().expect_err("they overlap");
    /// assert_eq!(error.kind(), handover::ErrorKind::InvalidSetting);
    /// # }
    /// ```
    pub fn check(&self) -> Result<(), Error> {
        self.config.check()
    }

    /// Returns a handle to restart, stop and observe this generation from within the program.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use {hyper::{Request, Response, body::Incoming, service::service_fn}, std::convert::Infallible};
    /// # async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> { Ok(Response::new("".into())) }
    /// # async fn run() -> Result<(), handover::Error> {
    /// let server = handover::Server::bind("0.0.0.0:8080");
    /// let handle = server.handle();
    /// tokio::spawn(async move {
    ///     tokio::time::sleep(std::time::Duration::from_secs(86_400)).await;
    ///     handle.restart();
    /// });
    /// server.serve(service_fn(hello)).await?;
    /// # Ok(()) }
    /// ```
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves HTTP until this generation has retired or stopped and its connections are finished or cut. When the future is
    /// dropped, all connections are cut.
    ///
    /// # Errors
    ///
    /// When a setting is invalid (see [`check`](Server::check)), an address cannot be listened on, the pid file cannot be
    /// written, or the readiness check fails. In each case the predecessor, if there is one, keeps serving.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use {hyper::{Request, Response, body::Incoming, service::service_fn}, std::convert::Infallible};
    /// # async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> { Ok(Response::new("".into())) }
    /// # async fn run() -> Result<(), handover::Error> {
    /// let outcome = handover::Server::bind("0.0.0.0:8080").serve(service_fn(hello)).await?;
    /// println!("{:?}: {} connections finished, {} cut", outcome.end, outcome.drained.finished, outcome.drained.cut);
    /// # Ok(()) }
    /// ```
    pub async fn serve<S, B>(self, service: S) -> Result<Outcome, Error>
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        self.serve_with(move |_| service.clone()).await
    }

    /// Serves HTTP with a service for each connection, which knows whose connection it is. Otherwise like
    /// [`serve`](Server::serve). With TLS the service is made after the handshake.
    ///
    /// # Errors
    ///
    /// See [`serve`](Server::serve).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use {hyper::{Request, Response, body::Incoming, service::service_fn}, std::convert::Infallible};
    /// # async fn run() -> Result<(), handover::Error> {
    /// let server = handover::Server::bind("0.0.0.0:8080");
    /// server
    ///     .serve_with(|info| {
    ///         let client = info.remote();
    ///         service_fn(move |_: Request<Incoming>| async move {
    ///             Ok::<_, Infallible>(Response::new(format!("hello {client}\n")))
    ///         })
    ///     })
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub async fn serve_with<M, S, B>(self, make_service: M) -> Result<Outcome, Error>
    where
        M: Fn(&ConnectInfo) -> S + Send + Sync + 'static,
        S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        self.config.check()?;
        let drain = self.config.drain();
        #[cfg(feature = "tls")]
        let tls = self.config.tls.enabled();
        let (make_service, socket) = (Arc::new(make_service), self.config.socket.clone());
        let serve: Serve = Arc::new(move |conn: Conn| {
            socket.apply(conn.get_ref());
            let info = conn.connect_info();
            #[cfg(feature = "tls")]
            if let Some((config, timeout)) = tls.clone() {
                let (make_service, remote) = (Arc::clone(&make_service), info.remote());
                let served = async move {
                    let conn = conn.tls(config, timeout).await?;
                    let service = make_service(&info);
                    conn.serve(service).await
                };
                tokio::spawn(ended(served, remote));
                return;
            }
            tokio::spawn(ended(conn.serve(make_service(&info)), info.remote()));
        });
        let engine = Engine::start(self.config, self.remote, drain, &serve)?;
        engine.run(checked(self.check)).await
    }
}

async fn ended(served: impl Future<Output = Result<(), BoxError>>, remote: SocketAddr) {
    if let Err(error) = served.await {
        tracing::debug!(%error, %remote, "a connection ended early");
    }
}

/// Runs the check in a separate task, so that a panic counts as a failed check.
async fn checked(check: Option<Check>) -> Result<(), Error> {
    let Some(check) = check else { return Ok(()) };
    match tokio::spawn(check.in_current_span()).await {
        Ok(result) => result.map_err(|e| Kind::NotReady(e).into()),
        Err(panic) => Err(Kind::NotReady(panic.into()).into()),
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_time_longer_than_the_longest_is_an_error_that_names_the_setting() {
        type Setter = fn(Server, Duration) -> Server;
        let setters: [(&str, Setter); 14] = [
            ("ready timeout", Server::ready_timeout),
            ("standby", Server::standby),
            ("idle grace", Server::idle_grace),
            ("idle grace when stopping", Server::stop_idle_grace),
            ("GOAWAY delay", Server::goaway_delay),
            ("half-close timeout", Server::half_close_timeout),
            ("header timeout", Server::header_timeout),
            ("keep-alive timeout", Server::keep_alive_timeout),
            ("body timeout", Server::body_timeout),
            ("send timeout", Server::send_timeout),
            ("HTTP/2 PING interval", Server::http2_ping_interval),
            ("drain timeout", Server::drain_timeout),
            ("stop timeout", Server::stop_timeout),
            ("stop delay", Server::stop_delay),
        ];
        for (name, set) in setters {
            for time in [Duration::MAX, Server::LONGEST + Duration::from_nanos(1)] {
                let error =
                    set(Server::bind("127.0.0.1:0"), time).listen().await.expect_err(name).to_string();
                assert!(error.contains(&format!("the {name} of")), "{error}");
            }
            set(Server::bind("127.0.0.1:0"), Server::LONGEST).check().expect(name);
        }
    }

    #[tokio::test]
    async fn a_connection_has_the_socket_options_that_were_set() {
        let seconds = Duration::from_secs;
        let set = |server: Server| {
            server.tcp_nodelay(false).tcp_keepalive(seconds(30)).on_connection(|socket| {
                socket.set_ttl(33).expect("a live socket");
            })
        };
        for (is_set, expected) in [(false, (true, false, 64)), (true, (false, true, 33))] {
            let server = Server::bind("127.0.0.1:0");
            let server = if is_set { set(server) } else { server };
            let handle = server.handle();
            let mut listener = server.listen().await.expect("a free port");
            let _client = tokio::net::TcpStream::connect(handle.addresses()[0]).await.expect("it listens");
            let conn = listener.accept().await.expect("a connection");
            let socket = socket2::SockRef::from(&conn);
            let ttl = conn.get_ref().ttl().expect("a socket");
            let options =
                (socket.tcp_nodelay().expect("a socket"), socket.keepalive().expect("a socket"), ttl);
            assert_eq!(options, expected);
            if is_set {
                assert_eq!(socket.tcp_keepalive_time().expect("a socket"), seconds(30));
            }
        }
    }

    #[tokio::test]
    async fn a_drain_accepts_any_duration() {
        let options = DrainOptions::default().half_close_timeout(Duration::MAX).goaway_delay(Duration::MAX);
        let drain = Drain::with_options(options);
        let (client, server) = tokio::io::duplex(64);
        let conn = drain.stream(server, SocketAddr::from(([127, 0, 0, 1], 1)));
        drain.lame_duck(Duration::MAX);
        let service = hyper::service::service_fn(|_| async {
            Ok::<_, std::convert::Infallible>(Response::new(String::new()))
        });
        let served = tokio::spawn(conn.serve(service));
        drop(client);
        drop(served.await.expect("no panic"));
        drain.finish(Duration::MAX).await;
    }
}
