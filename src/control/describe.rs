//! The JSON of the control interface. Times are in seconds or milliseconds, as their names say, and count from a moment
//! that the answer implies; none is a time of day.

use std::time::Duration;

use serde_json::{Value, json};

use super::place::network_namespace;
use crate::report::{Event, Failure, HandoverResult, LastHandover, Phase, Status};

pub(crate) fn version() -> Value {
    json!({ "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION"), "pid": std::process::id() })
}

/// `service` is the same for all generations of a server.
pub(crate) fn status(status: &Status, service: Option<&str>) -> Value {
    let members = status
        .listeners
        .iter()
        .map(|one| json!({ "address": one.address.to_string(), "pid": one.pid, "uid": one.uid }));
    let connections = status.connections;
    json!({
        "generation": status.generation,
        "pid": status.pid,
        "service": service,
        "network_namespace": network_namespace(),
        "version": env!("CARGO_PKG_VERSION"),
        "program": status.program.to_string_lossy(),
        "args": status.args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>(),
        "phase": phase(status.phase),
        "stopping": status.stopping,
        "phase_s": seconds(status.in_phase),
        "uptime_s": seconds(status.uptime),
        "deadline_s": status.deadline.map(seconds),
        "listen": status.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "port_group": members.collect::<Vec<_>>(),
        "predecessor": status.predecessor,
        "successor": status.successor,
        "connections": {
            "open": connections.open,
            "accepted": connections.accepted,
            "evicted": connections.evicted,
            "finished": connections.finished,
        },
        "requests": { "total": connections.requests, "in_flight": connections.in_flight },
        "last_handover": status.last_handover.as_ref().map(last_handover),
    })
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

fn last_handover(last: &LastHandover) -> Value {
    let mut value = match &last.result {
        HandoverResult::TookOver { predecessor } => {
            json!({ "outcome": "took over", "predecessor": predecessor })
        }
        HandoverResult::HandedOver { successor } => {
            json!({ "outcome": "handed over", "successor": successor })
        }
        HandoverResult::Failed(why) => failure("failed", why),
        HandoverResult::TakenBack(why) => failure("taken back", why),
    };
    value["ago_s"] = json!(seconds(last.ago));
    value
}

/// Why a handover failed, with the successor's own words.
fn failure(outcome: &str, failure: &Failure) -> Value {
    json!({
        "outcome": outcome,
        "reason": failure.reason,
        "successor": failure.successor,
        "status": failure.status.map(|status| status.to_string()),
        "stderr": failure.stderr,
    })
}

/// An event of a handover as a step of it, if it is one.
pub(crate) fn step(event: &Event) -> Option<Value> {
    let (name, mut value) = match event {
        Event::Noted(text) => ("note", json!({ "text": text })),
        Event::SuccessorStarted { pid } => ("started", json!({ "successor": pid })),
        Event::HandedOver(handover) => {
            let took = handover.took.as_secs_f64() * 1000.0;
            let outcome = "took over";
            ("took over", json!({ "outcome": outcome, "successor": handover.successor, "took_ms": took }))
        }
        Event::HandoverFailed(why) => ("failed", failure("failed", why)),
        Event::ServesAgain(why) => ("taken back", failure("taken back", why)),
        Event::StandbyEnded => ("standby ended", json!({})),
        Event::Stopping => {
            ("stopping", json!({ "outcome": "failed", "reason": "the server was told to stop" }))
        }
        Event::Left(outcome) => {
            let drained = outcome.drained;
            let left = json!({
                "outcome": "took over",
                "finished": drained.finished,
                "cut": drained.cut,
                "requests_cut": drained.requests_cut,
            });
            ("drained", left)
        }
        _ => return None,
    };
    value["step"] = json!(name);
    Some(value)
}

/// The generation ended before the handover did.
pub(crate) fn gone() -> Value {
    json!({ "step": "gone", "outcome": "failed", "reason": "the generation has left" })
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}
