//! Translates signals and commands into events for the state machine.

use super::Engine;
use crate::handle::Command;
use crate::lifecycle::{Event, StopSource};
use crate::process::Child;
use crate::signals::{Signal, SignalKind};

impl Engine {
    /// Returns the event for a signal; its meaning depends on the sender.
    pub(super) fn on_signal(&mut self, signal: Signal) -> Option<Event> {
        let is = |pid: Option<u32>| pid.is_some() && pid == signal.sender;
        let is_child = is(self.child.as_ref().map(Child::pid));
        let is_predecessor = is(self.generation.predecessor.as_ref().map(|p| p.parent.pid()));
        match signal.heard {
            SignalKind::Restart => Some(Event::RestartAsked),
            SignalKind::TerminalClosed => {
                self.on_hang_up();
                None
            }
            SignalKind::Urgent if is_child => Some(Event::ChildReady),
            // A pending SIGURG from another sender may have swallowed the predecessor's, so its listener is looked up.
            SignalKind::Urgent => {
                (is_predecessor || self.predecessor_has_closed()).then_some(Event::PredecessorClosed)
            }
            // The ready signal of a successor that speaks protocol version 1.
            SignalKind::Term if is_child => Some(Event::ChildReady),
            SignalKind::Term if is_predecessor => Some(self.stop_asked(StopSource::Predecessor)),
            SignalKind::Term if self.service_manager.is_repetition(signal.sender.unwrap_or_default()) => None,
            SignalKind::Term => {
                let passed_on = is(self.generation.supervisor);
                self.stops.is_new(passed_on).then(|| self.stop_asked(StopSource::Operator))
            }
        }
    }

    pub(super) fn on_command(&mut self, command: Command) -> Option<Event> {
        match command {
            Command::Restart => Some(Event::RestartAsked),
            Command::Stop => Some(self.stop_asked(StopSource::Operator)),
            Command::Status(answer) => {
                let _ = answer.send(self.status());
                None
            }
            Command::HandOver(answer) => {
                let (answered, event) = self.hand_over();
                let _ = answer.send(answered);
                event
            }
        }
    }

    pub(super) fn stop_asked(&self, by: StopSource) -> Event {
        Event::StopAsked { by, shared: self.listeners.is_shared() }
    }
}
