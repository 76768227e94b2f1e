//! A generation dies: the service continues if another generation can serve, and ends otherwise.

use nix::sys::signal::Signal;
use support::harness::{Client, Faulty, get, is_alive, wait_until};
use support::process::{Server, signal};

use super::{number, supervised, wait_gone};

const HEALED: &str = "its successor stands for the service";

#[test]
fn a_death_in_standby_leaves_the_service_to_the_successor() {
    let server = Server::start(supervised(&["--standby", "1h"]));
    let (front, first) = (server.first_pid(), server.wait_serving(1));
    signal(front, Signal::SIGHUP);
    server.wait_serving(2);
    server.wait_state(1, "standby");
    signal(first, Signal::SIGKILL);
    server.log().wait_for(HEALED);
    assert!(get(server.address(), "/").contains("generation=2 "));
    signal(front, Signal::SIGHUP);
    server.wait_serving(3);
    assert!(is_alive(front));
}

#[test]
fn a_death_while_the_successor_starts_leaves_the_service_to_it_and_a_hup_meanwhile_is_not_lost() {
    let faulty = Faulty::start(&["--supervise"]);
    let server = &faulty.server;
    let (front, first) = (server.first_pid(), server.wait_serving(1));
    faulty.next_is("slow-start=700");
    signal(front, Signal::SIGHUP);
    let successor = number(&server.log().wait_for("successor started"), "successor");
    signal(first, Signal::SIGKILL);
    server.log().wait_for(HEALED);
    faulty.next_is("");
    signal(front, Signal::SIGHUP);
    server.log().wait("the successor serves", |line| {
        (line.pid() == successor && line.message().starts_with("serving")).then_some(())
    });
    server.log().wait("the restart comes too", |line| {
        let serves = line.message().starts_with("serving");
        (serves && ![first, successor].contains(&line.pid())).then_some(())
    });
    assert!(is_alive(front));
}

#[test]
fn a_restart_that_was_passed_to_a_generation_that_dies_comes_from_the_next_one() {
    let server = Server::start(supervised(&["--standby", "1h"]));
    let (front, first) = (server.first_pid(), server.wait_serving(1));
    signal(front, Signal::SIGHUP);
    server.wait_serving(2);
    server.wait_state(1, "standby");
    signal(first, Signal::SIGSTOP);
    let says = |what: &str| {
        let status = std::fs::read_to_string(format!("/proc/{first}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with(what))
    };
    // When the process is resumed, the kernel delivers the pending signal with the lowest number first.
    wait_until("the first generation is suspended", &server, || says("State:\tT"));
    signal(front, Signal::SIGHUP);
    let pending = || says("ShdPnd:\t0000000000000001");
    wait_until("the restart is passed on", &server, pending);
    signal(first, Signal::SIGKILL);
    server.wait_serving(3);
}

#[test]
fn the_successor_dies_and_the_old_generation_still_stands_for_the_service() {
    let server = Server::start(supervised(&["--standby", "1h"]));
    let front = server.first_pid();
    signal(front, Signal::SIGHUP);
    let second = server.wait_serving(2);
    server.wait_state(1, "standby");
    signal(second, Signal::SIGKILL);
    server.log().wait_for("this generation serves again");
    assert!(get(server.address(), "/").contains("generation=1 "));
    signal(front, Signal::SIGHUP);
    server.log().wait("another one takes over", |line| {
        (line.generation() == 2 && line.pid() != second && line.message().starts_with("serving"))
            .then_some(())
    });
}

#[test]
fn a_death_without_successor_ends_the_service_with_its_status() {
    let mut server = Server::start(supervised(&[]));
    signal(server.wait_serving(1), Signal::SIGKILL);
    assert_eq!(server.first_exit().code(), Some(137));
    server.log().wait_for("the service has ended; the supervisor does not restart it");
    wait_gone(&server);
}

#[test]
fn a_death_is_not_waited_out_by_the_generation_that_still_drains() {
    let flags = ["--idle-grace", "1h", "--drain-timeout", "1h", "--stop-idle-grace", "100ms"];
    let mut server = Server::start(supervised(&flags));
    let mut client = Client::connect(server.address());
    client.get("/");
    signal(server.first_pid(), Signal::SIGHUP);
    let second = server.wait_serving(2);
    server.wait_state(1, "draining");
    signal(second, Signal::SIGKILL);
    // The parent of the second generation is the first, which reaps it, so no other process learns its exit status.
    assert_eq!(server.first_exit().code(), Some(1), "{}", server.log().history());
    client.wait_closed();
    wait_gone(&server);
}

#[test]
fn a_later_generation_that_is_adopted_leaves_its_status() {
    let mut server = Server::start(supervised(&[]));
    signal(server.first_pid(), Signal::SIGHUP);
    let second = server.wait_serving(2);
    server.wait_retired(1);
    wait_until("the first one is gone", &server, || server.alive().len() == 2);
    signal(second, Signal::SIGKILL);
    assert_eq!(server.first_exit().code(), Some(137), "{}", server.log().history());
}

#[test]
fn a_start_that_fails_makes_the_supervisor_fail_and_says_why() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let flags = ["--supervise", "--listen", &address];
    let mut server = Server::launch(super::site(super::binary(), &dir, &flags));
    assert_eq!(server.first_exit().code(), Some(1));
    server.log().wait_for(&format!("cannot listen on {address}: address in use"));
}
