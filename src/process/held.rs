//! What the process in front does with processes that it did not start itself, or that somebody else may reap: it holds
//! them by pidfd, so that a signal never reaches a stranger who got the pid, and reaps whatever it adopts.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, pidfd_open, pidfd_send_signal, set_child_subreaper, wait,
};
use tokio::io::unix::AsyncFd;

/// A process, dead or alive, whoever its parent is.
#[derive(Debug)]
pub(crate) struct Held {
    pid: u32,
    pidfd: AsyncFd<OwnedFd>,
}

impl Held {
    pub(crate) fn open(pid: u32) -> io::Result<Held> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty())?;
        #[allow(deprecated, reason = "sound for an OwnedFd; its replacement cannot be called in this crate")]
        let pidfd = AsyncFd::new(pidfd)?;
        Ok(Held { pid, pidfd })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// To one that is dead nothing happens.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(self.pidfd.get_ref(), signal);
    }

    /// A zombie is dead.
    pub(crate) fn is_dead(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(self.pidfd.get_ref(), PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// Cancel safe.
    pub(crate) async fn dead(&self) {
        let _ = self.pidfd.readable().await;
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Exited(u8),
    Killed(u8),
}

/// Makes this process the parent of each descendant whose own parent dies.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// The next child that has ended, whoever it is. No zombie of it is left.
pub(crate) fn reap() -> Option<(u32, Ended)> {
    loop {
        // Fails without children.
        let (pid, status) = wait(WaitOptions::NOHANG).ok()??;
        let pid = pid.as_raw_pid().cast_unsigned();
        let byte = |number: i32| u8::try_from(number & 0xff).unwrap_or_default();
        if let Some(code) = status.exit_status() {
            return Some((pid, Ended::Exited(byte(code))));
        }
        if let Some(signal) = status.terminating_signal() {
            return Some((pid, Ended::Killed(byte(signal))));
        }
    }
}
