//! Signals that were blocked when the server was started.

use std::process::Command;

use nix::sys::signal::Signal;
use support::harness::{QUICK, Traffic, example, is_alive};
use support::process::{Server, command, signal};

use crate::HANDOVER;
use crate::faults::wait_said;
use crate::supervise::wait_gone;

/// The server does not handle USR1.
const BLOCKED: &str = "--block-signal=HUP,TERM,INT,USR2,URG,CHLD,USR1";

fn blocked(args: &[&str]) -> Command {
    let mut command = command("env");
    command.arg(BLOCKED).arg(example("playground")).args(QUICK).args(args);
    command
}

/// Returns the mask of blocked signals of each thread of a process.
fn masks(pid: u32) -> Vec<u64> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process is alive").flatten();
    let statuses = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("status")).ok());
    let mask = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:").map(str::to_owned));
        u64::from_str_radix(line.expect("proc_pid_status(5)").trim(), 16).expect("a mask")
    };
    statuses.map(mask).collect()
}

#[test]
fn what_a_server_handles_is_unblocked_and_nothing_else() {
    let bit = |signal: Signal| 1_u64 << (signal as i32 - 1);
    let handled = [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR2, Signal::SIGURG];
    let handled = handled.map(bit).iter().fold(0, |all, one| all | one);
    let mut server = Server::start(blocked(&["--standby", "300ms"]));
    let traffic = Traffic::fresh(&server);
    let mut pid = server.first_pid();
    for generation in 1..=3 {
        for mask in masks(pid) {
            assert_eq!(mask & handled, 0, "{mask:x} in generation {generation}");
            assert_ne!(mask & bit(Signal::SIGUSR1), 0, "{mask:x} in generation {generation}");
        }
        if generation < 3 {
            signal(pid, if generation == 1 { Signal::SIGHUP } else { Signal::SIGUSR2 });
            pid = server.wait_serving(generation + 1);
            server.wait_state(generation, "draining");
        }
    }
    traffic.stop_lossless(&server);
    assert!(server.first_exit().success());
    signal(pid, Signal::SIGTERM);
    wait_said(&server, pid, "stopped");
}

#[test]
fn a_supervisor_too_hears_what_was_blocked_before_it() {
    for stop in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = Server::start(blocked(&["--supervise"]));
        let front = server.first_pid();
        signal(front, Signal::SIGHUP);
        server.wait_serving(2);
        server.wait_retired(1);
        assert!(is_alive(front));
        signal(front, stop);
        assert_eq!(server.first_exit().code(), Some(0), "{}", server.log().history());
        wait_gone(&server);
    }
}

#[test]
fn an_embedding_program_that_catches_nothing_before_it_listens_hears_too() {
    let mut started = command("env");
    started.arg(BLOCKED).arg(example("embed")).arg("127.0.0.1:0");
    let mut server = Server::start(started);
    signal(server.first_pid(), Signal::SIGHUP);
    let second = server.wait_serving(2);
    signal(second, Signal::SIGTERM);
    wait_said(&server, second, "stopped");
    assert!(server.first_exit().success());
}

#[test]
fn the_binary_hears_what_was_blocked_before_it() {
    let mut started = command("env");
    started.arg(BLOCKED).arg(HANDOVER).args(QUICK);
    let mut server = Server::start(started);
    signal(server.first_pid(), Signal::SIGTERM);
    assert_eq!(server.first_exit().code(), Some(0));
}
