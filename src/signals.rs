//! Signals and their senders. No other file knows which signal means what.
//!
//! The sender is the kernel's word (siginfo `si_pid`), so a child that says "ready" cannot be confused with an
//! operator who says "stop", although both send SIGTERM. SIGQUIT is left alone.

use std::io;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGURG, SIGUSR2};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::WithOrigin;
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

#[derive(Debug, Clone, Copy)]
pub(crate) struct Signal {
    pub(crate) heard: Heard,
    /// 0 when the kernel sent it (Ctrl-C) or the sender is in another pid namespace.
    pub(crate) sender: u32,
}

/// Handlers are installed by [`Signals::install`] and removed on drop, when the former dispositions do not return:
/// a signal is then ignored by this crate but still has its handler (see signal-hook's documentation).
#[derive(Debug)]
pub(crate) struct Signals(SignalDelivery<UnixStream, WithOrigin>);

impl Signals {
    pub(crate) fn install() -> io::Result<Signals> {
        let (read, write) = UnixStream::pair()?;
        let write = write.into_std()?;
        let signals = [SIGHUP, SIGUSR2, SIGTERM, SIGINT, SIGURG];
        Ok(Signals(SignalDelivery::with_pipe(read, write, WithOrigin::default(), signals)?))
    }

    /// Cancel safe. Looks at what the handlers stored before it waits, so a signal delivered before the call is
    /// returned by it at once.
    pub(crate) async fn next(&mut self) -> Signal {
        loop {
            if let Some(signal) = self.delivered() {
                return signal;
            }
            let pipe = self.0.get_read();
            // Cannot fail: both ends live as long as `self`. If it did, the next turn would look again.
            let _ = pipe.readable().await;
            // Clears tokio's readiness once the pipe is empty, so that the next `readable` really waits.
            let _ = pipe.try_read(&mut [0; 64]);
        }
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
