//! Converts the reports of a generation to the messages of the control interface. Times are relative to the moment of the answer;
//! none is a time of day.

use std::time::Duration;

use super::super::protocol;
use super::super::runtime_dir::network_namespace;
use super::{Connections, Drained, Outcome, PortMember, Requests, Step, Version};
use crate::report::{Event, Failure, HandoverResult, LastHandover, Phase, Status};

pub(in crate::control) fn version() -> Version {
    Version {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
    }
}

/// The body of `GET /status`. `service` is the id that all generations of the server share.
pub(in crate::control) fn status(status: &Status, service: Option<&str>) -> protocol::Status {
    let member = |one: &crate::report::PortMember| PortMember {
        address: one.address.to_string(),
        pid: one.pid,
        uid: one.uid,
    };
    let connections = status.connections;
    protocol::Status {
        generation: status.generation,
        pid: status.pid,
        service: service.map(str::to_owned),
        network_namespace: network_namespace(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        program: status.program.to_string_lossy().into_owned(),
        args: status.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect(),
        phase: phase(status.phase).to_owned(),
        stopping: status.stopping,
        phase_s: seconds(status.in_phase),
        uptime_s: seconds(status.uptime),
        deadline_s: status.deadline.map(seconds),
        listen: status.addresses.iter().map(ToString::to_string).collect(),
        port_group: status.listeners.iter().map(member).collect(),
        predecessor: status.predecessor,
        predecessor_listens: status.predecessor_listens,
        successor: status.successor,
        connections: Connections {
            open: connections.open,
            accepted: connections.accepted,
            evicted: connections.evicted,
            finished: connections.finished,
        },
        requests: Requests { total: connections.requests, in_flight: connections.in_flight },
        last_handover: status.last_handover.as_ref().map(last_handover),
    }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Serving => "serving",
        Phase::Spawning => "spawning",
        Phase::Standby => "standby",
        Phase::Draining => "draining",
    }
}

fn last_handover(last: &LastHandover) -> protocol::LastHandover {
    let ago_s = seconds(last.ago);
    let of = |outcome, predecessor, failure| protocol::LastHandover { outcome, predecessor, failure, ago_s };
    match &last.result {
        HandoverResult::TookOver { predecessor } => {
            of(Outcome::TookOver, Some(*predecessor), protocol::Failure::default())
        }
        HandoverResult::HandedOver { successor } => of(Outcome::HandedOver, None, successor_only(*successor)),
        HandoverResult::Failed(why) => of(Outcome::Failed, None, failure(why)),
        HandoverResult::TakenBack(why) => of(Outcome::TakenBack, None, failure(why)),
    }
}

/// A `Failure` that names the successor only, because the handover has not failed.
fn successor_only(successor: u32) -> protocol::Failure {
    protocol::Failure { successor: Some(successor), ..protocol::Failure::default() }
}

fn failure(failure: &Failure) -> protocol::Failure {
    protocol::Failure {
        reason: Some(failure.reason.clone()),
        successor: failure.successor,
        status: failure.status.map(|status| status.to_string()),
        stderr: Some(failure.stderr.clone()),
    }
}

/// Converts an event to a step of a handover, if it belongs to one.
pub(in crate::control) fn step(event: &Event) -> Option<Step> {
    Some(match event {
        Event::Noted(text) => Step { text: Some((*text).to_owned()), ..Step::named("note") },
        Event::SuccessorStarted { pid } => Step { failure: successor_only(*pid), ..Step::named("started") },
        Event::HandedOver(handover) => Step {
            outcome: Some(Outcome::TookOver),
            failure: successor_only(handover.successor),
            took_ms: Some(handover.took.as_secs_f64() * 1000.0),
            ..Step::named("took over")
        },
        Event::HandoverFailed(why) => {
            Step { outcome: Some(Outcome::Failed), failure: failure(why), ..Step::named("failed") }
        }
        Event::ServesAgain(why) => {
            Step { outcome: Some(Outcome::TakenBack), failure: failure(why), ..Step::named("taken back") }
        }
        Event::StandbyEnded => Step::named("standby ended"),
        Event::Stopping => {
            Step { step: "stopping".to_owned(), ..Step::failed("the server was told to stop") }
        }
        Event::Left(outcome) => {
            let left = outcome.drained;
            let drained = Drained { finished: left.finished, cut: left.cut, requests_cut: left.requests_cut };
            Step { outcome: Some(Outcome::TookOver), drained: Some(drained), ..Step::named("drained") }
        }
        Event::Serving { .. } | Event::Missed(_) => return None,
    })
}

pub(in crate::control) fn gone() -> Step {
    Step { step: "gone".to_owned(), ..Step::failed("the generation has left") }
}

/// Seconds, rounded to the millisecond.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}
