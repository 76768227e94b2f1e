//! `handover reopen`: every generation reopens its log files, after a rotation has renamed them.

use std::time::Duration;

use handover::control::protocol::Reopened;
use hyper::{Method, StatusCode};

use super::client::ask;
use super::discover::{Generation, find_generations, refuse_shared_dir};
use super::{CommandError, ServerSelector, failed, say};

const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn run(which: &ServerSelector) -> Result<(), CommandError> {
    let dir = which.find()?;
    let generations = find_generations(&dir);
    refuse_shared_dir(&dir, &generations)?;
    let mut problems = vec![];
    for one in &generations {
        match reopen(one) {
            Ok(files) if files.is_empty() => {
                say(format_args!("generation {}, pid {}, has no log file", one.number(), one.pid));
            }
            Ok(files) => {
                let files = files.join(" and ");
                say(format_args!("generation {}, pid {}, has opened {files}", one.number(), one.pid));
            }
            Err(problem) => problems.push(format!("pid {}: {problem}", one.pid)),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(failed(problems.join("; "))) }
}

fn reopen(one: &Generation) -> Result<Vec<String>, String> {
    let answer =
        ask(&one.socket, Method::POST, "/reopen", Some(PATIENCE)).map_err(|error| error.to_string())?;
    match answer.status {
        StatusCode::OK => {
            answer.value().map(|opened: Reopened| opened.reopened).map_err(|error| error.to_string())
        }
        StatusCode::NOT_FOUND => {
            Err("it runs an older version, which opens its log files only when it starts".to_owned())
        }
        _ => Err(answer.error()),
    }
}
