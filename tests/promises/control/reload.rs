//! `handover reload` reports the outcome of the handover.

use nix::sys::signal::Signal;
use support::harness::{Client, Traffic, get, install, wait_until};
use support::process::signal;

use super::{Operated, Said, handover};
use crate::HANDOVER;

#[test]
fn a_reload_says_each_step_and_ends_when_the_new_generation_serves() {
    let it = Operated::start(&[]);
    let said = it.ask(&["reload"]);
    let second = it.server.wait_serving(2);
    let pid = it.server.first_pid();
    let (asked, started) =
        (format!("asked generation 1, pid {pid}"), format!("started generation 2, pid {second}"));
    said.assert(0, &[&asked, &started, &format!("generation 2, pid {second}, serves")]);
    assert!(said.stdout.lines().all(|line| line.contains(" ms  ")), "{said:?}");
    assert_eq!(said.stderr, "");
}

#[test]
fn a_failed_reload_says_how_the_successor_ended_and_what_it_said_last() {
    let it = Operated::start(&[]);
    let traffic = Traffic::fresh(&it.server);
    it.next_is("echo 'cannot reach the database at db:5432' >&2; exit 7");
    let said = it.ask(&["reload"]);
    let pid = format!("generation 1, pid {}, goes on serving", it.server.first_pid());
    said.assert(1, &["exit status: 7", "| cannot reach the database at db:5432", &pid]);
    // The next reload, with a good file, succeeds.
    install(HANDOVER, &it.path("server"));
    it.ask(&["reload"]).assert(0, &["generation 2"]);
    traffic.stop_lossless(&it.server);
}

#[test]
fn every_subcommand_exits_with_3_if_no_server_is_running() {
    let dir = tempfile::tempdir().expect("a directory");
    for args in [&["reload"][..], &["status"], &["status", "--json"], &["stop"], &["upgrade", HANDOVER]] {
        for missing in [dir.path().to_owned(), dir.path().join("missing")] {
            let said = Said::of(handover(&args[..1]).arg("--control").arg(&missing).args(&args[1..]));
            said.assert(3, &["no server is running", missing.to_str().expect("UTF-8")]);
        }
        let said = Said::of(handover(args).env(support::process::RUNTIME, dir.path()));
        said.assert(3, &["no server is running"]);
        assert_eq!(said.stderr.lines().count(), 1, "{said:?}");
    }
}

#[test]
fn twenty_reloads_in_a_row_under_load_are_all_answered_and_lose_nothing() {
    let it = Operated::start(&["--standby", "100ms"]);
    let traffic = Traffic::fresh(&it.server);
    for generation in 2..=21 {
        it.ask(&["reload"]).assert(0, &[&format!("generation {generation}, pid "), "serves"]);
    }
    traffic.stop_lossless(&it.server);
}

/// Installs a program that starts the next generation only once the file `go` exists.
fn slow_release(it: &Operated) {
    let go = it.path("go");
    it.next_is(&format!("while [ ! -e {} ]; do sleep 0.02; done; exec {HANDOVER} \"$@\"", go.display()));
}

#[test]
fn a_reload_joins_the_one_that_is_under_way_and_reports_its_outcome() {
    let it = Operated::start(&[]);
    slow_release(&it);
    let mut first = it.begin(&["reload"]);
    first.wait_for("started generation 2");
    let mut second = it.begin(&["reload"]);
    second.wait_for("joined a restart of generation 1");
    std::fs::write(it.path("go"), "").expect("writable");
    for said in [first.finish(), second.finish()] {
        said.assert(0, &["generation 2, pid", "serves"]);
    }
    assert_eq!(it.server.alive().len(), 2, "one successor was started for both");
}

#[test]
fn a_reload_whose_server_dies_says_so() {
    let it = Operated::start(&[]);
    slow_release(&it);
    let mut reload = it.begin(&["reload"]);
    reload.wait_for("started generation 2");
    let pid = it.server.first_pid();
    signal(pid, Signal::SIGKILL);
    reload.finish().assert(1, &[&format!("pid {pid} ended before it reported the outcome")]);
    std::fs::write(it.path("go"), "").expect("writable");
}

#[test]
fn a_reload_that_waits_says_what_became_of_the_connections() {
    let it = Operated::start(&["--idle-grace", "1h"]);
    let mut client = Client::connect(it.address());
    client.get("/");
    let mut reload = it.begin(&["reload", "--wait-drained"]);
    reload.wait_for("generation 2, pid");
    reload.wait_for("has closed its listener");
    assert!(client.get("/").contains("connection: close"));
    client.wait_closed();
    reload.finish().assert(0, &["generation 1 has left: 1 connections finished, 0 cut"]);
    wait_until("the socket of generation 1 is gone", &it.server, || !it.socket().exists());
}

#[test]
fn a_crash_in_standby_is_reported_to_the_waiting_reload() {
    let it = Operated::start(&["--standby", "1h"]);
    let mut reload = it.begin(&["reload", "--wait-drained"]);
    reload.wait_for("generation 2, pid");
    signal(it.server.wait_serving(2), Signal::SIGKILL);
    reload.finish().assert(1, &["the successor took over and crashed", "signal: 9", "serves again"]);
    assert!(get(it.address(), "/").contains("200 OK"));
}

#[test]
fn a_reload_command_that_is_killed_does_not_end_the_handover() {
    let it = Operated::start(&[]);
    slow_release(&it);
    let mut reload = it.begin(&["reload"]);
    reload.wait_for("started generation 2");
    signal(reload.child.id(), Signal::SIGTERM);
    reload.finish();
    std::fs::write(it.path("go"), "").expect("writable");
    it.server.wait_serving(2);
    it.server.wait_retired(1);
    wait_until("the socket of generation 1 is gone", &it.server, || !it.socket().exists());
}

#[test]
fn a_reload_in_a_storm_of_restarts_never_says_that_nothing_runs() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let it = Operated::start(&["--standby", "0s", "--idle-grace", "0s"]);
    let calm = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !calm.load(Ordering::Relaxed) {
                // Only the serving generation gets the signal, because its successor may have no handler yet.
                let lines = it.server.log().lines();
                let serving = lines.iter().rfind(|line| line.message().starts_with("serving"));
                serving.iter().for_each(|line| signal(line.pid(), Signal::SIGUSR2));
                std::thread::sleep(std::time::Duration::from_millis(4));
            }
        });
        let said: Vec<_> = (0..30).map(|_| it.ask(&["reload"])).collect();
        calm.store(true, Ordering::Relaxed);
        said.iter().for_each(|said| said.assert(0, &["serves"]));
    });
}

#[test]
fn a_reload_that_has_to_wait_says_what_for_after_a_second() {
    let it = Operated::start(&[]);
    // A stopped generation does not count as serving.
    signal(it.server.first_pid(), Signal::SIGSTOP);
    let mut reload = it.begin(&["reload"]);
    let line = reload.wait_for("waiting until a generation serves");
    assert!(line.contains(&format!("pid {} (does not answer)", it.server.first_pid())), "{line}");
    signal(it.server.first_pid(), Signal::SIGCONT);
    reload.finish().assert(0, &["generation 2"]);
}
