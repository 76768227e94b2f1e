//! The events of a handover as steps of it, each with its time, up to the one that the client waits for.

use std::time::Instant;

use super::protocol::Step;
use super::protocol::from_report;
use crate::handle::Events;
use crate::report::Event;

/// What a client that asks for a handover waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The successor serves.
    Served,
    /// It cannot be replaced by its predecessor any more.
    StandbyEnded,
    /// The predecessor has left.
    Drained,
}

/// The steps of a handover.
#[derive(Debug)]
pub(super) struct Steps {
    events: Events,
    began: Instant,
    until: Until,
    handed_over: bool,
}

impl Steps {
    pub(super) fn new(events: Events, until: Until) -> Steps {
        Steps { events, began: Instant::now(), until, handed_over: false }
    }

    /// The next step; and once it is over, whether the handover succeeded.
    pub(super) async fn next(&mut self) -> (Step, Option<bool>) {
        loop {
            let Some(event) = self.events.next().await else {
                return (self.timed(from_report::gone()), Some(false));
            };
            let end = match &event {
                Event::HandedOver(_) => {
                    self.handed_over = true;
                    (self.until == Until::Served).then_some(true)
                }
                Event::HandoverFailed(_) | Event::ServesAgain(_) => Some(false),
                Event::StandbyEnded if self.until == Until::StandbyEnded => Some(self.handed_over),
                Event::Stopping if !self.handed_over => Some(false),
                Event::Left(_) => Some(self.handed_over),
                _ => None,
            };
            if let Some(step) = from_report::step(&event) {
                return (self.timed(step), end);
            }
        }
    }

    pub(super) fn timed(&self, mut step: Step) -> Step {
        step.after_ms = (self.began.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        step
    }
}
