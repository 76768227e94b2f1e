//! Signals and their senders. No other file knows which signal means what.
//!
//! A sender is believed only where the kernel vouches for it: `si_pid` of a signal that was sent by kill(2) or through a
//! pidfd (SI_USER). What comes by sigqueue(3) carries any pid that its author likes. SIGQUIT is left alone.

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

/// What a server has handlers for.
const HANDLED: [NixSignal; 5] =
    [NixSignal::SIGHUP, NixSignal::SIGUSR2, NixSignal::SIGTERM, NixSignal::SIGINT, NixSignal::SIGURG];

/// To a predecessor that speaks this version of the protocol: this generation serves, retire.
///
/// SIGURG means nothing to anybody else, so no handler of the program around the predecessor hears a stop, and no request to
/// stop can become one with it. Version 1 said it with SIGTERM.
pub(crate) fn ready(protocol: u32) -> rustix::process::Signal {
    if protocol >= 2 { rustix::process::Signal::URG } else { rustix::process::Signal::TERM }
}

/// The signal by which a child is told something.
pub(crate) fn signal_for(command: ChildCommand) -> rustix::process::Signal {
    match command {
        ChildCommand::Restart => rustix::process::Signal::HUP,
        ChildCommand::Stop => rustix::process::Signal::TERM,
        // Its default disposition is to be ignored.
        ChildCommand::Closed => rustix::process::Signal::URG,
    }
}

/// Whether a process that ended by this signal was asked for a restart before it had a handler.
pub(crate) fn asks_for_restart(signal: i32) -> bool {
    matches!(signal, SIGHUP | SIGUSR2)
}

/// What arrived, before it is known who the sender is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    Restart,
    /// SIGTERM or SIGINT: stop, or from a child that speaks version 1 of the protocol: ready.
    Term,
    /// SIGURG: from the child ready, from the predecessor closed.
    Urgent,
    /// The terminal of this session is gone, which is no wish to restart.
    HungUp,
}

/// What arrived at the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SupervisorSignal {
    Restart(rustix::process::Signal),
    Stop(rustix::process::Signal),
    /// The kernel told every process of the terminal: this one, and each generation.
    ToldAll {
        stop: bool,
    },
    /// A child has ended.
    Child,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Signal {
    pub(crate) heard: Heard,
    /// `None` when the kernel sent it (Ctrl-C), the sender is in another pid namespace, or the kernel does not vouch for it.
    pub(crate) sender: Option<u32>,
}

/// How often this generation was told to stop. The supervisor passes on what it is told, and may not be the only one
/// who is told: systemd and timeout(1) send a signal to each process there is. That is not impatience.
#[derive(Debug, Default)]
pub(crate) struct Stops {
    passed_on: u32,
    direct: u32,
}

impl Stops {
    /// Counts one more, and tells whether it is a new one.
    pub(crate) fn is_new(&mut self, passed_on: bool) -> bool {
        let before = self.passed_on.max(self.direct);
        let counted = if passed_on { &mut self.passed_on } else { &mut self.direct };
        *counted += 1;
        self.passed_on.max(self.direct) > before
    }
}

/// The signals of a [`Server`](crate::Server), caught from this moment on: SIGHUP and SIGUSR2. SIGTERM and SIGINT end the
/// process as usual until it listens, because there is nothing to lose, and a start that hangs must not survive them.
///
/// A server catches them when it begins to listen. Until then a SIGHUP ends the process, so a program that takes its time to
/// start catches them first of all, before it starts a thread, and gives them to the server, which acts on what has come
/// meanwhile:
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
/// The time between `execve` and `main`, about a millisecond, cannot be covered. A successor that is ended by a SIGHUP or
/// SIGUSR2 there is started again by its predecessor.
///
/// What a server handles, and only that, is unblocked in the calling thread: the starter of the program may have blocked them
/// (`env --block-signal`), and nothing could be heard then. When it is dropped the handlers stay and do nothing, so the
/// signals are ignored from then on.
#[derive(Debug)]
pub struct Signals {
    delivery: SignalDelivery<StdStream, WithOrigin>,
    /// What was taken out of the delivery and not yet looked at.
    taken: Vec<Origin>,
    /// The delivery's pipe, within a runtime.
    pipe: Option<UnixStream>,
    had_terminal: bool,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    ///
    /// When there is no descriptor left for them.
    pub fn install() -> Result<Signals, Error> {
        let install = || {
            let (read, write) = StdStream::pair()?;
            read.set_nonblocking(true)?;
            write.set_nonblocking(true)?;
            let delivery =
                SignalDelivery::with_pipe(read, write, WithOrigin::default(), [SIGHUP, SIGUSR2, SIGURG])?;
            // After the handlers, so that what has been pending finds one.
            SigSet::from_iter(HANDLED).thread_unblock()?;
            Ok(Signals { delivery, taken: vec![], pipe: None, had_terminal: process::has_terminal() })
        };
        install().map_err(|source| Kind::Signals(source).into())
    }

