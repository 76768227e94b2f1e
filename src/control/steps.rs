//! Converts the events of a handover to timed steps, up to the one that the client waits for.

use std::time::Instant;

use super::protocol::Step;
use super::protocol::from_report;
use crate::handle::Events;
use crate::report::Event;

/// The point up to which a client follows the handover that it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The successor serves.
    Served,
    /// The predecessor can no longer serve again.
    StandbyEnded,
    /// The predecessor has left.
    Drained,
}

/// The steps of one handover, with times since it was asked for.
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

    /// Returns the next step. With the last one, also returns whether the handover succeeded.
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
