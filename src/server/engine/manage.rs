//! What the service manager hears of: it starts the service, may ask for a reload and wait for its end, and follows the pid
//! that stands for the service. A process that no longer is that one says nothing: see [`crate::notify`].

use super::Engine;
use crate::notify;
use crate::process::Child;
use crate::status::HandoverResult;
use crate::succession::{Event, State};

impl Engine {
    /// Called when all that `cause` led to is done.
    pub(super) fn tell_manager(&mut self, before: State, cause: Event) {
        if let Some(fields) = self.news(before, cause) {
            self.notify.tell(&fields);
        }
        // Queued meanwhile, or asked for just now. A reload that is under way may be said to begin again.
        let is_asked = cause == Event::RestartAsked && !matches!(before, State::Starting { .. });
        let is_new = matches!(self.state, State::Spawning { .. }) && before != self.state;
        let is_passed_on = matches!(self.state, State::Standby { restart_passed_on: true, .. });
        if is_new || is_passed_on && (is_asked || matches!(before, State::Spawning { .. })) {
            self.notify.tell(&notify::reloading());
        }
    }

    fn news(&self, before: State, cause: Event) -> Option<Vec<String>> {
        let serves = || format!("generation {} serves {}", self.generation.number, self.listen());
        let fields = match (before, self.state) {
            (before, now) if now.is_stopping() && !before.is_stopping() => {
                vec![notify::STOPPING.to_owned(), status("stopping")]
            }
            (State::Starting { .. }, State::Serving { .. } | State::Spawning { .. }) => {
                vec!["READY=1".to_owned(), status(&serves())]
            }
            // Its predecessor has closed. Whether a reload goes on is not its to say.
            (State::Serving { predecessor_listens: true, .. }, _) if cause == Event::PredecessorClosed => {
                vec![status(&serves())]
            }
            (State::Spawning { .. }, State::Standby { .. }) => {
                let successor = self.child.as_ref().map_or(0, Child::pid);
                let next = self.generation.number + 1;
                vec!["READY=1".to_owned(), status(&format!("generation {next} serves, pid {successor}"))]
            }
            (
                State::Spawning { .. } | State::Withdrawing { .. },
                State::Serving { .. } | State::Spawning { .. },
            ) if before != self.state && cause != Event::RestartAsked => {
                vec!["READY=1".to_owned(), status(&self.failure(&serves()))]
            }
            (State::Standby { .. }, State::Serving { .. } | State::Spawning { .. }) => {
                vec![status(&self.failure(&serves()))]
            }
            _ => return None,
        };
        Some(fields)
    }

    fn failure(&self, serves: &str) -> String {
        match self.outside.last_result() {
            Some(HandoverResult::Failed(failure) | HandoverResult::TakenBack(failure)) => {
                let words = failure.stderr.last().map_or_else(String::new, |line| format!(": {line}"));
                format!("handover failed: {}{words}; {serves}", failure.reason)
            }
            _ => serves.to_owned(),
        }
    }
}

fn status(text: &str) -> String {
    format!("STATUS={}", text.replace('\n', " "))
}
