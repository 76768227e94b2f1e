//! Signals and their senders. No other file knows which signal means what.
//!
//! The sender is the kernel's word (siginfo `si_pid`), so a child that says "ready" cannot be confused with an
//! operator who says "stop", although both send SIGTERM. SIGQUIT is left alone.

use std::io;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGURG, SIGUSR2};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::Cause;
use tokio::net::UnixStream;

use crate::succession::Word;

/// To the predecessor: this generation serves, retire.
pub(crate) const READY: rustix::process::Signal = rustix::process::Signal::TERM;
/// To the successor: the listener is closed, the port is yours. Its default disposition is to be ignored.
pub(crate) const CLOSED: nix::sys::signal::Signal = nix::sys::signal::Signal::SIGURG;

/// The signal by which a child is told something.
pub(crate) fn spoken(word: Word) -> nix::sys::signal::Signal {
    match word {
        Word::Restart => nix::sys::signal::Signal::SIGHUP,
        Word::Stop => nix::sys::signal::Signal::SIGTERM,
    }
}

/// What arrived, before it is known who the sender is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    Restart,
    /// SIGTERM or SIGINT: stop, or from the child: ready.
    Term,
    Closed,
}

/// What arrived at the process in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToFront {
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
    /// 0 when the kernel sent it (Ctrl-C) or the sender is in another pid namespace.
    pub(crate) sender: u32,
}

/// How often this generation was told to stop. The process in front passes on what it is told, and may not be the only one
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

/// Handlers are installed by [`Signals::install`] and removed on drop, when the former dispositions do not return:
/// a signal is then ignored by this crate but still has its handler (see signal-hook's documentation).
#[derive(Debug)]
pub(crate) struct Signals(SignalDelivery<UnixStream, WithOrigin>);

impl Signals {
    pub(crate) fn install() -> io::Result<Signals> {
        Signals::of(&[SIGHUP, SIGUSR2, SIGTERM, SIGINT, SIGURG])
    }

    /// For the process in front.
    pub(crate) fn install_in_front() -> io::Result<Signals> {
        Signals::of(&[SIGHUP, SIGUSR2, SIGTERM, SIGINT, SIGCHLD])
    }

    fn of(signals: &[i32]) -> io::Result<Signals> {
        let (read, write) = UnixStream::pair()?;
        let write = write.into_std()?;
        Ok(Signals(SignalDelivery::with_pipe(read, write, WithOrigin::default(), signals)?))
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

    /// As [`next`](Signals::next), for the process in front.
    pub(crate) async fn next_in_front(&mut self) -> ToFront {
        use rustix::process::Signal;
        loop {
            if let Some(origin) = self.0.pending().next() {
                let is_stop = matches!(origin.signal, SIGTERM | SIGINT);
                return match (origin.signal, origin.cause) {
                    (SIGCHLD, _) => ToFront::Child,
                    (_, Cause::Kernel) => ToFront::ToldAll { stop: is_stop },
                    (SIGHUP, _) => ToFront::Restart(Signal::HUP),
                    (SIGUSR2, _) => ToFront::Restart(Signal::USR2),
                    (SIGINT, _) => ToFront::Stop(Signal::INT),
                    _ => ToFront::Stop(Signal::TERM),
                };
            }
            self.wait().await;
        }
    }

    async fn wait(&mut self) {
        let pipe = self.0.get_read();
        // Cannot fail: both ends live as long as `self`. If it did, the next turn would look again.
        let _ = pipe.readable().await;
        // Clears tokio's readiness once the pipe is empty, so that the next `readable` really waits.
        let _ = pipe.try_read(&mut [0; 64]);
    }

    /// A signal that was delivered already.
    pub(crate) fn delivered(&mut self) -> Option<Signal> {
        let origin = self.0.pending().next()?;
        let heard = match origin.signal {
            SIGHUP | SIGUSR2 => Heard::Restart,
            SIGURG => Heard::Closed,
            _ => Heard::Term,
        };
        let sender = origin.process.map_or(0, |p| p.pid.cast_unsigned());
        Some(Signal { heard, sender })
    }
}
