//! The public face: what to listen on, how patient to be, and what to serve.

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
use crate::drain::{Conn, Drain, DrainOptions};
use crate::error::{Error, Kind, LONGEST};
use crate::handle::{Handle, Remote};
use crate::lifecycle::Timings;
use crate::listeners::{Listeners, Serve};
use crate::pid_file::PidFile;
use crate::process::{self, Launch};
use crate::report::Outcome;
use crate::signals::Signals;

mod engine;
mod listener;
#[cfg(feature = "tls")]
mod tls;
use engine::Engine;
pub use listener::Listener;

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
/// SIGHUP and SIGUSR2 restart; SIGTERM and SIGINT stop, a second one at once; SIGURG is what generations say to each other.
/// They are caught, and unblocked, when it begins to listen; [`Signals`] catches those that restart before. A SIGHUP that tells of a terminal
/// that is gone, from the kernel or the shell that had it, is no wish to restart.
///
/// A program may have handlers of its own for them, by `tokio::signal` or `signal-hook`: the server's stay in force beside
/// them, and none of its own hears anything at a handover, because a handover sends no other process one of these signals. One that
/// waits for SIGTERM to do something of its own may do that; if it drops the server's future, all connections are cut, so it
/// should wait for the future, which ends by itself. It should not replace the handlers by `sigaction`, not block these
/// signals in every thread, and wait by `sigwait` for others only.
///
/// Create it before the program changes its working directory: a successor is started where this process was.
pub struct Server {
    config: Config,
    check: Option<Check>,
    remote: Remote,
    handle: Handle,
}

/// What the engine needs to know.
#[derive(Debug)]
struct Config {
    addresses: io::Result<Vec<SocketAddr>>,
    /// Those of them whose connections do not count for `max_connections`.
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
    #[cfg(feature = "tls")]
    tls: tls::Tls,
}

/// For all but connections: listeners, logs, pipes, clients of a control socket.
const OTHER_DESCRIPTORS: usize = 64;

impl Config {
    /// The first mistake that can be found without listening.
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
        // An error has no copy; it is returned when the server listens.
        self.addresses.iter().try_for_each(|addresses| Listeners::check(addresses))?;
        self.pid_file.iter().try_for_each(|path| PidFile::check(path))
    }

    fn drain(&self) -> Drain {
        let descriptors = process::raise_descriptor_limit();
        let most = (descriptors - OTHER_DESCRIPTORS.min(descriptors / 4)).max(1);
        let limit = match self.max_connections {
            Some(asked) if asked > most => {
                tracing::warn!(
                    "{asked} connections may be open, but only {descriptors} file descriptors: {most} is the limit; raise \
                     that of descriptors (`ulimit -n`, LimitNOFILE=)"
                );
                most
            }
            Some(asked) => asked,
            None => (descriptors / 2).max(1),
        };
        Drain::with_limit(limit, self.drain)
    }
}

impl Server {
    /// The longest time that a setting may have: 365 days.
    pub const LONGEST: Duration = LONGEST;

