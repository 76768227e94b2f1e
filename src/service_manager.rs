//! Messages to the service manager, in the protocol of sd_notify(3). The service manager is systemd or the supervisor of
//! [`supervise`](crate::supervise).
//!
//! Sending never blocks, because a service manager that does not read must not hold up the server. Messages that do not fit
//! into the socket are queued and sent in order when there is room. (The crate sd-notify blocks, does not support abstract
//! addresses, and applies a watchdog to generation 1 only.)

use std::collections::VecDeque;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::net::UnixDatagram;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};
use tracing::warn;

/// The field with the pid of a successor that was started.
pub(crate) const SUCCESSOR: &str = "X_HANDOVER_SUCCESSOR";

/// The field with the new main pid of the service.
pub(crate) const MAIN: &str = "MAINPID";
/// The prefix of custom fields, which systemd ignores.
pub(crate) const OURS: &str = "X_";
pub(crate) const STOPPING: &str = "STOPPING=1";
pub(crate) const RELOADING: &str = "RELOADING=1";
pub(crate) const SOCKET: &str = "NOTIFY_SOCKET";
pub(crate) const WATCHDOG_USEC: &str = "WATCHDOG_USEC";
pub(crate) const WATCHDOG_PID: &str = "WATCHDOG_PID";
const ALIVE: &str = "WATCHDOG=1";
/// The pid of the process that systemd itself executed, since systemd 248.
const EXEC_PID: &str = "SYSTEMD_EXEC_PID";

/// How long a process that leaves waits for the service manager to read the queued messages.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct ServiceManager {
    manager: Option<Manager>,
    /// Whether this process is the main process of the service. Others must not send messages, because systemd ignores them
    /// with a warning.
    is_main: bool,
    watchdog: Option<Interval>,
    /// Whether systemd has already asked this process to stop.
    stop_heard: bool,
}

#[derive(Debug)]
struct Manager {
    path: String,
    socket: UnixDatagram,
    waiting: VecDeque<String>,
}

impl ServiceManager {
    /// Reads the environment. `is_first` means that the service manager started this process, and not a predecessor.
    pub(crate) fn from_env(is_first: bool) -> ServiceManager {
        ServiceManager::from_vars(is_first, |name| std::env::var(name).ok())
    }

    /// Returns the service manager of the supervisor, which forwards the generations' messages, including their watchdog
    /// messages, and sends no watchdog messages itself.
    pub(crate) fn of_supervisor() -> ServiceManager {
        ServiceManager { watchdog: None, ..ServiceManager::from_env(true) }
    }

    fn from_vars(is_first: bool, var: impl Fn(&str) -> Option<String>) -> ServiceManager {
        let manager = var(SOCKET).filter(|path| !path.is_empty()).and_then(|path| match connect(&path) {
            Ok(socket) => Some(Manager { path, socket, waiting: VecDeque::new() }),
            Err(error) => {
                warn!(
                    "cannot tell the service manager what happens: {SOCKET}={path}: {error}; unset {SOCKET} if there is none"
                );
                None
            }
        });
        // WATCHDOG_PID names generation 1, but the watchdog applies to its successors too.
        let is_meant = !is_first || is_watched(&var);
        let usec = var(WATCHDOG_USEC).filter(|_| is_meant && manager.is_some());
        let usec = usec.and_then(|usec| usec.parse().ok()).filter(|usec| *usec > 1);
        // Half of the time that is allowed, as sd_watchdog_enabled(3) recommends.
        let watchdog = usec.map(|usec| interval(Duration::from_micros(usec) / 2)).map(|mut interval| {
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        });
        ServiceManager { manager, is_main: is_first, watchdog, stop_heard: false }
    }

    /// Makes this process the main process of the service, which sends the messages.
    pub(crate) fn become_main(&mut self) {
        self.is_main = true;
    }

    /// Makes another process the main process of the service, which sends the messages from now on.
    pub(crate) fn move_to(&mut self, pid: u32) {
        self.tell(&[format!("{MAIN}={pid}")]);
        self.is_main = false;
    }

    /// Returns whether a request to stop is systemd's second one. systemd asks every process of a unit to stop, and asks the
    /// remaining ones again when the main process has gone (systemd.kill(5)). That must not count as a second request.
    pub(crate) fn is_repetition(&mut self, sender: u32) -> bool {
        let is_systemd =
            || std::fs::read_to_string(format!("/proc/{sender}/comm")).is_ok_and(|c| c == "systemd\n");
        self.manager.is_some() && is_systemd() && std::mem::replace(&mut self.stop_heard, true)
    }

