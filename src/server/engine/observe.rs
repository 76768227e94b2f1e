//! The outputs of the event loop: log lines, the phase, events, messages to the service manager, and the status on request.

use std::net::SocketAddr;

use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tracing::info;

use super::Engine;
use crate::handle::{Events, Published, Underway};
use crate::lifecycle::{Event, Notification, State};
use crate::process::Child;
use crate::report::{self, Failure, Handover, HandoverResult, LastHandover, Status};
use crate::service_manager;

/// The sending ends of the channels to observers, and the facts that are reported to them.
pub(super) struct Observers {
    seen: watch::Sender<Published>,
    events: broadcast::Sender<report::Event>,
    began: Instant,
    phase_began: Instant,
    last_handover: Option<(HandoverResult, Instant)>,
}

impl Observers {
    pub(super) fn new(seen: watch::Sender<Published>, events: broadcast::Sender<report::Event>) -> Observers {
        let now = Instant::now();
        Observers { seen, events, began: now, phase_began: now, last_handover: None }
    }

    pub(super) fn tell(&self, event: report::Event) {
        // Fails only without a receiver.
        let _ = self.events.send(event);
    }

    fn remember(&mut self, result: HandoverResult) {
        self.last_handover = Some((result, Instant::now()));
    }

    pub(super) fn last_result(&self) -> Option<&HandoverResult> {
        self.last_handover.as_ref().map(|(result, _)| result)
    }

    pub(super) fn failed(&mut self, failure: Failure) {
        self.remember(HandoverResult::Failed(failure.clone()));
        self.tell(report::Event::HandoverFailed(failure));
    }

    /// Remembers the failure. The event is sent with `Notification::ServesAgain`, once this generation serves again.
    pub(super) fn crashed(&mut self, failure: Failure) {
        self.remember(HandoverResult::TakenBack(failure));
    }
}

impl Engine {
    /// Sends the events of a notification. Call it after the actions, so that the events are true.
    pub(super) fn notify_observers(&mut self, notification: Notification) {
        match notification {
            Notification::Serves => self.announce(),
            Notification::HandedOver => {
                let (successor, took) =
                    self.child.as_ref().map_or_else(Default::default, |c| (c.pid(), c.age()));
                self.observers.remember(HandoverResult::HandedOver { successor });
                self.observers.tell(report::Event::HandedOver(Handover { successor, took }));
            }
            Notification::ServesAgain => {
                if let Some((HandoverResult::TakenBack(failure), _)) = &self.observers.last_handover {
                    self.observers.tell(report::Event::ServesAgain(failure.clone()));
                }
            }
            Notification::StandbyEnded => self.observers.tell(report::Event::StandbyEnded),
            Notification::Stopping => self.observers.tell(report::Event::Stopping),
            // The event of a failure was sent as soon as the failure was known.
            Notification::HandoverFailed | Notification::ServesAlone | Notification::Reloading => {}
        }
    }

    /// Logs a change of state. Call it last, so that the line is true when it is read.
    pub(super) fn log_state(&self, before: State, cause: Event) {
        if before.name() != self.state.name() {
            info!(
                from = before.name(),
                to = self.state.name(),
                cause = %cause,
                open = self.drain.open(),
                "state"
            );
        }
    }

    fn announce(&mut self) {
        let listen = self.listen();
        let told = self.generation.supervisor.unwrap_or_else(std::process::id);
        let predecessor = self.generation.predecessor.as_ref().map(|p| p.parent.pid());
        match predecessor {
            None => info!(listen, "serving; `kill -HUP {told}` restarts"),
            Some(predecessor) => {
                self.observers.remember(HandoverResult::TookOver { predecessor });
                info!(listen, predecessor, "serving, took over; `kill -HUP {told}` restarts");
            }
        }
        self.observers.tell(report::Event::Serving { predecessor });
    }

    pub(super) fn publish(&mut self) {
        let (phase, stopping) = (self.state.phase(), self.state.is_stopping());
        let (number, addresses) = (self.generation.number, self.addresses());
        let mut entered = false;
        self.observers.seen.send_if_modified(|seen| {
            entered = seen.phase != phase || seen.generation == 0;
            let changed = entered || seen.stopping != stopping;
            (seen.phase, seen.stopping) = (phase, stopping);
            if seen.generation == 0 {
                (seen.generation, seen.addresses) = (number, addresses);
            }
            changed
        });
        if entered {
            self.observers.phase_began = Instant::now();
        }
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.addresses().iter().map(|a| a.actual).collect()
    }

    pub(super) fn listen(&self) -> String {
        self.addresses().iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" ")
    }

    /// Returns the status without `listeners`, which take too long to find out in the event loop: see
    /// [`crate::listeners::port_group::listeners`].
    pub(super) fn status(&self) -> Status {
        let seen = self.observers.seen.borrow().clone();
        Status {
            generation: self.generation.number,
            pid: std::process::id(),
            program: self.launch.program().to_owned(),
            args: self.launch.args().to_vec(),
            phase: seen.phase,
            stopping: seen.stopping,
            in_phase: self.observers.phase_began.elapsed(),
            uptime: self.observers.began.elapsed(),
            deadline: self.state.deadline().map(|at| at.saturating_duration_since(Instant::now().into_std())),
            listeners: vec![],
            addresses: seen.addresses,
            predecessor: self.generation.predecessor.as_ref().map(|p| p.parent.pid()),
            predecessor_listens: self.state.waits_for_predecessor(),
            successor: self.child.as_ref().map(Child::pid),
            connections: self.drain.connections(),
            last_handover: self
                .observers
                .last_handover
                .as_ref()
                .map(|(result, at)| LastHandover { result: result.clone(), ago: at.elapsed() }),
        }
    }

    /// Returns the answer to a request for a handover, and the event that starts one if none is under way.
    pub(super) fn hand_over(&self) -> (Result<Underway, Failure>, Option<Event>) {
        match self.state.can_hand_over() {
            Ok(joined) => {
                let events = Events(self.observers.events.subscribe());
                (Ok(Underway { joined, events }), (!joined).then_some(Event::RestartAsked))
            }
            Err(reason) => (Err(Failure::new(reason)), None),
        }
    }
}

impl Engine {
    /// Tells the service manager, which may wait for the end of a start or a reload. Only the main process of the service
    /// sends messages: see [`crate::service_manager`].
    pub(super) fn notify_service_manager(&mut self, notification: Notification) {
        let serves = || format!("generation {} serves {}", self.generation.number, self.listen());
        let ready = || "READY=1".to_owned();
        let fields = match notification {
            Notification::Serves => vec![ready(), status(&serves())],
            // Without READY=1, because a reload may still be under way.
            Notification::ServesAlone => vec![status(&serves())],
            Notification::Reloading => service_manager::reloading(),
            Notification::HandedOver => {
                let successor = self.child.as_ref().map_or(0, Child::pid);
                let next = self.generation.number + 1;
                vec![ready(), status(&format!("generation {next} serves, pid {successor}"))]
            }
            Notification::HandoverFailed => vec![ready(), status(&self.failure(&serves()))],
            Notification::ServesAgain => vec![status(&self.failure(&serves()))],
            Notification::Stopping => vec![service_manager::STOPPING.to_owned(), status("stopping")],
            Notification::StandbyEnded => return,
        };
        self.service_manager.tell(&fields);
    }

    fn failure(&self, serves: &str) -> String {
        match self.observers.last_result() {
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
