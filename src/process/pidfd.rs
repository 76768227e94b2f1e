//! Processes that the supervisor did not start itself, or that another process may reap. The supervisor opens a pidfd of each,
//! so that a signal never reaches another process that got the pid, and reaps every orphan that it adopts.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, pidfd_open, pidfd_send_signal, set_child_subreaper, wait,
};
use tokio::io::unix::AsyncFd;

/// A process, dead or alive. It need not be a child of this one.
#[derive(Debug)]
pub(crate) struct PidFd {
    pid: u32,
    /// `None` if the process is dead and reaped.
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

    /// A process that is dead and reaped. Its pid may belong to another process by now.
    pub(crate) fn gone(pid: u32) -> PidFd {
        PidFd { pid, pidfd: None }
    }

    /// Opens the process, or returns it as [`PidFd::gone`] if no process has this pid.
    pub(crate) fn named(pid: u32) -> io::Result<PidFd> {
        match PidFd::open(pid) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(PidFd::gone(pid)),
            opened => opened,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal. Does nothing if the process is dead.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pidfd) = &self.pidfd {
            let _ = pidfd_send_signal(pidfd.get_ref(), signal);
        }
    }

    /// Returns whether the process is dead. A zombie is dead.
    pub(crate) fn is_dead(&self) -> bool {
        self.pidfd.as_ref().is_none_or(|pidfd| is_dead(pidfd.get_ref()))
    }

    /// Waits until the process is dead. Cancel safe.
    pub(crate) async fn dead(&self) {
        if let Some(pidfd) = &self.pidfd {
            let _ = pidfd.readable().await;
        }
    }
}

/// Returns whether the process of a pidfd is dead, which makes the pidfd readable (pidfd_open(2)).
pub(super) fn is_dead(pidfd: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Returns an error if pidfds cannot be used at all: a sandbox may forbid them, and Linux before 5.3 does not have them. Other
/// errors, such as having no free descriptor at the moment, do not count.
pub(crate) fn is_supported() -> io::Result<()> {
    match pidfd_open(getpid(), PidfdFlags::empty()) {
        Err(refused @ (Errno::NOSYS | Errno::PERM | Errno::ACCESS)) => Err(refused.into()),
        _ => Ok(()),
    }
}

/// The exit code or the terminating signal of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Exited(u8),
    Killed(u8),
}

/// Makes this process the parent of each descendant whose own parent dies.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Reaps one child that has ended, if there is any, and returns its pid and how it ended.
pub(crate) fn reap() -> Option<(u32, Ended)> {
    loop {
        // Fails with ECHILD if there are no children.
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
