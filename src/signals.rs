//! Signals and their senders. The meaning of each signal is defined here and nowhere else.
//!
//! A sender is believed only if the kernel vouches for it: `si_pid` of a signal that was sent by kill(2) or through a
//! pidfd (SI_USER). The sender of a sigqueue(3) can put any pid into it. SIGQUIT is left alone.

use std::os::unix::net::UnixStream as StdStream;

use nix::sys::signal::{SigSet, Signal as NixSignal};
use rustix::process::getsid;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGURG, SIGUSR2};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin, Sent};
use tokio::net::UnixStream;

use crate::error::{Error, Kind};
use crate::lifecycle::ChildCommand;
use crate::process;

/// The signals that a server handles.
const HANDLED: [NixSignal; 5] =
    [NixSignal::SIGHUP, NixSignal::SIGUSR2, NixSignal::SIGTERM, NixSignal::SIGINT, NixSignal::SIGURG];

/// Returns the signal that tells a predecessor to retire, for the protocol version that it speaks.
///
/// SIGURG has no other meaning, so the program's own SIGTERM handlers do not take it for a stop, and a pending request to
/// stop cannot swallow it. Version 1 used SIGTERM.
pub(crate) fn ready(protocol: u32) -> rustix::process::Signal {
    if protocol >= 2 { rustix::process::Signal::URG } else { rustix::process::Signal::TERM }
}

/// Returns the signal for a command to the child.
pub(crate) fn signal_for(command: ChildCommand) -> rustix::process::Signal {
    match command {
        ChildCommand::Restart => rustix::process::Signal::HUP,
        ChildCommand::Stop => rustix::process::Signal::TERM,
        // Harmless to a child without a handler: the default disposition of SIGURG is to be ignored.
        ChildCommand::Closed => rustix::process::Signal::URG,
    }
}

/// Returns whether a process that was killed by this signal had been asked to restart before it had a handler.
pub(crate) fn asks_for_restart(signal: i32) -> bool {
    matches!(signal, SIGHUP | SIGUSR2)
}

/// The signal that arrived, before its sender is identified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalKind {
    Restart,
    /// SIGTERM or SIGINT: stop. From a child that speaks version 1 of the protocol: ready.
    Term,
    /// SIGURG. From the child: ready. From the predecessor: its listener is closed.
    Urgent,
    /// SIGHUP because the terminal of this session is gone: not a request to restart.
    TerminalClosed,
}

/// A signal that arrived at the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SupervisorSignal {
    Restart(rustix::process::Signal),
    Stop(rustix::process::Signal),
    /// The kernel signalled every process of the terminal: this one, and each generation.
    SentToTerminalGroup {
        stop: bool,
    },
    /// A child has ended.
    Child,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Signal {
    pub(crate) heard: SignalKind,
    /// `None` when the kernel sent it (Ctrl-C), the sender is in another pid namespace, or the kernel does not vouch for it.
    pub(crate) sender: Option<u32>,
}

/// Counts the requests to stop. systemd and timeout(1) send a signal to every process of the service, so a generation gets
/// the same request twice: directly and passed on by the supervisor. That does not count as a second request.
#[derive(Debug, Default)]
pub(crate) struct StopRequests {
    passed_on: u32,
    direct: u32,
}

impl StopRequests {
    /// Counts a request, and returns whether it is a new one.
    pub(crate) fn is_new(&mut self, passed_on: bool) -> bool {
        let before = self.passed_on.max(self.direct);
        let counted = if passed_on { &mut self.passed_on } else { &mut self.direct };
        *counted += 1;
        self.passed_on.max(self.direct) > before
    }
}

/// The signal handlers of a [`Server`](crate::Server), installed early: SIGHUP and SIGUSR2 are caught from this moment on.
/// SIGTERM and SIGINT still end the process until the server listens, because there is nothing to lose yet and a start that
/// hangs must remain stoppable.
///
/// By default a server catches the signals when it begins to listen. Until then a SIGHUP ends the process. A program that
/// takes long to start should therefore install the handlers first, before it starts a thread, and pass them to the server,
/// which acts on the signals that have arrived meanwhile:
///
/// ```no_run
/// # use {hyper::{Request, Response, body::Incoming, service::service_fn}, std::convert::Infallible};
/// # async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> { Ok(Response::new("".into())) }
/// # async fn read_a_large_file() {}
/// fn main() -> Result<(), handover::Error> {
///     let signals = handover::Signals::install()?;
///     let runtime = tokio::runtime::Runtime::new().expect("the system has threads left");
///     runtime.block_on(async {
///         read_a_large_file().await;
///         handover::Server::bind("0.0.0.0:8080").signals(signals).serve(service_fn(hello)).await?;
///         Ok(())
///     })
/// }
/// ```
///
/// The time between `execve` and `main`, about a millisecond, cannot be covered. If a SIGHUP or SIGUSR2 kills a successor
/// in that time, its predecessor starts it again.
///
/// The signals that a server handles are also unblocked in the calling thread, because the parent process may have blocked
/// them (`env --block-signal`). When `Signals` is dropped, the handlers stay installed but do nothing: the signals are
/// ignored from then on.
#[derive(Debug)]
pub struct Signals {
    delivery: SignalDelivery<StdStream, WithOrigin>,
    /// Signals that were taken out of `delivery` and not yet handled.
    taken: Vec<Origin>,
    /// The read end of the socket pair of `delivery`, registered with the runtime.
    pipe: Option<UnixStream>,
    had_terminal: bool,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptors left.
    pub fn install() -> Result<Signals, Error> {
        let install = || {
            let (read, write) = StdStream::pair()?;
            read.set_nonblocking(true)?;
            write.set_nonblocking(true)?;
            let delivery =
                SignalDelivery::with_pipe(read, write, WithOrigin::default(), [SIGHUP, SIGUSR2, SIGURG])?;
            // After the handlers, so that pending signals find one.
            SigSet::from_iter(HANDLED).thread_unblock()?;
            Ok(Signals { delivery, taken: vec![], pipe: None, had_terminal: process::has_terminal() })
        };
        install().map_err(|source| Kind::Signals(source).into())
    }