    /// Listens on `address`, or on every address it resolves to, once [`serve`](Server::serve) or
    /// [`listen`](Server::listen) is called. Port 0 is picked by the kernel and stays the same over generations.
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
                #[cfg(feature = "tls")]
                tls: tls::Tls::default(),
            },
            check: None,
            remote,
            handle,
        }
    }

    /// Listens on one more address. The next generation may listen on more, fewer or others.
    pub fn also_bind(mut self, address: impl ToSocketAddrs) -> Server {
        if let Ok(addresses) = &mut self.config.addresses {
            match address.to_socket_addrs() {
                Ok(more) => addresses.extend(more),
                Err(error) => self.config.addresses = Err(error),
            }
        }
        self
    }

    /// The same for those who operate the server. Their connections do not count for
    /// [`max_connections`](Server::max_connections): 64 at a time are served besides, so other clients cannot lock them out.
    pub fn also_bind_reserved(mut self, address: impl ToSocketAddrs) -> Server {
        let before = self.config.addresses.as_ref().map_or(0, Vec::len);
        self = self.also_bind(address);
        self.config.reserved.extend(self.config.addresses.iter().flatten().skip(before));
        self
    }

    /// How long a successor may take from its start until it is ready; then it is told to leave, and 5 s later killed.
    /// Default: [`defaults::READY_TIMEOUT`].
    pub fn ready_timeout(mut self, timeout: Duration) -> Server {
        self.config.timings.ready_timeout = timeout;
        self
    }

    /// How long the old generation keeps its listener open, steered away from, after a successor took over: to finish the
    /// handshakes it began, and to serve again if the successor crashes. Default: [`defaults::STANDBY`]. Too short for the
    /// slowest client's handshake loses that client's connection.
    pub fn standby(mut self, standby: Duration) -> Server {
        self.config.timings.standby = standby;
        self
    }

    /// How long, after a successor took over, an HTTP connection without a request in flight is kept while it is quiet.
    /// Longer is safer: a client that does not know yet may have its next request on the wire. Default: [`defaults::IDLE_GRACE`].
    pub fn idle_grace(mut self, grace: Duration) -> Server {
        self.config.idle_grace = grace;
        self
    }

    /// The same when the server was told to stop; shorter, because no generation serves after it. Default:
    /// [`defaults::STOP_IDLE_GRACE`].
    pub fn stop_idle_grace(mut self, grace: Duration) -> Server {
        self.config.stop_idle_grace = grace;
        self
    }

    /// How long, after a successor took over or the server was told to stop, the server waits at most, and never longer than
    /// the idle grace, for a moment in which nothing is under way on an HTTP/2 connection, to say GOAWAY then: many
    /// clients fail the requests that it meets. Default: [`defaults::GOAWAY_DELAY`].
    pub fn goaway_delay(mut self, delay: Duration) -> Server {
        self.config.drain = self.config.drain.goaway_delay(delay);
        self
    }

    /// How long a handler may go on without a byte of its response being written once its HTTP/1 client has closed its
    /// sending side, which a client does that has gone, and one that says that its request is the last. Longer serves more of
    /// the latter; shorter ends sooner what is done for the former. Zero drops the handler at once, as hyper does.
    /// Default: [`defaults::HALF_CLOSE_TIMEOUT`].
    pub fn half_close_timeout(mut self, timeout: Duration) -> Server {
        self.config.drain = self.config.drain.half_close_timeout(timeout);
        self
    }

    /// How long a client may take for the head of its first request, from accept on, and for that of each later one from
    /// its first byte on. Then its connection is closed. Zero: as long as it likes. Default: [`defaults::HEADER_TIMEOUT`].
    pub fn header_timeout(mut self, timeout: Duration) -> Server {
        self.config.drain = self.config.drain.header_timeout(timeout);
        self
    }

    /// How long a connection may have no request in flight, after its first one. Then it is closed: with GOAWAY if it is one of
    /// HTTP/2, which loses no request that is on its way. Zero: as long as the client likes. Default:
    /// [`defaults::KEEP_ALIVE_TIMEOUT`].
    ///
    /// A client that sends a request in the moment in which its HTTP/1 connection is closed has to send it again, so a load
    /// balancer in front should close its idle connections sooner than this.
    pub fn keep_alive_timeout(mut self, timeout: Duration) -> Server {
        self.config.drain = self.config.drain.keep_alive_timeout(timeout);
        self
    }

    /// How long a client may send nothing of the body that its HTTP/1 request has announced, while the handler waits for it
    /// and has not answered. Then the body ends with an error. Zero: as long as it likes. Default: [`defaults::BODY_TIMEOUT`].
    pub fn body_timeout(mut self, timeout: Duration) -> Server {
        self.config.drain = self.config.drain.body_timeout(timeout);
        self
    }

    /// How long a client may take nothing of its response. Then the connection is ended, or on HTTP/2 the stream is
    /// reset, if only that one does not get on. A client that reads slowly gets on; see
    /// [`DrainOptions::send_timeout`]. Zero: as long as it likes. Default: [`defaults::SEND_TIMEOUT`].
    pub fn send_timeout(mut self, timeout: Duration) -> Server {
        self.config.drain = self.config.drain.send_timeout(timeout);
        self
    }

    /// After how long a client of HTTP/2 that has requests in flight and sends nothing gets a PING. If nothing comes for 20 s
    /// more, its connection is ended. Zero: it is never asked. Default: [`defaults::HTTP2_PING_INTERVAL`].
    pub fn http2_ping_interval(mut self, interval: Duration) -> Server {
        self.config.drain = self.config.drain.http2_ping_interval(interval);
        self
    }

    /// So many requests at a time may a client send on one HTTP/2 connection, from 1 to 1000. Default:
    /// [`defaults::HTTP2_MAX_CONCURRENT_STREAMS`].
    pub fn http2_max_concurrent_streams(mut self, streams: u32) -> Server {
        self.config.drain = self.config.drain.http2_max_concurrent_streams(streams);
        self
    }

    /// How long, from the moment a successor took over, connections may go on; then the rest is cut. Never less than
    /// standby. Default: [`defaults::DRAIN_TIMEOUT`].
    pub fn drain_timeout(mut self, timeout: Duration) -> Server {
        self.config.timings.drain_timeout = timeout;
        self
    }

    /// How long connections may go on when the server was told to stop. Default: [`defaults::STOP_TIMEOUT`], within the 30 s
    /// that container runtimes usually grant.
    pub fn stop_timeout(mut self, timeout: Duration) -> Server {
        self.config.timings.stop_timeout = timeout;
        self
    }

    /// How long the server goes on accepting after it was told to stop, with every response saying `Connection: close`,
    /// so that a load balancer can take it out first (see [`Handle::is_stopping`]). Default: [`defaults::STOP_DELAY`].
    pub fn stop_delay(mut self, delay: Duration) -> Server {
        self.config.timings.stop_delay = delay;
        self
    }

    /// So many connections may be open. For one more, the connections that would be missed least make room, a few at a time: of those that
    /// have been silent since they were accepted, that never sent a complete request (both for more than 0.1 s), and that have
    /// been idle for more than 1 s, in this order, the oldest. Where all are busy a new one waits in the accept queue. A client
    /// that sends its next request in the moment in which its idle connection makes room has to send it again.
    ///
    /// Default: half of the file descriptors that are free when the server starts, because a connection often needs a second
    /// one. For that the soft limit of descriptors (RLIMIT_NOFILE) is raised to the hard one in any case. It leaves
    /// the rest of the process 64 descriptors, or a quarter of them if that is less.
    pub fn max_connections(mut self, connections: usize) -> Server {
        self.config.max_connections = Some(connections.max(1));
        self
    }

    /// The length of the accept queue of each address; the kernel caps it at `net.core.somaxconn`. Default:
    /// [`defaults::BACKLOG`].
    pub fn backlog(mut self, connections: u32) -> Server {
        self.config.backlog = connections;
        self
    }

    /// A file that holds the pid that stands for the service. It is written by rename, moves to the successor when
    /// standby ends, and is removed by the generation that stops. Behind [`supervise`](crate::supervise) it names the
    /// supervisor. Default: none.
    pub fn pid_file(mut self, path: impl Into<PathBuf>) -> Server {
        self.config.pid_file = Some(path.into());
        self
    }

    /// Takes signals that were caught before there was a server. Default: they are caught when it begins to listen.
    pub fn signals(mut self, signals: Signals) -> Server {
        self.config.signals = Some(signals);
        self
    }

    /// A check that must succeed before this generation takes over. Until then a predecessor keeps all connections;
    /// if it fails, the predecessor goes on serving. It runs when the addresses are listened on. Default: ready at once.
    pub fn ready_when<F, E>(mut self, check: F) -> Server
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.check = Some(Box::pin(async { check.await.map_err(Into::into) }));
        self
    }

    /// Finds mistakes in the settings, as [`serve`](Server::serve) does first of all, and listens on nothing.
    ///
    /// # Errors
    ///
    /// When a time is longer than [`LONGEST`](Server::LONGEST), or one address takes the connections of another: `0.0.0.0:80` those of
    /// `127.0.0.1:80`, for instance. (`0.0.0.0:80` and `[::]:80` may be named together.) Or when no pid file can lie where it
    /// should.
    pub fn check(&self) -> Result<(), Error> {
        self.config.check()
    }

    /// For restarting, stopping and observing this generation from within the program.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves HTTP until this generation has retired or stopped and its connections are finished or cut.
    ///
    /// Each request carries a [`ConnectInfo`](crate::ConnectInfo) in its extensions. When the future is dropped, all
    /// connections are cut.
    ///
    /// # Errors
    ///
    /// When a setting is a mistake (see [`check`](Server::check)), an address cannot be listened on, the pid file cannot be
    /// written, or the readiness check fails. All of these come before anything is taken over from a predecessor.
    pub async fn serve<S, B>(self, service: S) -> Result<Outcome, Error>
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
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
        let serve: Serve = Arc::new(move |conn: Conn| {
            let (remote, service) = (conn.connect_info().remote(), service.clone());
            #[cfg(feature = "tls")]
            if let Some((config, timeout)) = tls.clone() {
                let served = async move { conn.tls(config, timeout).await?.serve(service).await };
                tokio::spawn(ended(served, remote));
                return;
            }
            tokio::spawn(ended(conn.serve(service), remote));
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

/// Runs the check in a task of its own: a panic in it is a failed check.
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
    async fn a_time_that_cannot_be_reckoned_with_is_an_error_that_names_the_setting() {
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
    async fn a_drain_reckons_with_any_time() {
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
