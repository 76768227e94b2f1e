//! The successor's side of a handover: takes over the port, signals the predecessor, and notices that it has closed.

use std::time::Duration;

use tokio::time::timeout;
use tracing::warn;

use super::{Engine, ReadyReminder};
use crate::error::{Error, Kind};
use crate::signals;

/// How long to wait for a predecessor that is being killed.
const DEATH: Duration = Duration::from_secs(1);

impl Engine {
    /// Steers new connections to this generation, which is ready, and tells the predecessor. Returns whether there is a
    /// predecessor that still listens.
    pub(super) async fn take_over(&mut self) -> Result<bool, Error> {
        let mut seen = self.listeners.check_foreign_listeners(self.generation.predecessor.as_ref());
        // A process that is killed closes its sockets a moment before it is seen to be dead.
        if let (Err(error), Some(predecessor)) = (&seen, &self.generation.predecessor)
            && error.is_predecessor_not_seen()
            && timeout(DEATH, predecessor.parent.dead()).await.is_ok()
        {
            seen = self.listeners.check_foreign_listeners(None);
        }
        if let Some(error) = seen? {
            warn!(
                %error,
                "cannot see who listens on the port: a predecessor in another network namespace or a foreign listener would \
                 not be noticed"
            );
        }
        self.restore_stderr();
        let Some(predecessor) = &self.generation.predecessor else { return Ok(false) };
        let from = predecessor.parent.pid();
        let steered = self.listeners.flip();
        let protocol = predecessor.protocol;
        let told = predecessor.parent.signal(signals::ready(protocol));
        self.warn_unless(steered);
        match told {
            Ok(()) => {
                // Not in version 1: its ready signal is SIGTERM, which the program's other handlers hear too.
                self.ready_reminder = (protocol >= 2).then(|| ReadyReminder::after(ReadyReminder::FIRST));
                Ok(true)
            }
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => {
                warn!(predecessor = from, "the predecessor died before it could retire");
                self.generation.predecessor = None;
                Ok(false)
            }
            Err(source) => {
                // The predecessor does not know of the handover and keeps serving, so new connections must go back to it.
                self.warn_unless(self.listeners.hold());
                Err(Kind::Predecessor { pid: from, source }.into())
            }
        }
    }

    pub(super) fn repeat_ready(&mut self, said: ReadyReminder) {
        self.ready_reminder = Some(ReadyReminder::after(said.gap * 2));
        if let Some(predecessor) = &self.generation.predecessor {
            // A dead predecessor is noticed through its pidfd.
            let _ = predecessor.parent.signal(signals::ready(predecessor.protocol));
        }
    }

    /// Returns whether the predecessor can be seen to have closed its listener. Where listeners cannot be seen, only its
    /// signal tells.
    pub(super) fn predecessor_has_closed(&self) -> bool {
        self.ready_reminder.is_some() && self.listeners.no_other_listener()
    }
}
