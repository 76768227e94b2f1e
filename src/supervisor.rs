//! The supervisor, for a container or a terminal, where a pid cannot be handed on: it starts the first generation,
//! adopts each one that follows, passes signals on, and leaves with the status of the last. To its generations it is the
//! service manager of `notify`.
//!
//! It listens on nothing, serves nothing, and never starts a second time what has failed.

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

/// Stays in front of the server, so that the starter of this program sees one process with one pid, for ever.
///
/// Call it first in `main`, outside of any runtime, and go on when it returns `None`: then this process is a generation.
/// Otherwise the service has ended, and `main` should return with the status that comes back, that of the last generation:
/// 128 and the signal's number if it was killed.
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
/// The supervisor starts this program again, with the same arguments, where it was started, and passes on what it
/// gets: SIGHUP and SIGUSR2 to the generation that stands for the service, SIGTERM and SIGINT to those that finish their
/// connections as well. It is the parent of every orphan (`PR_SET_CHILD_SUBREAPER`) and reaps it. What the generations say to
/// a service manager (`NOTIFY_SOCKET`) goes on to that of this process, but never another pid. Should a generation die, its
/// successor goes on if it has one; otherwise the service is over, and to start it again is up to the watcher of this process.
///
/// # Errors
///
/// When the program cannot be started again, or the system refuses what is needed for it.
pub fn supervise() -> Result<Option<ExitCode>, Error> {
    if is_supervised() {
        return Ok(None);
    }
    supervise_with(&mut Signals::install()?)
}

/// As [`supervise`], with signals that were caught before. When it returns `None` they are as they were.
///
/// # Errors
///
/// As [`supervise`].
pub fn supervise_with(signals: &mut Signals) -> Result<Option<ExitCode>, Error> {
    if is_supervised() {
        return Ok(None);
    }
    let failed = |what| move |source: io::Error| Error::from(Kind::Supervisor { what, source });
    if tokio::runtime::Handle::try_current().is_ok() {
        let source = io::Error::other("call it before a runtime is entered");
        return Err(failed("this is an asynchronous task")(source));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed("no runtime"))?;
    runtime.block_on(async {
        signals.enter_supervisor()?;
        let supervisor = Supervisor::start(signals)?;
        Ok(Some(supervisor.run().await))
    })
}

/// Whether no one would follow this process to a successor: it is pid 1, with which its container ends, or systemd started
/// it and does not listen to it (no `NOTIFY_SOCKET`); without [`supervise`] a restart is refused there. Or its parent is pid 1
/// and not systemd: a small init (`docker run --init`, tini, dumb-init, bwrap), which ends the container with the process that
/// it has started.
///
/// Ask when the program starts, because orphans are adopted by pid 1 too.
pub fn needs_supervisor() -> bool {
    service_manager::is_held().is_some() || is_child_of_a_small_init()
}

/// Where this process may not look at pid 1, systemd's directory tells (sd_booted(3)).
fn is_child_of_a_small_init() -> bool {
    let is_systemd = || match std::fs::read_to_string("/proc/1/comm") {
        Ok(name) => name == "systemd\n",
        Err(_) => Path::new("/run/systemd/system").exists(),
    };
    let manager_listens = || std::env::var_os(service_manager::SOCKET).is_some_and(|path| !path.is_empty());
    process::is_parent(1, None) && !manager_listens() && !is_systemd()
}

/// So many messages are read before signals are looked at again.
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
        let notify_socket = NotifySocket::open().map_err(failed("cannot open a socket for them"))?;
        let manager = ServiceManager::of_supervisor();
        let mut environment = generation::supervisor_environment();
        environment.push((service_manager::SOCKET, notify_socket.name().to_owned()));
        let mut without = ENVIRONMENT.to_vec();
        // The watchdog may be meant for another process; if it is meant for this one, the generation that serves answers.
        without.push(service_manager::WATCHDOG_PID);
        if !service_manager::is_watched(|name| std::env::var(name).ok()) {
            without.push(service_manager::WATCHDOG_USEC);
        }
        let first = launch.spawn_first(&environment, &without).map_err(Kind::FirstGeneration)?;
        info!(generation = 1, first, "in front of the generations");
        // Cannot be another process: it has not been reaped.
        let first = PidFd::open(first).map_err(failed("cannot watch the first generation"))?;
        Ok(Supervisor { signals, notify_socket, service: Service::of(first), manager })
    }

    async fn run(mut self) -> ExitCode {
        let mut has_read_all = self.look();
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
            has_read_all = self.look();
            if let Some(signal) = signal {
                self.service.on_signal(signal);
            }
        }
        self.manager.finish().await;
        self.reap();
        self.service.status()
    }

    /// Reads what was said and buries who is dead, in the order in which it happened. Returns whether that was all.
    fn look(&mut self) -> bool {
        let mut batch = 0..BATCH;
        loop {
            // Both before the messages are read: what the dead have said is among them then, and who was named is known even if
            // nothing is left of it.
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
            // A successor that is dead and cannot be reaped even now was reaped by the one that has named it, so it failed.
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
            self.service.note(pid, ended);
        }
    }
}
