//! Connections from accept to drop: counting them, and draining each one once a successor serves.
//!
//! `admission` lets a connection in, `conn` is its I/O object up to the last byte, and `linger` waits for the client after that.
//! `serve` speaks HTTP on it, and `tracked_service` wraps its requests. `conn_state` decides when to close the connection and does no
//! I/O: it uses `request_framing` and `frames` to find requests, and `goaway` to time GOAWAY on HTTP/2. The tasks of a connection
//! share its `requests`. `registry` holds all connections and tells each one its mode. No module here knows processes or generations.

use std::sync::Arc;
#[cfg(feature = "tls")]
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout};

mod admission;
mod conn;
mod conn_state;
mod frames;
mod goaway;
mod mode;
mod open_guard;
mod options;
mod registry;
mod request_framing;
mod requests;
mod serve;
mod slots;
mod streams;
mod timer;
mod tracked_service;

pub use conn::Conn;
#[cfg(feature = "tls")]
pub use conn::{TlsInfo, TlsStream};
use mode::{Mode, VersionedMode};
pub use options::DrainOptions;
use registry::{Registry, TELL_AT_ONCE};
pub use requests::ConnectInfo;
use slots::Pools;
pub(crate) use slots::{Pool, Slot};
pub use streams::Http2Executor;

use crate::error::LONGEST;
use crate::report::{Connections, Drained};

/// A timer that fires more than this late shows that the process was not running, so no client could make progress either.
pub(crate) const PAUSED: Duration = Duration::from_secs(1);
/// How long a cut waits for connections to close. The rest end with the process.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// Tracks all connections of a server, and ends each one as its protocol allows.
///
/// [`Server`](crate::Server) uses one internally. A custom accept loop can use one to drain as well as `Server` does:
///
/// ```no_run
/// # use {hyper::{Request, Response, body::Incoming, service::service_fn}, std::{convert::Infallible, time::Duration}};
/// # async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> { Ok(Response::new("".into())) }
/// # async fn run() -> std::io::Result<()> {
/// # async fn told_to_stop() {}
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// let drain = handover::Drain::new();
/// let mut told = std::pin::pin!(told_to_stop());
/// loop {
///     tokio::select! {
///         accepted = listener.accept() => {
///             let (stream, remote) = accepted?;
///             tokio::spawn(drain.conn(stream, remote).serve(service_fn(hello)));
///         }
///         () = &mut told => break,
///     }
/// }
/// drop(listener);
/// drain.lame_duck(Duration::from_secs(5));
/// let drained = drain.finish(Duration::from_secs(25)).await;
/// println!("{} connections finished, {} cut", drained.finished, drained.cut);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Drain(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The mode of all connections. Each connection acts on the mode that it was last told.
    mode: watch::Sender<VersionedMode>,
    registry: Registry,
    open: AtomicUsize,
    closed: AtomicU64,
    /// `closed` when lame duck began.
    closed_before: AtomicU64,
    requests_cut: AtomicU64,
    /// Notified when the last connection is gone, when a slot may be free, and when the mode changes.
    changed: Notify,
    pools: Pools,
    /// The start of the clock, in milliseconds, in which the idle times of connections are stored.
    epoch: Instant,
    /// Permits for clients that keep sending after the server's FIN.
    linger_permits: Semaphore,
    /// Whether the warning about server names that rustls refuses has already been logged.
    #[cfg(feature = "tls")]
    told_of_names: AtomicBool,
    options: DrainOptions,
}

impl Default for Drain {
    fn default() -> Drain {
        Drain::new()
    }
}

impl Drain {
    /// Creates a drain without connections, with the default options and keep-alive on.
    pub fn new() -> Drain {
        Drain::with_options(DrainOptions::default())
    }

    /// Creates a drain with other options.
    pub fn with_options(options: DrainOptions) -> Drain {
        Drain::with_limit(usize::MAX, options)
    }

    pub(crate) fn with_limit(limit: usize, options: DrainOptions) -> Drain {
        Drain(Arc::new(Shared {
            mode: watch::Sender::new(VersionedMode::first()),
            registry: Registry::new(),
            open: AtomicUsize::new(0),
            closed: AtomicU64::new(0),
            closed_before: AtomicU64::new(0),
            requests_cut: AtomicU64::new(0),
            changed: Notify::new(),
            pools: Pools::new(limit),
            epoch: Instant::now(),
            linger_permits: Semaphore::new(conn::LINGER_PERMITS),
            #[cfg(feature = "tls")]
            told_of_names: AtomicBool::new(false),
            options: options.bounded(),
        }))
    }

    /// Tracks an accepted connection from now until it is dropped.
    pub fn conn(&self, stream: TcpStream, remote: std::net::SocketAddr) -> Conn {
        Conn::accepted(stream, remote, self, self.slot_anyway(Pool::Public))
    }

