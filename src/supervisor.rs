//! The supervisor, for a container or a terminal, where the pid of the service must not change. It starts the first
//! generation, adopts each later one, passes signals on, and exits with the status of the last generation. Generations
//! report to it as to a service manager: see [`crate::service_manager`].
//!
//! The supervisor does not listen or serve, and never restarts a generation that has failed.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use tracing::info;

use crate::error::{Error, Kind};
use crate::generation::{self, ENVIRONMENT, is_supervised};
use crate::process::pidfd::{self, PidFd};
use crate::process::{self, Launch};
use crate::service_manager::{self, ServiceManager};
use crate::signals::Signals;

mod notify_socket;
mod service;
use notify_socket::{NotifySocket, Received};
use service::Service;

/// Runs the server under a supervisor, so that the parent of this program sees one process whose pid never changes.
///
/// Call this function first in `main`, outside of any async runtime. If it returns `None`, this process is a generation and
/// `main` continues. Otherwise the service has ended, and `main` should return the given exit code: that of the last
/// generation, or 128 plus the signal number if that generation was killed.
///
/// ```no_run
/// # use std::process::ExitCode;
/// # fn serve() -> Result<ExitCode, handover::Error> { Ok(ExitCode::SUCCESS) }
/// fn main() -> Result<ExitCode, handover::Error> {
///     if handover::needs_supervisor() && let Some(status) = handover::supervise()? {
///         return Ok(status);
///     }
///     serve()
/// }
/// ```
///
/// The supervisor starts this program again, with the same arguments and in the same directory, and passes signals on:
/// SIGHUP and SIGUSR2 to the main generation, SIGTERM and SIGINT also to the generations that still finish their
/// connections. It adopts every orphan (`PR_SET_CHILD_SUBREAPER`) and reaps it. It forwards the generations' messages to its
/// service manager (`NOTIFY_SOCKET`), except those that name a pid. If the main generation dies, its successor takes its
/// place. Without a successor the service has ended, and restarting it is up to the parent of the supervisor.
///
/// # Errors
///
/// When the program cannot be started again, when the system refuses a resource that the supervisor needs, or when this
/// function is called inside an async runtime.
pub fn supervise() -> Result<Option<ExitCode>, Error> {
    if is_supervised() {
        return Ok(None);
    }
    supervise_with(&mut Signals::install()?)
}

/// Does the same as [`supervise`], with signal handlers that were installed earlier. When it returns `None`, `signals` is
/// unchanged and can be passed to [`Server::signals`](crate::Server::signals).
///
/// # Errors
///
/// See [`supervise`].
pub fn supervise_with(signals: &mut Signals) -> Result<Option<ExitCode>, Error> {
    if is_supervised() {
        return Ok(None);
    }
    let failed = |what| move |source: io::Error| Error::from(Kind::Supervisor { what, source });
    if tokio::runtime::Handle::try_current().is_ok() {
        let source = io::Error::other("call it before a runtime is entered");
        return Err(failed("called inside an async runtime")(source));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed("cannot start an async runtime"))?;
    runtime.block_on(async {
        signals.enter_supervisor()?;
        let supervisor = Supervisor::start(signals)?;
        Ok(Some(supervisor.run().await))
    })
}

/// Returns whether the service would end with this process even though a successor serves. That is so in three cases:
///
/// - This process is pid 1, so its container ends with it. Without [`supervise`] a restart is refused.
/// - systemd started this process and gave it no `NOTIFY_SOCKET`. Without [`supervise`] a restart is refused.
/// - The parent is pid 1 but not systemd, and there is no `NOTIFY_SOCKET`. The parent is then a small init
///   (`docker run --init`, tini, dumb-init, bwrap), which ends the container when the process that it started exits.
///
/// Call this when the program starts, because pid 1 also adopts orphans later.
pub fn needs_supervisor() -> bool {
    service_manager::why_no_successor_can_survive().is_some() || is_child_of_a_small_init()
}

