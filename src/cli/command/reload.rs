//! `handover reload`: restarts, and stays until it is known what came of it.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::ask::{Steps, ask};
use super::find::{Generation, serving};
use super::{SILENCE, Trouble, Which, failed, say};

/// How long a server may go on refusing that says that it serves.
const REFUSING: Duration = Duration::from_secs(10);

pub(super) fn run(which: &Which, wait_drained: bool) -> Result<(), Trouble> {
    let dir = which.find()?;
    let target = if wait_drained { "/reload?wait=drained" } else { "/reload" };
    let (began, mut said) = (Instant::now(), false);
    let until = Instant::now() + REFUSING;
    loop {
        let server = serving(&dir)?;
        // It has left since, or has handed over: another generation serves by now.
        let mut again = |reason: &str| {
            if began.elapsed() > SILENCE && !std::mem::replace(&mut said, true) {
                say(format_args!(
                    "waiting for a generation that can restart: pid {} cannot: {reason}",
                    server.pid
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
            match Instant::now() < until {
                true => Ok(()),
                false => Err(failed(format!("cannot reload pid {}: {reason}", server.pid))),
            }
        };
        match ask(&server.socket, "POST", target, None) {
            Ok(answer) if answer.code == 200 => return follow(answer.steps(), &server).map(drop),
            Ok(answer) => again(&answer.error())?,
            Err(error) => again(&error.to_string())?,
        }
    }
}

/// Prints each step, up to the last one, and gives that if it is a good one.
pub(super) fn follow(steps: Steps, server: &Generation) -> Result<Value, Trouble> {
    let mut last = Value::Null;
    for step in steps {
        say(format_args!("{:>9.1} ms  {}", step["after_ms"].as_f64().unwrap_or(0.0), line(&step, server)));
        last = step;
    }
    match last["outcome"].as_str() {
        Some("failed" | "taken back") => Err(failed(explain(&last, server))),
        Some(_) => Ok(last),
        None => Err(failed(format!(
            "pid {} ended before it said what came of it; `handover status` shows who serves",
            server.pid
        ))),
    }
}

fn line(step: &Value, server: &Generation) -> String {
    let text = |name: &str| step[name].as_str().unwrap_or_default().to_owned();
    let (pid, number, successor) = (server.pid, server.number(), &step["successor"]);
    match &*text("step") {
        "asked" => format!("asked generation {number}, pid {pid}"),
        "joined" => format!("joined a restart of generation {number}, pid {pid}, that is under way"),
        "note" => text("text"),
        "started" => format!("started generation {}, pid {successor}", number + 1),
        "took over" => format!("generation {}, pid {successor}, serves", number + 1),
        "standby ended" => {
            format!("generation {number} has closed its listener and finishes its connections")
        }
        "drained" => {
            let (finished, cut) = (&step["finished"], &step["cut"]);
            format!("generation {number} has left: {finished} connections finished, {cut} cut")
        }
        "failed" => "failed".into(),
        "taken back" => format!("generation {number}, pid {pid}, serves again"),
        "stopping" => "the server was told to stop".into(),
        "gone" => format!("generation {number} has left"),
        "runs" => format!("the new file runs: {}", text("version")),
        "checked" => "it accepts the current arguments".into(),
        "placed" => format!("it is {} now; the one before is {}", text("program"), text("old")),
        "upgraded" => "upgraded".into(),
        other => other.to_owned(),
    }
}

/// Why it failed, who serves, and what the successor said itself.
fn explain(last: &Value, server: &Generation) -> String {
    let reason = last["reason"].as_str().unwrap_or("no reason is given");
    let mut text = match last["step"].as_str().unwrap_or_default() {
        "stopping" | "gone" => reason.to_owned(),
        _ => format!("{reason}; generation {}, pid {}, goes on serving", server.number(), server.pid),
    };
    if let Some(problem) = last["not_restored"].as_str() {
        text += &format!("; the old program is NOT back in place: {problem}");
    } else if last["restored"] == true {
        text += &format!("; {} is the old file again", last["program"].as_str().unwrap_or_default());
    }
    let said = last["stderr"].as_array().map(Vec::as_slice).unwrap_or_default();
    for line in said.iter().filter_map(Value::as_str) {
        text += &format!("\n  | {line}");
    }
    text
}