    /// Tracks a connection over any stream, such as one from [`tokio::io::duplex`].
    pub fn stream<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: T,
        remote: std::net::SocketAddr,
    ) -> Conn<T> {
        Conn::new(stream, remote, remote, self, self.slot_anyway(Pool::Public), conn::StreamOps::none())
    }

    /// Makes all connections lame ducks: HTTP/1 responses say `Connection: close`, an HTTP/1 connection without a
    /// request is closed once it has been quiet for `idle_grace`, HTTP/2 clients get GOAWAY when nothing is in flight on
    /// their connection (see [`DrainOptions::goaway_delay`]), and [`Retiring`] tells the application. A second call changes
    /// the grace and keeps the count. A grace of more than 365 days is reduced to 365 days.
    pub fn lame_duck(&self, idle_grace: Duration) {
        let before = self.mode();
        if before == Mode::Normal {
            self.0.closed_before.store(self.0.closed.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        let since = before.lame_duck_since().unwrap_or_else(Instant::now);
        self.set_mode(Mode::LameDuck { since, idle_grace: idle_grace.min(LONGEST) });
    }

    /// Returns to keep-alive, because no successor took over after all. Connections stay open unless their clients have
    /// already been told to close.
    pub fn normal(&self) {
        self.set_mode(Mode::Normal);
    }

    /// Waits until every connection is gone, and cuts the rest after `deadline`. Returns how many finished and how many were
    /// cut.
    pub async fn finish(self, deadline: Duration) -> Drained {
        let _ = timeout(deadline, self.empty()).await;
        self.cut().await
    }

    /// Cuts the open connections. Returns how many connections finished and how many were cut since lame duck began.
    pub(crate) async fn cut(&self) -> Drained {
        let began = self.mode().lame_duck_since().unwrap_or_else(Instant::now);
        let (finished, cut, took) = (self.finished(), self.open() as u64, began.elapsed());
        self.cut_now();
        // Connections that do not close within the grace end with the process.
        let _ = timeout(CUT_GRACE, self.empty()).await;
        Drained { finished, cut, requests_cut: self.0.requests_cut.load(Ordering::SeqCst), took }
    }

    pub(crate) fn cut_now(&self) {
        self.set_mode(Mode::Cut);
    }

    fn set_mode(&self, mode: Mode) {
        self.0.mode.send_modify(|current| *current = current.next(mode));
        let current = *self.0.mode.borrow();
        self.0.changed.notify_waiters();
        match (Handle::try_current(), mode) {
            (Ok(runtime), Mode::LameDuck { .. }) if self.open() > TELL_AT_ONCE => {
                let drain = self.clone();
                runtime.spawn(async move {
                    let is_current = || *drain.0.mode.borrow() == current;
                    drain.0.registry.tell_slowly(current, drain.open(), is_current).await;
                });
            }
            _ => self.0.registry.tell_all(current),
        }
    }

    fn mode(&self) -> Mode {
        self.0.mode.borrow().mode
    }

    /// Returns how many connections are open now.
    pub fn open(&self) -> usize {
        self.0.open.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> Connections {
        let shared = &self.0;
        let open = self.open() as u64;
        Connections {
            open,
            accepted: open + shared.closed.load(Ordering::SeqCst),
            evicted: shared.pools.evicted(),
            requests: shared.registry.requests(),
            in_flight: shared.registry.in_flight(),
            finished: if self.is_normal() { 0 } else { self.finished() },
        }
    }

    fn finished(&self) -> u64 {
        self.0.closed.load(Ordering::SeqCst) - self.0.closed_before.load(Ordering::SeqCst)
    }

    /// Returns when no connection is open. Cancel safe.
    pub(crate) async fn empty(&self) {
        self.wait_until(|| self.open() == 0).await;
    }

    async fn wait_until(&self, done: impl Fn() -> bool) {
        while !done() {
            let changed = self.0.changed.notified();
            if done() {
                return;
            }
            changed.await;
        }
    }

    /// Returns a handle that tells the application when this server retires.
    pub fn retiring(&self) -> Retiring {
        Retiring(self.0.mode.subscribe())
    }

    /// Returns `time` in milliseconds since this drain was created.
    fn millis(&self, time: Instant) -> u64 {
        let since = time - self.0.epoch;
        since.as_secs() * 1000 + u64::from(since.subsec_millis())
    }

    fn is_normal(&self) -> bool {
        self.mode() == Mode::Normal
    }
}

/// Tells an application that this generation retires or stops: new connections go to a successor, or the generation was told
/// to stop. The application should soon end everything that it holds open itself (streams, its own protocol), because
/// connections are cut at the drain deadline.
///
/// It comes from [`Listener::retiring`](crate::Listener::retiring), from [`Drain::retiring`], or, within a request, from
/// its [`ConnectInfo`]. If the successor crashes while this generation is in standby, this generation serves again and
/// [`is_retiring`](Retiring::is_retiring) is false again.
///
/// # Examples
///
/// ```no_run
/// # async fn next_message() -> String { String::new() }
/// # async fn run(mut retiring: handover::Retiring) {
/// loop {
///     tokio::select! {
///         message = next_message() => println!("{message}"),
///         // The client reconnects, and gets to the successor.
///         () = retiring.wait() => break,
///     }
/// }
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Retiring(watch::Receiver<VersionedMode>);

impl Retiring {
    /// Returns whether this generation is retiring or stopping now.
    pub fn is_retiring(&self) -> bool {
        self.0.borrow().mode != Mode::Normal
    }

    /// Waits until this generation begins to retire or stop, and returns at once if it already has. Cancel safe.
    pub async fn wait(&mut self) {
        // An error means that the drain is gone, so this generation has retired.
        let _ = self.0.wait_for(|current| current.mode != Mode::Normal).await;
    }
}

#[cfg(test)]
mod tests;
