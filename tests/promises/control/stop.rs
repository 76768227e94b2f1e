//! `handover stop` ends a server, and returns when it has ended.

use std::time::{Duration, Instant};

use support::harness::{Client, is_alive};

use super::Operated;

/// Asserts that no process and no socket of the server is left.
#[track_caller]
fn assert_gone(it: &Operated) {
    let alive = it.server.alive();
    assert!(alive.is_empty(), "{alive:?} are alive:\n{}", it.server.log().history());
    assert_eq!(it.sockets(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_stop_returns_when_the_server_has_ended_and_its_socket_is_gone() {
    let mut it = Operated::start(&[]);
    assert!(it.socket().exists());
    let pid = it.server.first_pid();
    let said = it.ask(&["stop"]);
    let (told, left) =
        (format!("told generation 1, pid {pid}, to stop"), format!("generation 1, pid {pid}, has left"));
    said.assert(0, &[&told, &left, "no generation is left"]);
    assert!(!is_alive(pid));
    assert!(it.server.first_exit().success());
    assert_gone(&it);
}

#[test]
fn a_stop_in_standby_ends_both_generations() {
    let patient =
        ["--standby", "2s", "--idle-grace", "1h", "--drain-timeout", "1h", "--stop-idle-grace", "100ms"];
    let it = Operated::start(&patient);
    let mut client = Client::connect(it.address());
    client.get("/");
    it.ask(&["reload"]).assert(0, &[]);
    it.ask(&["stop"]).assert(0, &["generation 1", "generation 2"]);
    assert_gone(&it);
    client.wait_closed();
}

#[test]
fn a_stop_hurries_a_generation_that_only_drains() {
    let it = Operated::start(&["--idle-grace", "1h", "--drain-timeout", "1h", "--stop-idle-grace", "100ms"]);
    let mut client = Client::connect(it.address());
    client.get("/");
    it.ask(&["reload"]).assert(0, &[]);
    it.server.wait_state(1, "draining");
    it.ask(&["stop"]).assert(0, &["told generation 1", "told generation 2"]);
    assert_gone(&it);
    client.wait_closed();
}

#[test]
fn a_stop_with_now_cuts_open_connections_in_standby_too() {
    let it = Operated::start(&["--standby", "1h", "--stop-idle-grace", "1h", "--stop-timeout", "1h"]);
    let mut old = Client::connect(it.address());
    old.get("/");
    it.ask(&["reload"]).assert(0, &[]);
    let mut new = Client::connect(it.address());
    new.get("/");
    let asked = Instant::now();
    it.ask(&["stop", "--now"]).assert(0, &["to stop at once", "no generation is left"]);
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert_gone(&it);
}
