//! `handover reload`: restarts the server and waits for the outcome.

use std::time::{Duration, Instant};

use handover::control::protocol::Step;
use hyper::{Method, StatusCode};

use super::client::{Steps, ask};
use super::discover::{Generation, serving};
use super::{CommandError, SILENCE, ServerSelector, failed, say};

/// How long a generation that reports itself as serving may refuse to reload.
const REFUSING: Duration = Duration::from_secs(10);

pub(super) fn run(which: &ServerSelector, wait_drained: bool) -> Result<(), CommandError> {
    let dir = which.find()?;
    let target = if wait_drained { "/reload?wait=drained" } else { "/reload" };
    let (began, mut said) = (Instant::now(), false);
    let until = Instant::now() + REFUSING;
    loop {
        let server = serving(&dir)?;
        // A refusal may mean that this generation has left or handed over since: another one serves by now.
        let mut again = |reason: &str| {
            if began.elapsed() > SILENCE && !std::mem::replace(&mut said, true) {
                say(format_args!(
                    "waiting for a generation that can restart: pid {} cannot: {reason}",
                    server.pid
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
            if Instant::now() < until {
                Ok(())
            } else {
                Err(failed(format!("cannot reload pid {}: {reason}", server.pid)))
            }
        };
        match ask(&server.socket, Method::POST, target, None) {
            Ok(answer) if answer.status == StatusCode::OK => return follow(answer.steps(), &server),
            Ok(answer) => again(&answer.error())?,
            Err(error) => again(&error.to_string())?,
        }
    }
}

/// Prints each step as it arrives, and returns an error if the outcome is a failure.
pub(super) fn follow(steps: Steps, server: &Generation) -> Result<(), CommandError> {
    let mut last = Step::default();
    for step in steps {
        say(format_args!("{:>9.1} ms  {}", step.after_ms, line(&step, server)));
        last = step;
    }
    match last.outcome {
        Some(outcome) if outcome.is_failure() => Err(failed(explain(&last, server))),
        Some(_) => Ok(()),
        None => Err(failed(format!(
            "pid {} ended before it reported the outcome; `handover status` shows which generation serves",
            server.pid
        ))),
    }
}

fn line(step: &Step, server: &Generation) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (pid, number) = (server.pid, server.number());
    let successor = step.failure.successor.unwrap_or_default();
    match &*step.step {
        "asked" => format!("asked generation {number}, pid {pid}"),
        "joined" => format!("joined a restart of generation {number}, pid {pid}, that is under way"),
        "note" => text(&step.text),
        "started" => format!("started generation {}, pid {successor}", number + 1),
        "took over" => format!("generation {}, pid {successor}, serves", number + 1),
        "standby ended" => {
            format!("generation {number} has closed its listener and finishes its connections")
        }
        "drained" => {
            let drained = step.drained.unwrap_or_default();
            let (finished, cut) = (drained.finished, drained.cut);
            format!("generation {number} has left: {finished} connections finished, {cut} cut")
        }
        "failed" => "failed".into(),
        "taken back" => format!("generation {number}, pid {pid}, serves again"),
        "stopping" => "the server was told to stop".into(),
        "gone" => format!("generation {number} has left"),
        "runs" => format!("the new file runs: {}", text(&step.version)),
        "checked" => "it accepts the current arguments".into(),
        "placed" => format!("it is {} now; the one before is {}", text(&step.program), text(&step.old)),
        "upgraded" => "upgraded".into(),
        other => other.to_owned(),
    }
}

/// Explains a failure: the reason, the generation that serves, and the last stderr lines of the successor.
fn explain(last: &Step, server: &Generation) -> String {
    let reason = last.failure.reason.as_deref().unwrap_or("no reason is given");
    let mut text = match &*last.step {
        "stopping" | "gone" => reason.to_owned(),
        _ => format!("{reason}; generation {}, pid {}, goes on serving", server.number(), server.pid),
    };
    if let Some(problem) = &last.not_restored {
        text += &format!("; the old program is NOT back in place: {problem}");
    } else if last.restored == Some(true) {
        text += &format!("; {} is the old file again", last.program.as_deref().unwrap_or_default());
    }
    for line in last.failure.stderr.iter().flatten() {
        text += &format!("\n  | {line}");
    }
    text
}
