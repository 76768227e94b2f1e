//! The messages on the control socket and on the admin address, shared by server and client. A field that a peer of another
//! version does not send gets its default, and a field that this version does not know is ignored.

use std::fmt;

pub(super) mod from_report;

use serde::{Deserialize, Serialize};

/// The media type of a response that is streamed line by line, one [`Step`] per line.
pub const LINES: &str = "application/x-ndjson";

/// `GET /version`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Version {
    pub name: String,
    pub version: String,
    pub pid: u32,
}

/// `GET /status`: one generation at one moment. Times are in seconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    pub generation: u64,
    pub pid: u32,
    /// The service id that all generations of this server share.
    pub service: Option<String>,
    pub network_namespace: Option<u64>,
    pub version: String,
    pub program: String,
    pub args: Vec<String>,
    pub phase: String,
    pub stopping: bool,
    pub phase_s: f64,
    pub uptime_s: f64,
    pub deadline_s: Option<f64>,
    pub listen: Vec<String>,
    pub port_group: Vec<PortMember>,
    pub predecessor: Option<u32>,
    /// Whether the predecessor still listens and can serve again.
    pub predecessor_listens: bool,
    pub successor: Option<u32>,
    pub connections: Connections,
    pub requests: Requests,
    pub last_handover: Option<LastHandover>,
}

/// A socket that listens on one of the server's addresses; it may belong to another process.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PortMember {
    pub address: String,
    pub pid: Option<u32>,
    pub uid: u32,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Connections {
    pub open: u64,
    pub accepted: u64,
    pub evicted: u64,
    pub finished: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Requests {
    pub total: u64,
    pub in_flight: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LastHandover {
    pub outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<u32>,
    #[serde(flatten)]
    pub failure: Failure,
    pub ago_s: f64,
}

/// The reason for a failed handover. After a successful one only `successor` is set.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub successor: Option<u32>,
    /// The exit status of the successor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The last lines that the successor wrote to stderr.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<Vec<String>>,
}

/// The result of a handover or an upgrade.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    #[serde(rename = "took over")]
    TookOver,
    #[serde(rename = "handed over")]
    HandedOver,
    #[serde(rename = "failed")]
    Failed,
    #[serde(rename = "taken back")]
    TakenBack,
    #[serde(rename = "upgraded")]
    Upgraded,
    /// An outcome that this version does not know.
    #[default]
    #[serde(other, rename = "unknown")]
    Unknown,
}

impl Outcome {
    pub fn is_failure(self) -> bool {
        matches!(self, Outcome::Failed | Outcome::TakenBack)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::TookOver => "took over",
            Outcome::HandedOver => "handed over",
            Outcome::Failed => "failed",
            Outcome::TakenBack => "taken back",
            Outcome::Upgraded => "upgraded",
            Outcome::Unknown => "unknown",
        })
    }
}

/// One step of `POST /reload` or `POST /upgrade`. The last step has an outcome.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Step {
    /// The name of the step.
    pub step: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    #[serde(flatten)]
    pub failure: Failure,
    /// The text of a note.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<f64>,
    /// The connections of a generation that has left.
    #[serde(flatten)]
    pub drained: Option<Drained>,
    /// In an upgrade: the new file, its version, the program that it replaces, and where the old program is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// After a failed upgrade: whether the old file is back in place, and the reason if not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_restored: Option<String>,
    /// Time since the request.
    pub after_ms: f64,
}

impl Step {
    pub(super) fn named(step: &str) -> Step {
        Step { step: step.to_owned(), ..Step::default() }
    }

    pub(super) fn failed(reason: impl Into<String>) -> Step {
        let failure = Failure { reason: Some(reason.into()), ..Failure::default() };
        Step { outcome: Some(Outcome::Failed), failure, ..Step::named("failed") }
    }
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Drained {
    pub finished: u64,
    pub cut: u64,
    #[serde(default)]
    pub requests_cut: u64,
}

/// `POST /reopen`: the files that were reopened.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Reopened {
    pub reopened: Vec<String>,
}

/// `POST /stop`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Stopping {
    pub stopping: bool,
}

/// The body of every response other than 200 and 202, except a failed reload or upgrade.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Refusal {
    pub error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_another_version_are_understood_as_far_as_this_one_knows_them() {
        let older = r#"{"generation":2,"pid":7,"phase":"serving","listen":["[::]:80"],"connections":{"open":3},
            "last_handover":{"outcome":"failed","reason":"r","successor":null,"status":"exit status: 1","stderr":["x"],"ago_s":1.5}}"#;
        let status: Status = serde_json::from_str(older).expect("it is JSON");
        assert_eq!((status.generation, status.pid, &*status.phase), (2, 7, "serving"));
        assert_eq!((status.connections.open, status.connections.accepted), (3, 0));
        let last = status.last_handover.expect("there was one");
        assert!(last.outcome.is_failure());
        assert_eq!((last.failure.successor, last.failure.stderr.expect("lines").len()), (None, 1));

        let newer = r#"{"step":"canary","outcome":"withdrawn","share":0.1,"after_ms":3.0}"#;
        let step: Step = serde_json::from_str(newer).expect("it is JSON");
        assert_eq!(
            (&*step.step, step.outcome, step.drained.is_none()),
            ("canary", Some(Outcome::Unknown), true)
        );
        assert!(serde_json::from_str::<Status>(r#"{"pid":"seven"}"#).is_err());
    }

    #[test]
    fn a_step_serialises_only_the_fields_that_it_has() {
        let drained = Drained { finished: 2, cut: 1, requests_cut: 0 };
        let step =
            Step { outcome: Some(Outcome::TookOver), drained: Some(drained), ..Step::named("drained") };
        let said = serde_json::to_value(step).expect("every key is a string");
        let expected = serde_json::json!({
            "step": "drained", "outcome": "took over", "finished": 2, "cut": 1, "requests_cut": 0, "after_ms": 0.0,
        });
        assert_eq!(said, expected);
        let said = serde_json::to_value(Step::failed("no room")).expect("every key is a string");
        let expected = serde_json::json!({
            "step": "failed", "outcome": "failed", "reason": "no room", "after_ms": 0.0,
        });
        assert_eq!(said, expected);
    }
}
