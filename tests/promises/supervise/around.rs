//! The supervisor under a small init, and the state that a killed supervisor leaves behind.

use std::process::Command;

use nix::sys::signal::Signal;
use support::harness::{Client, Traffic, example, get, playground, skip, wait_until};
use support::process::{RUNTIME, Server, command, signal};

use super::{as_pid_1, children, site, supervised, wait_gone, wait_in_front};
use crate::HANDOVER;
use crate::faults::wait_said;
use crate::sandbox::{self, Refused};

#[test]
fn behind_a_small_init_a_supervisor_stays_by_default() {
    let Some(unshare) = as_pid_1() else { return };
    // Like tini, this script waits for the process that it has started, and exits with its status.
    assert_stays(unshare, &["sh", "-c", "\"$@\" & trap 'kill $!' TERM; wait $!; wait $!", "sh"]);
}

/// Runs the test under a real init, if it is installed.
fn behind(init: &[&str]) {
    let Some(unshare) = as_pid_1() else { return };
    let there = command("sh").args(["-c", "command -v \"$0\" >/dev/null", init[0]]).status();
    if !there.is_ok_and(|status| status.success()) {
        return skip(&format!("no {} here", init[0]));
    }
    assert_stays(unshare, init);
}

#[test]
fn behind_tini_a_supervisor_stays_by_default() {
    behind(&["tini", "--"]);
}

#[test]
fn behind_dumb_init_a_supervisor_stays_by_default() {
    behind(&["dumb-init", "--"]);
}

/// With `--unshare-pid`, bwrap itself is pid 1 of the namespace and starts the server.
#[test]
fn behind_bwrap_a_supervisor_stays_by_default() {
    let mut bwrap = command("bwrap");
    bwrap.args([
        "--bind",
        "/",
        "/",
        "--dev",
        "/dev",
        "--proc",
        "/proc",
        "--unshare-pid",
        "--die-with-parent",
    ]);
    let mut tried = command("sh");
    tried.args(["-c", "\"$@\" 2>/dev/null", "sh", "bwrap"]).args(bwrap.get_args()).arg("true");
    if !tried.status().is_ok_and(|status| status.success()) {
        return skip("no bwrap here, or no namespaces for it");
    }
    let dir = tempfile::tempdir().expect("a directory");
    bwrap.arg(HANDOVER);
    let mut server = Server::start(site(bwrap, &dir, &["--stop-idle-grace", "200ms"]));
    wait_in_front(&server);
    // The chain of processes: bwrap outside, its init inside, the supervisor, the generation.
    let inside = children(children(server.first_pid())[0])[0];
    assert_restarts(&server, || inside);
    signal(inside, Signal::SIGTERM);
    assert_eq!(server.first_exit().code(), Some(0), "{}", server.log().history());
    wait_gone(&server);
}

/// Starts the server under `init` as pid 1, restarts it by a signal to the child of the init, and stops it by a signal to
/// the init.
fn assert_stays(mut unshare: Command, init: &[&str]) {
    unshare.args(init).arg(HANDOVER);
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(site(unshare, &dir, &["--stop-idle-grace", "200ms"]));
    wait_in_front(&server);
    let init = children(server.first_pid())[0];
    assert_restarts(&server, || children(init)[0]);
    signal(init, Signal::SIGTERM);
    assert_eq!(server.first_exit().code(), Some(0), "{}", server.log().history());
    wait_gone(&server);
}

fn assert_restarts(server: &Server, front: impl Fn() -> u32) {
    let traffic = Traffic::fresh(server);
    for generation in 1..=2 {
        signal(front(), Signal::SIGHUP);
        server.wait_serving(generation + 1);
        server.wait_state(generation, "draining");
        server.wait_retired(generation);
    }
    traffic.stop_lossless(server);
}

/// A killed supervisor leaves a directory with its socket, which the next supervisor removes.
#[test]
fn the_directory_of_a_supervisor_that_was_killed_is_removed_by_the_next() {
    let dir = tempfile::tempdir().expect("a directory");
    let fronts = || {
        let entries = std::fs::read_dir(dir.path()).expect("readable").flatten();
        entries.filter(|one| one.file_name().to_string_lossy().starts_with("handover-supervisor-")).count()
    };
    let start = || {
        let mut started = supervised(&[]);
        started.env(RUNTIME, dir.path());
        Server::start(started)
    };
    let first = start();
    let second = start();
    assert_eq!(fronts(), 2, "the directory of a live supervisor stays");
    drop(first);
    drop(second);
    let _third = start();
    assert_eq!(fronts(), 1);
}

#[test]
fn generations_whose_supervisor_is_killed_finish_their_requests_and_leave() {
    let server = Server::start(supervised(&["--stop-idle-grace", "200ms"]));
    let front = server.first_pid();
    signal(front, Signal::SIGHUP);
    let second = server.wait_serving(2);
    server.wait_state(1, "draining");
    let mut client = Client::connect(server.address());
    client.send("/slow?ms=1000");
    wait_until("the request has arrived", &server, || get(server.address(), "/").contains("generation=2"));
    signal(front, Signal::SIGKILL);
    wait_said(&server, second, "the supervisor is gone");
    // A service manager may start another supervisor before the old generations have left.
    wait_until("the address is free", &server, || std::net::TcpStream::connect(server.address()).is_err());
    let mut next = command(example("playground"));
    next.args(["--listen", &server.address().to_string(), "--log-format", "json", "--supervise"]);
    let next = Server::start(next);
    assert_eq!(next.address(), server.address());
    assert!(client.answer().contains("generation=2 "), "the request in flight was cut");
    let gone = || server.alive().into_iter().all(|pid| pid == front);
    wait_until("all have left", &server, gone);
}

#[test]
fn where_no_process_can_be_held_a_supervisor_does_not_start_and_says_why() {
    let mut server = sandbox::launch(supervised(&[]), Refused::PidfdOpen);
    assert_eq!(server.first_exit().code(), Some(1));
    server.log().wait_for("Pidfd");
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = sandbox::launch(site(command(HANDOVER), &dir, &["--supervise"]), Refused::PidfdOpen);
    assert_eq!(server.first_exit().code(), Some(1));
    server.log().wait_for(
        "cannot hold a process by pidfd_open(2): function not implemented; a restart needs Linux 5.3",
    );
}

#[test]
fn where_no_process_can_be_held_a_server_serves_and_a_restart_is_refused_with_the_reason() {
    let mut server = sandbox::launch(playground(&[]), Refused::PidfdOpen);
    server.wait_serving(1);
    signal(server.first_pid(), Signal::SIGHUP);
    server.log().wait_for("handover failed: cannot hold a process by pidfd_open(2)");
    assert!(get(server.address(), "/").contains("generation=1 "));
    signal(server.first_pid(), Signal::SIGTERM);
    assert!(server.first_exit().success());
}
