//! What starts and watches the process in front: a small init, supervisord, runit. And what is left when it is killed.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;

use super::{as_pid_1, children, site, supervised, wait_gone, wait_in_front};
use crate::faults::wait_said;
use crate::harness::{
    Client, HANDOVER, QUICK, Traffic, example, get, is_alive, playground, skip, wait_until,
};
use crate::process::{Line, Server, command, signal};
use crate::sandbox::{self, Refused};

#[test]
fn behind_a_small_init_one_process_stays_in_front_by_default() {
    let Some(mut unshare) = as_pid_1() else { return };
    // As tini does: it waits for the process that it has started, and leaves with its status.
    unshare.args(["sh", "-c", "\"$@\" & trap 'kill $!' TERM; wait $!; wait $!", "sh", HANDOVER]);
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(site(unshare, &dir, &["--stop-idle-grace", "200ms"]));
    wait_in_front(&server);
    let init = children(server.first_pid())[0];
    let traffic = Traffic::fresh(&server);
    for generation in 1..=2 {
        signal(children(init)[0], Signal::SIGHUP);
        server.wait_serving(generation + 1);
        server.wait_state(generation, "draining");
        server.wait_retired(generation);
    }
    traffic.stop_lossless(&server);
    signal(children(init)[0], Signal::SIGTERM);
    assert_eq!(server.first_exit().code(), Some(0), "{}", server.log().history());
    wait_gone(&server);
}

#[test]
fn generations_whose_front_is_killed_finish_their_requests_and_leave() {
    let server = Server::start(supervised(&["--stop-idle-grace", "200ms"]));
    let front = server.first_pid();
    signal(front, Signal::SIGHUP);
    let second = server.wait_serving(2);
    server.wait_state(1, "draining");
    let mut client = Client::connect(server.address());
    client.send("/slow?ms=1000");
    wait_until("the request has arrived", &server, || get(server.address(), "/").contains("generation=2"));
    signal(front, Signal::SIGKILL);
    wait_said(&server, second, "the process in front is gone");
    // Whoever watches it may start another one before they have left.
    wait_until("the address is free", &server, || std::net::TcpStream::connect(server.address()).is_err());
    let mut next = command(example("playground"));
    next.args(["--listen", &server.address().to_string(), "--log-format", "json", "--supervise"]);
    let next = Server::start(next);
    assert_eq!(next.address(), server.address());
    assert!(client.answer().contains("generation=2 "), "the request under way was cut");
    let gone = || server.alive().into_iter().all(|pid| pid == front);
    wait_until("all have left", &server, gone);
}

/// One line for each process that says that it is in front.
fn fronts(server: &Server) -> Vec<u32> {
    let lines = server.log().lines();
    lines.iter().filter(|line| line.message().starts_with("in front of the")).map(Line::pid).collect()
}

/// Kills the process in front, and expects whoever watches it to start another one that serves.
fn assert_comes_back(server: &Server) {
    let front = server.log().wait_for("in front of the generations").pid();
    server.wait_serving(1);
    signal(front, Signal::SIGHUP);
    let second = server.wait_serving(2);
    server.wait_state(1, "draining");
    let address = server.address();
    signal(front, Signal::SIGKILL);
    let serves = |line: &Line| line.generation() == 1 && line.message().starts_with("serving");
    wait_until("another one serves", server, || {
        server.log().lines().iter().filter(|line| serves(line)).count() == 2
    });
    assert!(get(address, "/").contains("generation=1 "));
    wait_until("the orphan has left", server, || !is_alive(second));
    let next = *fronts(server).last().expect("one");
    signal(next, Signal::SIGHUP);
    wait_until("the next one hands over", server, || {
        let took = |line: &Line| line.generation() == 2 && line.message().starts_with("serving");
        server.log().lines().iter().filter(|line| took(line)).count() == 2
    });
    println!("{} processes in front until one served", fronts(server).len() - 1);
    assert!(get(address, "/").contains("generation=2 "));
}

/// An address that nobody has at the moment, because a manager starts the same command each time.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

#[test]
fn supervisord_starts_a_front_that_was_killed_again() {
    if !command("supervisord").arg("--version").stderr(Stdio::null()).status().is_ok_and(|s| s.success()) {
        return skip("no supervisord here");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("supervisord.conf");
    let mut file = std::fs::File::create(&config).expect("writable");
    let program = example("playground");
    let address = free_address();
    let place = dir.path().display();
    writeln!(
        file,
        "[supervisord]\nnodaemon=true\nlogfile={place}/log\npidfile={place}/pid\n\n[program:site]\n\
         command={} {} --listen {address} --supervise --stop-idle-grace 100ms\nautorestart=true\nstartsecs=1\n\
         stdout_logfile=NONE\nstderr_logfile=/dev/stderr\nstderr_logfile_maxbytes=0",
        program.display(),
        QUICK[2..].join(" ")
    )
    .expect("writable");
    drop(file);
    let mut manager = command("supervisord");
    manager.arg("--configuration").arg(&config);
    let mut server = Server::launch(manager);
    assert_comes_back(&server);
    let log = std::fs::read_to_string(dir.path().join("log")).expect("its log");
    assert!(!log.contains("FATAL"), "{log}");
    signal(server.first_pid(), Signal::SIGTERM);
    server.first_exit();
    wait_gone(&server);
}

fn executable(path: &Path, text: &str) {
    std::fs::write(path, text).expect("writable");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("ours");
}

#[test]
fn runit_starts_a_front_that_was_killed_again() {
    let there = command("sh").args(["-c", "command -v runsv >/dev/null"]).status();
    if !there.is_ok_and(|status| status.success()) {
        return skip("no runit here");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let address = free_address();
    let script = format!(
        "#!/bin/sh\nexec {} {} --listen {address} --supervise --stop-idle-grace 100ms\n",
        example("playground").display(),
        QUICK[2..].join(" ")
    );
    executable(&dir.path().join("run"), &script);
    let mut manager = command("runsv");
    manager.arg(dir.path());
    let mut server = Server::launch(manager);
    assert_comes_back(&server);
    signal(server.first_pid(), Signal::SIGTERM);
    server.first_exit();
    wait_gone(&server);
}

#[test]
fn where_no_process_can_be_held_a_front_does_not_start_and_says_why() {
    let mut server = sandbox::launch(supervised(&[]), Refused::PidfdOpen);
    assert_eq!(server.first_exit().code(), Some(1));
    assert!(server.log().history().contains("Pidfd"), "{}", server.log().history());
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = sandbox::launch(site(command(HANDOVER), &dir, &["--supervise"]), Refused::PidfdOpen);
    assert_eq!(server.first_exit().code(), Some(1));
    server
        .log()
        .wait_for("cannot hold a process by pidfd_open(2): function not implemented; a restart needs it");
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
