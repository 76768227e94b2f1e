//! The fault matrix: whatever goes wrong, whenever it does, is survived under load, and the next restart succeeds.
//!
//! What `failures`, `signals`, `bad_input`, `launch` and `traces` prove already is not repeated here.

use nix::sys::signal::Signal;
use support::harness::{Faulty, Traffic};
use support::load::Report;
use support::process::{Line, Server, signal};

mod around_the_flip;
mod before_ready;
mod clock;
mod leaving;
mod logs;
mod resources;
mod stderr;
pub(crate) mod strangers;

/// What `Traffic::fresh` has. Each has one request under way at most, so no more can be inside a process that is killed.
const CLIENTS: u64 = 8;

/// The successor that a log line is about.
fn successor(line: &Line) -> Option<u32> {
    line.json["successor"].as_u64().and_then(|pid| u32::try_from(pid).ok())
}

/// Asks `pid` for a restart, and gives the pid of the process that it starts therefore.
pub(crate) fn restart(server: &Server, pid: u32) -> u32 {
    let started = |line: &Line| {
        (line.pid() == pid && line.message() == "successor started").then(|| successor(line)).flatten()
    };
    let before: Vec<u32> = server.log().lines().iter().filter_map(started).collect();
    signal(pid, Signal::SIGHUP);
    server.log().wait(&format!("pid {pid} starts a successor"), |line| {
        started(line).filter(|child| !before.contains(child))
    })
}

/// Waits until this process says something that contains `text`.
pub(crate) fn wait_said(server: &Server, pid: u32, text: &str) -> Line {
    server.log().wait(&format!("pid {pid} says {text:?}"), |line| {
        (line.pid() == pid && line.message().contains(text)).then(|| line.clone())
    })
}

/// Waits until the parent of `child` says with which status it left.
pub(crate) fn wait_buried(server: &Server, child: u32) -> Line {
    server.log().wait(&format!("the end of {child} is noticed"), |line| {
        (successor(line) == Some(child) && line.json["status"].is_string()).then(|| line.clone())
    })
}

/// Waits until the process is in that state.
pub(crate) fn wait_is(server: &Server, pid: u32, to: &str) -> Line {
    server.log().wait(&format!("pid {pid} is {to}"), |line| {
        (line.pid() == pid && line.json["to"] == to).then(|| line.clone())
    })
}

/// The next restart with a good binary succeeds: gives the pid of the process that serves then.
pub(crate) fn assert_next_restart(server: &Server, pid: u32) -> u32 {
    let child = restart(server, pid);
    wait_said(server, child, "serving, took over");
    wait_is(server, pid, "draining");
    child
}

/// Nobody was refused or left waiting, and what was lost fits into the processes that were killed.
fn assert_lost_at_most(server: &Server, traffic: Traffic, kills: u64) -> Report {
    let report = traffic.stop();
    let said = || format!("{:?}\n{}", report.failures(), server.log().history());
    assert!(report.failed() <= kills * CLIENTS, "{}", said());
    for kind in ["refused", "timeout", "cannot connect", "bad answer", "status other than 200"] {
        assert!(!report.failures().contains_key(kind), "{}", said());
    }
    assert!(report.samples.len() > 50, "only {} requests", report.samples.len());
    report
}
