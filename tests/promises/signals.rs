//! Signals: the sender of a signal decides what it means, and no signal is lost.

use nix::sys::signal::Signal;
use support::harness::{QUICK, Traffic, example, get, start, wait_until};
use support::process::{Server, command, signal};

use crate::HANDOVER;

mod between;
mod early;
mod mask;
mod namespaces;
mod protocol;
mod terminal;

/// Suspends a process with SIGSTOP, and waits until the kernel reports it as stopped.
fn stopped(server: &Server, pid: u32) {
    signal(pid, Signal::SIGSTOP);
    wait_until("the process is suspended", server, || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:\tT"))
    });
}

fn while_stopped(server: &Server, pid: u32, happens: impl FnOnce()) {
    stopped(server, pid);
    happens();
    signal(pid, Signal::SIGCONT);
}

fn generations(server: &Server) -> usize {
    server.log().lines().iter().filter(|line| line.message().starts_with("serving")).count()
}

#[test]
fn usr2_restarts_as_hup_does() {
    let server = start(&[]);
    signal(server.first_pid(), Signal::SIGUSR2);
    server.wait_serving(2);
    server.wait_state(1, "draining");
}

#[test]
fn a_burst_of_hups_becomes_one_restart_and_one_more() {
    let server = start(&[]);
    let traffic = Traffic::fresh(&server);
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_state(1, "spawning");
    for _ in 0..10 {
        signal(server.first_pid(), Signal::SIGHUP);
    }
    server.wait_serving(3);
    server.wait_state(2, "draining");
    traffic.stop_lossless(&server);
    assert_eq!(generations(&server), 3, "{}", server.log().history());
}

#[test]
fn a_hup_during_standby_waits_for_its_end_and_gets_its_own_generation() {
    let server = start(&["--standby", "1s"]);
    signal(server.first_pid(), Signal::SIGHUP);
    let second = server.wait_serving(2);
    server.wait_state(1, "standby");
    signal(server.first_pid(), Signal::SIGHUP);
    signal(second, Signal::SIGHUP);
    server.log().wait_for("restart queued");
    server.wait_serving(3);
    server.wait_state(2, "draining");
    assert_eq!(generations(&server), 3, "{}", server.log().history());
}

#[test]
fn a_hup_while_the_first_generation_starts_is_not_lost() {
    let server = Server::launch(support::harness::playground(&["-v", "--fault", "slow-start=500"]));
    server.log().wait_for("not ready yet");
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_serving(2);
}

#[test]
fn a_generation_that_is_stopped_while_it_starts_never_takes_over() {
    let server = Server::launch(support::harness::playground(&["-v", "--fault", "slow-start=600"]));
    let listening = server.log().wait_for("not ready yet");
    let address = listening.json["listen"].as_str().and_then(|a| a.parse().ok()).expect("an address");
    let mut client = support::harness::Client::connect(address);
    client.send("/slow?ms=1200");
    wait_until("the request has arrived", &server, || get(address, "/").contains("generation=1"));
    signal(server.first_pid(), Signal::SIGTERM);
    assert!(client.answer().contains("generation=1 "));
    server.log().wait_for("stopped");
    assert_eq!(generations(&server), 0, "{}", server.log().history());
}

#[test]
fn a_term_to_a_starting_successor_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let fault = dir.path().join("fault");
    let server = start(&["-v", "--fault-file", fault.to_str().expect("UTF-8")]);
    std::fs::write(&fault, "hang-before-ready").expect("writable");
    signal(server.first_pid(), Signal::SIGHUP);
    let successor = server.log().wait("the successor listens", |line| {
        (line.generation() == 2 && line.message().contains("not ready yet")).then(|| line.pid())
    });
    signal(successor, Signal::SIGTERM);
    server.log().wait_for("handover failed");
    std::fs::write(&fault, "").expect("writable");
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_serving(2);
}

#[test]
fn a_term_that_the_child_did_not_send_is_a_stop() {
    let mut server = start(&["--standby", "2s"]);
    signal(server.first_pid(), Signal::SIGTERM);
    assert!(server.first_exit().success());
    server.log().wait_for("stopped");
}

#[test]
fn a_term_while_a_successor_starts_stops_both() {
    let dir = tempfile::tempdir().expect("a directory");
    let fault = dir.path().join("fault");
    let mut server = start(&["--fault-file", fault.to_str().expect("UTF-8")]);
    std::fs::write(&fault, "hang-before-ready").expect("writable");
    signal(server.first_pid(), Signal::SIGHUP);
    let successor = server.log().wait_for("successor started").json["successor"].as_u64().expect("a pid");
    signal(server.first_pid(), Signal::SIGTERM);
    assert!(server.first_exit().success());
    let successor = u32::try_from(successor).expect("a pid");
    assert!(!support::harness::is_alive(successor), "{}", server.log().history());
}

#[test]
fn a_term_to_the_old_or_the_new_generation_in_standby_stops_the_service() {
    for to_the_old_one in [true, false] {
        let mut server = start(&["--standby", "3s"]);
        signal(server.first_pid(), Signal::SIGHUP);
        let second = server.wait_serving(2);
        server.wait_state(1, "standby");
        signal(if to_the_old_one { server.first_pid() } else { second }, Signal::SIGTERM);
        assert!(server.first_exit().success(), "{}", server.log().history());
        wait_until("both have left", &server, || !support::harness::is_alive(second));
    }
}

#[test]
fn ctrl_c_reaches_both_generations_and_is_one_request_to_stop() {
    let mut server = start(&["--standby", "2s"]);
    signal(server.first_pid(), Signal::SIGHUP);
    let second = server.wait_serving(2);
    server.wait_state(1, "standby");
    let mut client = support::harness::Client::connect(server.address());
    client.send("/slow?ms=800");
    wait_until("the request has arrived", &server, || get(server.address(), "/").contains("generation=2"));
    signal(server.first_pid(), Signal::SIGINT);
    signal(second, Signal::SIGINT);
    assert!(client.answer().contains("generation=2 "), "the request in flight was cut");
    assert!(server.first_exit().success());
}

#[test]
fn quit_is_left_alone() {
    use std::os::unix::process::ExitStatusExt;
    // A shell starts a background process with SIGQUIT ignored.
    let mut program = command("env");
    program.arg("--default-signal=QUIT").arg(example("playground")).args(QUICK);
    let mut server = Server::start(program);
    signal(server.first_pid(), Signal::SIGQUIT);
    assert_eq!(server.first_exit().signal(), Some(3));
}

#[test]
fn the_binary_says_how_to_restart_it() {
    let mut page = command(HANDOVER);
    page.args(QUICK);
    let server = Server::start(page);
    let pid = server.first_pid();
    let first = server.log().lines().first().expect("a line").clone();
    assert!(first.message().contains(&format!("kill -HUP {pid}")), "{}", first.text);
    assert!(get(server.address(), "/").contains(&format!("generation 1, pid {pid}")));
}