    /// Sends one message if this process is the main process of the service.
    pub(crate) fn tell(&mut self, fields: &[String]) {
        if let (Some(manager), true) = (&mut self.manager, self.is_main) {
            let message = fields.join("\n");
            // Watchdog messages are not queued: for a service manager that does not read, they would pile up for ever.
            if message != ALIVE || manager.waiting.is_empty() {
                manager.waiting.push_back(message);
                manager.send();
            }
        }
    }

    /// Sends queued messages and the watchdog messages. Never returns. Cancel safe.
    pub(crate) async fn keep_telling(&mut self) {
        loop {
            let ServiceManager { manager, watchdog, is_main, .. } = self;
            let waiting = manager.as_mut().filter(|manager| !manager.waiting.is_empty());
            tokio::select! {
                () = writable(waiting.as_deref()) => manager.iter_mut().for_each(Manager::send),
                () = tick(watchdog), if *is_main => self.tell(&[ALIVE.to_owned()]),
            }
        }
    }

    /// Gives a busy service manager a moment to read the last messages.
    pub(crate) async fn finish(&mut self) {
        let Some(manager) = &mut self.manager else { return };
        let sent = timeout(PATIENCE, async {
            while !manager.waiting.is_empty() {
                writable(Some(manager)).await;
                manager.send();
            }
        });
        if sent.await.is_err() {
            let (pid, unread) = (std::process::id(), manager.waiting.len());
            warn!(pid, "the service manager at {} does not read: {unread} messages are lost", manager.path);
        }
    }
}

impl Manager {
    fn send(&mut self) {
        while let Some(message) = self.waiting.front() {
            match self.socket.try_send(message.as_bytes()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The service manager may have recreated its socket.
                Err(_) => {
                    let again = connect(&self.path).and_then(|socket| {
                        self.socket = socket;
                        self.socket.try_send(message.as_bytes())
                    });
                    if let Err(error) = again {
                        let pid = std::process::id();
                        warn!(pid, "cannot tell the service manager {message:?}: {}: {error}", self.path);
                    }
                }
                Ok(_) => {}
            }
            self.waiting.pop_front();
        }
    }
}

/// Returns whether a watchdog, if there is one, is meant for this process.
pub(crate) fn is_watched(var: impl Fn(&str) -> Option<String>) -> bool {
    var(WATCHDOG_PID).is_none_or(|pid| pid == std::process::id().to_string())
}

fn connect(path: &str) -> io::Result<UnixDatagram> {
    let addr = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = StdDatagram::unbound()?;
    socket.connect_addr(&addr)?;
    socket.set_nonblocking(true)?;
    UnixDatagram::from_std(socket)
}

async fn writable(manager: Option<&Manager>) {
    match manager {
        // If this fails, so does the next send, which logs why.
        Some(manager) => drop(manager.socket.writable().await),
        None => std::future::pending().await,
    }
}

async fn tick(watchdog: &mut Option<Interval>) {
    match watchdog {
        Some(watchdog) => drop::<Instant>(watchdog.tick().await),
        None => std::future::pending().await,
    }
}

/// Returns the fields that announce a reload. systemd compares the time with that of its request, to ignore earlier reloads.
pub(crate) fn reloading() -> Vec<String> {
    let now = clock_gettime(ClockId::Monotonic);
    let usec = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec / 1000);
    vec![RELOADING.to_owned(), format!("MONOTONIC_USEC={usec}")]
}

/// Returns the custom field that names the successor, which the supervisor follows if this process dies. systemd ignores it.
pub(crate) fn successor(pid: u32) -> String {
    format!("{SUCCESSOR}={pid}")
}

/// Returns why a successor could not outlive this process, or `None` if it could. Either this process is pid 1 of a pid
/// namespace, or systemd started it without `NOTIFY_SOCKET`: in both cases its exit kills every other process of the service.
pub(crate) fn why_no_successor_can_survive() -> Option<&'static str> {
    if std::process::id() == 1 {
        return Some(
            "this is pid 1, and the container would end with this process: keep a supervisor with --supervise \
             (handover::supervise)",
        );
    }
    let told = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let started_by_systemd = told(EXEC_PID)? == std::process::id().to_string();
    (started_by_systemd && told(SOCKET).is_none()).then_some(
        "systemd would end the service with this process, because it is not told of the successor: set Type=notify in the \
         unit (see examples/systemd), or keep a supervisor with --supervise",
    )
}
