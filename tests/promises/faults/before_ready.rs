//! The successor fails, or nearly fails, before it is ready.

use std::time::Duration;

use support::harness::{QUICK, Traffic, example, install, start_copy};

use crate::faults::{Faulty, assert_next_restart, restart, successor, wait_buried, wait_is, wait_said};

/// Asserts that a handover to a successor with this fault fails, that the log has its exit status, that nothing is lost,
/// and that the next restart succeeds.
fn assert_changes_nothing(fault: &str, args: &[&str], status: &str) -> Faulty {
    let faulty = Faulty::start(args);
    let server = &faulty.server;
    let traffic = Traffic::fresh(server);
    faulty.next_is(fault);
    let child = restart(server, server.first_pid());
    let failed = wait_buried(server, child);
    assert!(failed.message().starts_with("handover failed"), "{}", failed.text);
    assert!(failed.json["status"].as_str().is_some_and(|s| s.starts_with(status)), "{}", failed.text);
    faulty.next_is("");
    assert_next_restart(server, server.first_pid());
    let report = traffic.stop_lossless(server);
    assert!(report.first_answers().keys().eq([&1, &2]), "{}", server.log().history());
    faulty
}

#[test]
fn a_successor_that_leaves_with_status_0_before_it_is_ready_has_failed() {
    assert_changes_nothing("exit-zero-before-ready", &[], "exit status: 0");
}

#[test]
fn a_successor_that_is_ended_by_a_signal_before_it_is_ready_changes_nothing() {
    assert_changes_nothing("abort-before-ready", &[], "signal: 6");
}

#[test]
fn a_readiness_check_that_panics_counts_as_failed() {
    let faulty = assert_changes_nothing("panic-in-check", &[], "exit status: 1");
    faulty.server.log().wait_for("--fault panic-in-check");
    faulty.server.log().wait_for("NotReady");
}

#[test]
fn a_successor_that_binds_and_never_listens_is_told_to_leave() {
    // The successor has no handler for SIGTERM yet, hence the status.
    let faulty = assert_changes_nothing("never-listens", &["--ready-timeout", "700ms"], "signal: 15");
    faulty.server.log().wait_for("bound, never listens");
}

#[test]
fn a_successor_that_needs_nearly_the_whole_ready_timeout_takes_over() {
    let faulty = Faulty::start(&["--ready-timeout", "3s"]);
    let server = &faulty.server;
    let traffic = Traffic::fresh(server);
    // One second is left for starting the process, on a machine that is busy with other tests.
    faulty.next_is("slow-start=2000");
    let child = restart(server, server.first_pid());
    wait_said(server, child, "serving, took over");
    wait_is(server, server.first_pid(), "draining");
    faulty.next_is("");
    assert_next_restart(server, child);
    traffic.stop_lossless(server);
}

#[test]
fn a_successor_that_is_ready_at_the_very_timeout_loses_nothing_whichever_wins() {
    let timeout = Duration::from_millis(300);
    let faulty = Faulty::start(&["--ready-timeout", "300ms", "--standby", "100ms"]);
    let server = &faulty.server;
    let traffic = Traffic::fresh(server);
    let mut random = fastrand::Rng::with_seed(1);
    let mut leader = server.first_pid();
    let mut won = 0;
    const ROUNDS: usize = 12;
    for _ in 0..ROUNDS {
        // The start of the process takes additional time, so the sum falls on both sides of the timeout.
        let slow = timeout - Duration::from_millis(random.u64(0..80));
        faulty.next_is(&format!("slow-start={}", slow.as_millis()));
        let child = restart(server, leader);
        let took_over = server.log().wait("the handover has succeeded or failed", |line| {
            let failed = successor(line) == Some(child) && line.json["status"].is_string();
            let standby = line.pid() == leader && line.json["to"] == "standby";
            (failed || standby).then_some(standby)
        });
        if took_over {
            leader = child;
            won += 1;
        }
    }
    faulty.next_is("");
    assert_next_restart(server, leader);
    let report = traffic.stop_lossless(server);
    println!("{won} of {ROUNDS} successors were in time, {} requests", report.samples.len());
}

#[test]
fn a_successor_that_forks_into_the_background_is_told_what_to_do() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("server");
    let server = start_copy(&program, &QUICK);
    let script = format!("#!/bin/sh\n{} \"$@\" </dev/null &\nexit 0\n", example("playground").display());
    let draft = dir.path().join("draft");
    std::fs::write(&draft, script).expect("writable");
    std::fs::set_permissions(&draft, PermissionsExt::from_mode(0o755)).expect("we own it");
    std::fs::rename(draft, &program).expect("writable");
    let child = restart(&server, server.first_pid());
    let failed = wait_buried(&server, child);
    assert!(failed.message().contains("daemonise only if handover::generation() is 1"), "{}", failed.text);
    install(example("playground"), &program);
    assert_next_restart(&server, server.first_pid());
}
