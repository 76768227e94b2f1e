//! The fault matrix: the service survives each fault at each moment under load, and the next restart succeeds.
//!
//! Faults that `failures`, `signals`, `bad_input`, `launch` and `traces` cover are not repeated here.

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

/// The number of clients of `Traffic::fresh`. Each has at most one request in flight, which limits the requests inside a
/// process that is killed.
const CLIENTS: u64 = 8;

/// The pid in the field `successor` of a log line.
fn successor(line: &Line) -> Option<u32> {
    line.json["successor"].as_u64().and_then(|pid| u32::try_from(pid).ok())
}

/// Asks `pid` for a restart, and returns the pid of the successor that it starts.
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

/// Waits for a log line of this process that contains `text`.
pub(crate) fn wait_said(server: &Server, pid: u32, text: &str) -> Line {
    server.log().wait(&format!("pid {pid} says {text:?}"), |line| {
        (line.pid() == pid && line.message().contains(text)).then(|| line.clone())
    })
}

/// Waits until the parent of `child` logs its exit status.
pub(crate) fn wait_buried(server: &Server, child: u32) -> Line {
    server.log().wait(&format!("the end of {child} is noticed"), |line| {
        (successor(line) == Some(child) && line.json["status"].is_string()).then(|| line.clone())
    })
}

/// Waits until the process is in the state `to`.
pub(crate) fn wait_is(server: &Server, pid: u32, to: &str) -> Line {
    server.log().wait(&format!("pid {pid} is {to}"), |line| {
        (line.pid() == pid && line.json["to"] == to).then(|| line.clone())
    })
}

/// Asserts that the next restart with a good binary succeeds, and returns the pid of the process that serves then.
pub(crate) fn assert_next_restart(server: &Server, pid: u32) -> u32 {
    let child = restart(server, pid);
    wait_said(server, child, "serving, took over");
    wait_is(server, pid, "draining");
    child
}

/// Asserts that no client was refused or timed out, and that only requests inside killed processes can have been lost.
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
