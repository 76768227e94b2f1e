//! What the service manager is told, in the words of sd_notify(3): systemd, or the supervisor of
//! [`supervise`](crate::supervise).
//!
//! Nothing here waits: a manager that does not read must not hold up who serves. What it has no room for is kept and sent
//! in its order when there is room. (The crate sd-notify blocks, does not know abstract addresses, and takes a watchdog for
//! one of generation 1 only.)

use std::collections::VecDeque;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::net::UnixDatagram;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};
use tracing::warn;

/// Names the pid of a successor that was started.
pub(crate) const SUCCESSOR: &str = "X_HANDOVER_SUCCESSOR";

/// Names the successor that stands for the service from now on.
pub(crate) const MAIN: &str = "MAINPID";
/// What systemd ignores.
pub(crate) const OURS: &str = "X_";
pub(crate) const STOPPING: &str = "STOPPING=1";
pub(crate) const RELOADING: &str = "RELOADING=1";
pub(crate) const SOCKET: &str = "NOTIFY_SOCKET";
pub(crate) const WATCHDOG_USEC: &str = "WATCHDOG_USEC";
pub(crate) const WATCHDOG_PID: &str = "WATCHDOG_PID";
const ALIVE: &str = "WATCHDOG=1";
/// The pid of the process that systemd itself executed, since systemd 248.
const EXEC_PID: &str = "SYSTEMD_EXEC_PID";

/// How long a process that leaves waits for the manager to read what it was told.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct ServiceManager {
    manager: Option<Manager>,
    /// The manager takes the word of one process only, the main pid, and logs a warning for every other.
    is_main: bool,
    watchdog: Option<Interval>,
    /// From the manager itself.
    stop_heard: bool,
}

#[derive(Debug)]
struct Manager {
    path: String,
    socket: UnixDatagram,
    waiting: VecDeque<String>,
}

impl ServiceManager {
    /// `is_first`: the process that the manager started, and not a successor.
    pub(crate) fn from_env(is_first: bool) -> ServiceManager {
        ServiceManager::told_by(is_first, |name| std::env::var(name).ok())
    }

    /// Of the supervisor, which passes on what the generations say and is not asked whether they are alive.
    pub(crate) fn of_supervisor() -> ServiceManager {
        ServiceManager { watchdog: None, ..ServiceManager::from_env(true) }
    }

    fn told_by(is_first: bool, var: impl Fn(&str) -> Option<String>) -> ServiceManager {
        let manager = var(SOCKET).filter(|path| !path.is_empty()).and_then(|path| match connect(&path) {
            Ok(socket) => Some(Manager { path, socket, waiting: VecDeque::new() }),
            Err(error) => {
                warn!(
                    "cannot tell the service manager what happens: {SOCKET}={path}: {error}; unset it if there is none"
                );
                None
            }
        });
        // A successor is the right one although the pid is that of generation 1.
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

    /// This process stands for the service now.
    pub(crate) fn become_main(&mut self) {
        self.is_main = true;
    }

    /// Another one does, and speaks from now on.
    pub(crate) fn move_to(&mut self, pid: u32) {
        self.tell(&[format!("{MAIN}={pid}")]);
        self.is_main = false;
    }

    /// Whether a request to stop says nothing new. systemd asks every process of a unit, and who is left once more when
    /// the main process has gone (systemd.kill(5)): that is no impatience.
    pub(crate) fn is_repetition(&mut self, sender: u32) -> bool {
        let is_systemd =
            || std::fs::read_to_string(format!("/proc/{sender}/comm")).is_ok_and(|c| c == "systemd\n");
        self.manager.is_some() && is_systemd() && std::mem::replace(&mut self.stop_heard, true)
    }

    /// One message, unless another process stands for the service.
    pub(crate) fn tell(&mut self, fields: &[String]) {
        if let (Some(manager), true) = (&mut self.manager, self.is_main) {
            let message = fields.join("\n");
            // To a manager that does not read, being alive is old news, and there would be more of it for ever.
            if message != ALIVE || manager.waiting.is_empty() {
                manager.waiting.push_back(message);
                manager.send();
            }
        }
    }

    /// Sends what there was no room for, and is alive. Never returns. Cancel safe.
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

    /// Gives a manager that is busy a moment to take the last words.
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
                // It may have made its socket anew.
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

/// Whether a watchdog, if there is one, is meant for this process.
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
        // Fails only together with the next send, which says why.
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

/// The beginning of a reload. systemd wants to know that it is one that began after it had asked.
pub(crate) fn reloading() -> Vec<String> {
    let now = clock_gettime(ClockId::Monotonic);
    let usec = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec / 1000);
    vec![RELOADING.to_owned(), format!("MONOTONIC_USEC={usec}")]
}

/// A field of ours, which systemd ignores: who is adopted by the supervisor if this one dies.
pub(crate) fn successor(pid: u32) -> String {
    format!("{SUCCESSOR}={pid}")
}

/// Why this process cannot be followed by another: every other process is killed when it leaves. Either it is the first of a
/// pid namespace, or systemd started it and does not listen to it, so the service is over.
pub(crate) fn is_held() -> Option<&'static str> {
    if std::process::id() == 1 {
        return Some(
            "this is pid 1, and the container would end with this process: keep a supervisor with --supervise \
             (handover::supervise)",
        );
    }
    let told = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let started_by_systemd = told(EXEC_PID)? == std::process::id().to_string();
    (started_by_systemd && told(SOCKET).is_none()).then_some(
        "systemd would end the service with this process, because it does not hear which one comes next: set \
         Type=notify in the unit (see examples/systemd), or keep a supervisor with --supervise",
    )
}
