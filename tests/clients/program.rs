//! Client programs: checks that one is installed, runs it, and reads its report.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use support::process::command;

use crate::outcome::Outcome;
use crate::species::{Program, Species};
use crate::{beside, installed, tools};

/// One run of one client.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    pub(crate) species: Species,
    pub(crate) url: String,
    /// The pause after each request, in milliseconds.
    pub(crate) pause: u64,
    pub(crate) workers: u64,
    pub(crate) length: Duration,
    /// The directory for the client's files.
    pub(crate) dir: PathBuf,
}

/// Returns why a client cannot run here, or `None` if it can.
pub(crate) fn missing(species: &Species) -> Option<String> {
    let fetched = |file: &str| {
        let there = installed().join(file).exists();
        (!there).then(|| format!("{} is not installed: run tests/clients/fetch", species.name))
    };
    let program = |name: &str| {
        let there = Command::new(name).arg("--version").output().is_ok();
        (!there).then(|| format!("{name} is not installed"))
    };
    match species.program {
        Program::Python(_) => fetched("python.done"),
        Program::Node(_) => fetched("node.done"),
        Program::Go(_) => fetched("go.done"),
        Program::Java(_) => fetched("java.done"),
        Program::Reqwest(_) => fetched("reqwest.done"),
        Program::Curl(_) => program("curl"),
        Program::Ab(_) => program("ab"),
        Program::Wrk => program("wrk"),
        Program::H2load(_) => program("h2load"),
        Program::Chromium => program("chromium"),
    }
}

/// Runs a client to its end. A client that does not report counts as a failure.
pub(crate) fn run(visit: &Visit) -> Outcome {
    let result = match visit.species.program {
        Program::Python(kind) => {
            reporting(installed().join("python/bin/python"), &["clients.py"], kind, visit)
        }
        Program::Node(kind) => reporting("node", &[&path(installed().join("node/clients.mjs"))], kind, visit),
        Program::Go(kind) => reporting(installed().join("go-client"), &[], kind, visit),
        Program::Java(kind) => reporting("java", &java(), kind, visit),
        Program::Reqwest(kind) => reporting(reqwest(), &[], kind, visit),
        Program::Curl(flags) => tools::curl(flags, visit),
        Program::Ab(flags) => tools::ab(flags, visit),
        Program::Wrk => tools::wrk(visit),
        Program::H2load(flags) => tools::h2load(flags, visit),
        Program::Chromium => Err("a browser has several rows".to_owned()),
    };
    result.unwrap_or_else(|why| {
        let mut outcome = Outcome::default();
        outcome.fail(why, 1);
        outcome
    })
}

pub(crate) fn reqwest() -> PathBuf {
    installed().join("reqwest/release/reqwest-client")
}

fn java() -> [&'static str; 8] {
    // A small JVM for a small program, and no check of the name in the certificate.
    const FLAGS: [&str; 5] = [
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xmx128m",
        "-Xshare:auto",
        "-Djdk.internal.httpclient.disableHostnameVerification=true",
    ];
    static FOLDER: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| path(installed().join("java")));
    [FLAGS[0], FLAGS[1], FLAGS[2], FLAGS[3], FLAGS[4], "-cp", &FOLDER, "Client"]
}

fn path(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().expect("UTF-8").to_owned()
}

/// Runs one of the programs in `programs/` that wrap a third-party client: all take the same five arguments, and print JSON as
/// their last line.
fn reporting(
    program: impl Into<PathBuf>,
    before: &[&str],
    kind: &str,
    visit: &Visit,
) -> Result<Outcome, String> {
    let words = [
        kind.to_owned(),
        visit.url.clone(),
        visit.pause.to_string(),
        visit.workers.to_string(),
        visit.length.as_secs_f64().to_string(),
    ];
    let mut client = command(program);
    client.current_dir(beside("programs")).args(before).args(words);
    let output = finish(client, visit.length)?;
    let said = text(&output.stdout);
    said.lines()
        .next_back()
        .and_then(Outcome::read)
        .ok_or_else(|| format!("no report: {}", last_words(&output)))
}

/// Runs a command, with a timeout some seconds above `length`.
pub(crate) fn finish(mut client: Command, length: Duration) -> Result<Output, String> {
    let program = client.get_program().to_owned();
    let mut limited = Command::new("timeout");
    limited
        .args(["--kill-after=5", &(length.as_secs() + 45).to_string()])
        .arg(&program)
        .args(client.get_args());
    if let Some(dir) = client.get_current_dir() {
        limited.current_dir(dir);
    }
    limited.stdin(Stdio::null());
    client = limited;
    let output = client.output().map_err(|error| format!("{}: {error}", program.display()))?;
    match output.status.code() {
        Some(124 | 137) => Err(format!("{} did not end: {}", program.display(), last_words(&output))),
        _ => Ok(output),
    }
}

pub(crate) fn last_words(output: &Output) -> String {
    let said = text(&[&output.stdout[..], &output.stderr].concat());
    let last: String = said.lines().rev().take(3).collect::<Vec<_>>().join(" / ");
    last.chars().take(300).collect()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
