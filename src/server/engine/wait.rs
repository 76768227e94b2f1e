//! The waits of the event loop. Without anything to wait for, they stay pending for ever. All are cancel safe.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::time::Instant;

use crate::generation::Predecessor;
use crate::process::Child;
use crate::process::pidfd::PidFd;

/// The next time to repeat READY. A pending signal swallows a second one with the same number and its sender, so READY may
/// get lost, and the predecessor cannot learn of the flip otherwise: the kernel does not tell which program steers a port.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadyReminder {
    pub(super) at: Instant,
    pub(super) gap: Duration,
}

impl ReadyReminder {
    pub(super) const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(10);

    pub(super) fn after(gap: Duration) -> ReadyReminder {
        let gap = gap.min(ReadyReminder::LONGEST);
        ReadyReminder { at: Instant::now() + gap, gap }
    }
}

pub(super) async fn exited(child: &mut Option<Child>) -> io::Result<ExitStatus> {
    match child {
        Some(child) => child.exited().await,
        None => std::future::pending().await,
    }
}

pub(super) async fn dead(predecessor: Option<&Predecessor>) {
    match predecessor {
        Some(predecessor) => predecessor.parent.dead().await,
        None => std::future::pending().await,
    }
}

pub(super) async fn gone(supervisor: Option<&PidFd>) {
    match supervisor {
        Some(supervisor) => supervisor.dead().await,
        None => std::future::pending().await,
    }
}

pub(super) async fn due(ready_reminder: Option<ReadyReminder>) -> ReadyReminder {
    match ready_reminder {
        Some(reminder) => {
            tokio::time::sleep_until(reminder.at).await;
            reminder
        }
        None => std::future::pending().await,
    }
}

pub(super) async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