/// Returns whether the parent is a small init. If this process may not read the name of pid 1, the directory
/// `/run/systemd/system` shows whether pid 1 is systemd (sd_booted(3)).
fn is_child_of_a_small_init() -> bool {
    let is_systemd = || match std::fs::read_to_string("/proc/1/comm") {
        Ok(name) => name == "systemd\n",
        Err(_) => Path::new("/run/systemd/system").exists(),
    };
    let manager_listens = || std::env::var_os(service_manager::SOCKET).is_some_and(|path| !path.is_empty());
    process::is_parent(1, None) && !manager_listens() && !is_systemd()
}

/// The maximum number of messages to read before looking at signals again.
const BATCH: usize = 64;

struct Supervisor<'a> {
    signals: &'a mut Signals,
    notify_socket: NotifySocket,
    service: Service,
    manager: ServiceManager,
}

impl Supervisor<'_> {
    fn start(signals: &mut Signals) -> Result<Supervisor<'_>, Error> {
        let failed = |what| move |source: io::Error| Error::from(Kind::Supervisor { what, source });
        let launch = Launch::capture()?;
        pidfd::is_supported().map_err(Kind::Pidfd)?;
        pidfd::adopt_orphans().map_err(failed("cannot adopt the generations"))?;
        let notify_socket = NotifySocket::open().map_err(failed("cannot open the notify socket"))?;
        let manager = ServiceManager::of_supervisor();
        let mut environment = generation::supervisor_environment();
        environment.push((service_manager::SOCKET, notify_socket.name().to_owned()));
        let mut without = ENVIRONMENT.to_vec();
        // The main generation answers a watchdog that is meant for this process. One for another process is not passed on.
        without.push(service_manager::WATCHDOG_PID);
        if !service_manager::is_watched(|name| std::env::var(name).ok()) {
            without.push(service_manager::WATCHDOG_USEC);
        }
        let first = launch.spawn_first(&environment, &without).map_err(Kind::FirstGeneration)?;
        info!(generation = 1, first, "supervising the generations");
        // Cannot be another process with the same pid, because the child has not been reaped.
        let first = PidFd::open(first).map_err(failed("cannot watch the first generation"))?;
        Ok(Supervisor { signals, notify_socket, service: Service::of(first), manager })
    }

    async fn run(mut self) -> ExitCode {
        let mut has_read_all = self.process_messages_and_deaths();
        while !self.service.has_left() {
            let Supervisor { signals, notify_socket, service, manager } = &mut self;
            let signal = tokio::select! {
                biased;
                signal = signals.next_of_supervisor() => Some(signal),
                () = std::future::ready(()), if !has_read_all => None,
                () = notify_socket.readable() => None,
                () = service.any_death() => None,
                () = manager.keep_telling() => None,
            };
            has_read_all = self.process_messages_and_deaths();
            if let Some(signal) = signal {
                self.service.on_signal(signal);
            }
        }
        self.manager.finish().await;
        self.reap();
        self.service.status()
    }

    /// Reads messages and removes dead generations, in the order of events. Returns whether everything has been read.
    fn process_messages_and_deaths(&mut self) -> bool {
        let mut batch = 0..BATCH;
        loop {
            // Both before the messages are read: then the last messages of a dead process are among them, and a process that is
            // named in a message but already reaped is still known.
            let dead = self.service.dead();
            self.reap();
            while let Some(received) = self.notify_socket.next(|from| self.service.may_speak(from)) {
                if let Received::Datagram(datagram) = received {
                    let fields = self.service.read(&datagram);
                    if !fields.is_empty() {
                        self.manager.tell(&fields);
                    }
                }
                if batch.next().is_none() {
                    return false;
                }
            }
            // A dead successor that cannot be reaped even now was reaped by its predecessor, so it failed while the
            // predecessor lived.
            let failed = self.service.has_dead_successor();
            self.reap();
            self.service.remove_dead(dead, failed);
            if dead.is_none() {
                self.service.forget_the_reaped();
                return true;
            }
        }
    }

    fn reap(&mut self) {
        while let Some((pid, ended)) = pidfd::reap() {
            self.service.record_exit(pid, ended);
        }
    }
}
