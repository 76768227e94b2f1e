//! What the supervisor does with processes that it did not start itself, or that another process may reap: it holds
//! them by pidfd, so that a signal never reaches another process that got the pid, and reaps whatever it adopts.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, pidfd_open, pidfd_send_signal, set_child_subreaper, wait,
};
use tokio::io::unix::AsyncFd;

/// A process, dead or alive, with any parent.
#[derive(Debug)]
pub(crate) struct PidFd {
    pid: u32,
    /// `None` of one that is dead and reaped.
    pidfd: Option<AsyncFd<OwnedFd>>,
}

impl PidFd {
    pub(crate) fn open(pid: u32) -> io::Result<PidFd> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty())?;
        #[allow(deprecated, reason = "sound for an OwnedFd; its replacement cannot be called in this crate")]
        let pidfd = AsyncFd::new(pidfd)?;
        Ok(PidFd { pid, pidfd: Some(pidfd) })
    }

    /// One that is dead and reaped: its pid may be another's by now.
    pub(crate) fn gone(pid: u32) -> PidFd {
        PidFd { pid, pidfd: None }
    }

    /// One that was named, whatever has become of it.
    pub(crate) fn named(pid: u32) -> io::Result<PidFd> {
        match PidFd::open(pid) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(PidFd::gone(pid)),
            opened => opened,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// To one that is dead nothing happens.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pidfd) = &self.pidfd {
            let _ = pidfd_send_signal(pidfd.get_ref(), signal);
        }
    }

    /// A zombie is dead.
    pub(crate) fn is_dead(&self) -> bool {
        self.pidfd.as_ref().is_none_or(|pidfd| is_dead(pidfd.get_ref()))
    }

    /// Cancel safe.
    pub(crate) async fn dead(&self) {
        if let Some(pidfd) = &self.pidfd {
            let _ = pidfd.readable().await;
        }
    }
}

/// Whether the process of a pidfd is dead, which makes it readable (pidfd_open(2)).
pub(super) fn is_dead(pidfd: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Whether the system lets a process be held at all: a sandbox may not, and a kernel before 5.3 cannot. That there is no
/// descriptor left at the moment is another matter.
pub(crate) fn is_supported() -> io::Result<()> {
    match pidfd_open(getpid(), PidfdFlags::empty()) {
        Err(refused @ (Errno::NOSYS | Errno::PERM | Errno::ACCESS)) => Err(refused.into()),
        _ => Ok(()),
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

/// The next child that has ended, any of them. No zombie of it is left.
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