    /// Within the runtime that waits for them.
    pub(crate) fn enter(&mut self) -> Result<(), Error> {
        for stop in [SIGTERM, SIGINT] {
            self.delivery.handle().add_signal(stop).map_err(Kind::Signals)?;
        }
        let pipe = self.delivery.get_read().try_clone().and_then(UnixStream::from_std);
        self.pipe = Some(pipe.map_err(Kind::Signals)?);
        Ok(())
    }

    /// As [`enter`](Signals::enter), for the supervisor, which hears of its children too.
    pub(crate) fn enter_supervisor(&mut self) -> Result<(), Error> {
        self.delivery.handle().add_signal(SIGCHLD).map_err(Kind::Signals)?;
        let unblocked = SigSet::from(NixSignal::SIGCHLD).thread_unblock();
        unblocked.map_err(|errno| Kind::Signals(errno.into()))?;
        self.enter()
    }

    /// Cancel safe. Looks at what the handlers stored before it waits, so a signal delivered before the call is
    /// returned by it at once.
    pub(crate) async fn next(&mut self) -> Signal {
        loop {
            if let Some(signal) = self.delivered() {
                return signal;
            }
            self.wait().await;
        }
    }

    /// As [`next`](Signals::next), for the supervisor.
    pub(crate) async fn next_of_supervisor(&mut self) -> SupervisorSignal {
        use rustix::process::Signal;
        loop {
            while let Some(origin) = self.take() {
                let is_stop = matches!(origin.signal, SIGTERM | SIGINT);
                return match (origin.signal, origin.cause) {
                    (SIGURG, _) => continue,
                    (SIGCHLD, _) => SupervisorSignal::Child,
                    (_, Cause::Kernel) => SupervisorSignal::ToldAll { stop: is_stop },
                    (SIGHUP, _) if self.is_of_the_terminal(&origin) => {
                        SupervisorSignal::ToldAll { stop: false }
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
        // Cannot be `None` because the caller has entered a runtime.
        let Some(pipe) = &self.pipe else { return std::future::pending().await };
        // Cannot fail: both ends live as long as `self`. If it did, the next turn would look again.
        let _ = pipe.readable().await;
        // Clears tokio's readiness once the pipe is empty, so that the next `readable` really waits.
        let _ = pipe.try_read(&mut [0; 64]);
    }

    /// A signal that was delivered already.
    pub(crate) fn delivered(&mut self) -> Option<Signal> {
        let origin = self.take()?;
        let heard = match origin.signal {
            SIGHUP if self.is_of_the_terminal(&origin) => Heard::HungUp,
            SIGHUP | SIGUSR2 => Heard::Restart,
            SIGURG => Heard::Urgent,
            _ => Heard::Term,
        };
        Some(Signal { heard, sender: sender(&origin) })
    }

    /// What generations say to each other comes first: a successor that is ready is told of a stop that came with it.
    fn take(&mut self) -> Option<Origin> {
        self.taken.extend(self.delivery.pending());
        let urgent = self.taken.iter().position(|origin| origin.signal == SIGURG);
        (!self.taken.is_empty()).then(|| self.taken.remove(urgent.unwrap_or(0)))
    }

    /// The kernel says SIGHUP when a terminal closes, and so does the shell that it belonged to. By the time a shell hears
    /// of it no process of its session has a terminal any more (`__tty_hangup` in drivers/tty/tty_io.c).
    fn is_of_the_terminal(&self, origin: &Origin) -> bool {
        let leader = || getsid(None).ok().map(|pid| pid.as_raw_pid().cast_unsigned());
        origin.cause == Cause::Kernel
            || self.had_terminal
                && sender(origin).is_some_and(|pid| Some(pid) == leader())
                && !process::has_terminal()
    }
}

/// Who sent it, as far as the kernel vouches for that. 0 is a process of another pid namespace.
fn sender(origin: &Origin) -> Option<u32> {
    let process = origin.process.filter(|_| origin.cause == Cause::Sent(Sent::User))?;
    Some(process.pid.cast_unsigned()).filter(|pid| *pid != 0)
}