    /// Starts to catch SIGTERM and SIGINT too, and registers with the current runtime. Call it inside the runtime.
    pub(crate) fn enter(&mut self) -> Result<(), Error> {
        for stop in [SIGTERM, SIGINT] {
            self.delivery.handle().add_signal(stop).map_err(Kind::Signals)?;
        }
        let pipe = self.delivery.get_read().try_clone().and_then(UnixStream::from_std);
        self.pipe = Some(pipe.map_err(Kind::Signals)?);
        Ok(())
    }

    /// Does the same as [`enter`](Signals::enter) for the supervisor, which also catches SIGCHLD.
    pub(crate) fn enter_supervisor(&mut self) -> Result<(), Error> {
        self.delivery.handle().add_signal(SIGCHLD).map_err(Kind::Signals)?;
        let unblocked = SigSet::from(NixSignal::SIGCHLD).thread_unblock();
        unblocked.map_err(|errno| Kind::Signals(errno.into()))?;
        self.enter()
    }

    /// Waits for the next signal. A signal that was delivered before the call is returned at once. Cancel safe.
    pub(crate) async fn next(&mut self) -> Signal {
        loop {
            if let Some(signal) = self.delivered() {
                return signal;
            }
            self.wait().await;
        }
    }

    /// Waits for the next signal of the supervisor, as [`next`](Signals::next) does for a generation.
    pub(crate) async fn next_of_supervisor(&mut self) -> SupervisorSignal {
        use rustix::process::Signal;
        loop {
            while let Some(origin) = self.take() {
                let is_stop = matches!(origin.signal, SIGTERM | SIGINT);
                return match (origin.signal, origin.cause) {
                    (SIGURG, _) => continue,
                    (SIGCHLD, _) => SupervisorSignal::Child,
                    (_, Cause::Kernel) => SupervisorSignal::SentToTerminalGroup { stop: is_stop },
                    (SIGHUP, _) if self.is_of_the_terminal(&origin) => {
                        SupervisorSignal::SentToTerminalGroup { stop: false }
                    }
                    (SIGHUP, _) => SupervisorSignal::Restart(Signal::HUP),
                    (SIGUSR2, _) => SupervisorSignal::Restart(Signal::USR2),
                    (SIGINT, _) => SupervisorSignal::Stop(Signal::INT),
                    _ => SupervisorSignal::Stop(Signal::TERM),
                };
            }
            self.wait().await;
        }
    }

    async fn wait(&mut self) {
        // Never `None`: the caller has called `enter`.
        let Some(pipe) = &self.pipe else { return std::future::pending().await };
        // Cannot fail: both ends live as long as `self`. If it did, the caller's loop would look again.
        let _ = pipe.readable().await;
        // Clears tokio's readiness once the pipe is empty, so that the next `readable` really waits.
        let _ = pipe.try_read(&mut [0; 64]);
    }

    /// Returns a signal that has already been delivered.
    pub(crate) fn delivered(&mut self) -> Option<Signal> {
        let origin = self.take()?;
        let heard = match origin.signal {
            SIGHUP if self.is_of_the_terminal(&origin) => SignalKind::TerminalClosed,
            SIGHUP | SIGUSR2 => SignalKind::Restart,
            SIGURG => SignalKind::Urgent,
            _ => SignalKind::Term,
        };
        Some(Signal { heard, sender: sender(&origin) })
    }

    /// Takes the next signal. SIGURG comes first, so that a successor whose ready signal came together with a stop counts as
    /// ready, and is told of the stop.
    fn take(&mut self) -> Option<Origin> {
        self.taken.extend(self.delivery.pending());
        let urgent = self.taken.iter().position(|origin| origin.signal == SIGURG);
        (!self.taken.is_empty()).then(|| self.taken.remove(urgent.unwrap_or(0)))
    }

    /// Returns whether a SIGHUP reports a closed terminal. The kernel sends such a SIGHUP, and so does the shell of that
    /// terminal. By the time the shell sends it, no process of its session has a terminal any more (`__tty_hangup` in
    /// drivers/tty/tty_io.c).
    fn is_of_the_terminal(&self, origin: &Origin) -> bool {
        let leader = || getsid(None).ok().map(|pid| pid.as_raw_pid().cast_unsigned());
        origin.cause == Cause::Kernel
            || self.had_terminal
                && sender(origin).is_some_and(|pid| Some(pid) == leader())
                && !process::has_terminal()
    }
}

/// Returns the sender's pid if the kernel vouches for it. Pid 0 stands for a process of another pid namespace.
fn sender(origin: &Origin) -> Option<u32> {
    let process = origin.process.filter(|_| origin.cause == Cause::Sent(Sent::User))?;
    Some(process.pid.cast_unsigned()).filter(|pid| *pid != 0)
}
