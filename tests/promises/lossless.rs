//! Nothing is lost while everything works.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::harness::{Client, Traffic, get, hand_over, start};
use support::load::Clients;
use support::process::{Server, signal};

/// Hands over `times` times, each time as soon as the previous handover allows.
fn hand_over_again_and_again(server: &Server, times: u64) {
    (1..=times).fold(server.first_pid(), |pid, generation| hand_over(server, generation, pid));
}

#[test]
fn fresh_connections_lose_nothing_over_ten_handovers() {
    let server = start(&[]);
    let traffic = Traffic::start(server.address(), Clients::Fresh, 32);
    hand_over_again_and_again(&server, 10);
    let report = traffic.stop_lossless(&server);
    assert_eq!(report.first_answers().len(), 11, "every generation served");
}

#[test]
fn keep_alive_clients_lose_nothing_over_ten_handovers() {
    let server = start(&[]);
    let pause = Duration::from_millis(10);
    let busy = Traffic::start(server.address(), Clients::KeepAlive { pause: Duration::ZERO }, 16);
    let pausing = Traffic::start(server.address(), Clients::KeepAlive { pause }, 64);
    hand_over_again_and_again(&server, 10);
    busy.stop_lossless(&server);
    pausing.stop_lossless(&server);
}

#[test]
fn every_new_connection_goes_to_the_successor_from_the_flip_on() {
    let server = start(&["--standby", "2s"]);
    let traffic = Traffic::fresh(&server);
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_state(1, "standby");
    let after_the_flip = Instant::now();
    server.wait_state(1, "draining");
    let report = traffic.stop_lossless(&server);
    let late = report.samples.iter().filter(|s| s.at > after_the_flip && s.generation == 1).count();
    assert_eq!(late, 0, "the old generation answered new connections");
}

#[test]
fn a_successor_gets_nothing_before_it_is_ready() {
    let dir = tempfile::tempdir().expect("a directory");
    let fault = dir.path().join("fault");
    let server = start(&["--fault-file", fault.to_str().expect("UTF-8")]);
    std::fs::write(&fault, "slow-start=700").expect("writable");
    let traffic = Traffic::fresh(&server);
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_state(1, "spawning");
    server.wait_serving(2);
    let flipped = Instant::now();
    let report = traffic.stop_lossless(&server);
    let early = report
        .samples
        .iter()
        .filter(|s| s.generation == 2 && s.at + s.took + Duration::from_millis(300) < flipped);
    assert_eq!(early.count(), 0, "the successor answered while it was starting");
}

#[test]
fn several_addresses_of_both_families_move_together() {
    let server = start(&["--listen", "127.0.0.1:0", "--listen", "[::1]:0"]);
    let before = server.addresses(1);
    assert_eq!(before.len(), 3, "{before:?}");
    let traffic: Vec<_> = before.iter().map(|addr| Traffic::start(*addr, Clients::Fresh, 4)).collect();
    hand_over_again_and_again(&server, 2);
    assert_eq!(server.addresses(2), before, "the ports that were picked for :0 stay");
    traffic.into_iter().for_each(|t| drop(t.stop_lossless(&server)));
    for addr in before {
        assert!(get(addr, "/").contains("generation=3"), "{addr} was not handed over");
        assert!(get(addr, "/addresses").contains(&format!("local={addr}")));
    }
}

#[test]
fn a_request_that_takes_long_is_answered_by_the_generation_that_got_it() {
    let server = start(&[]);
    let mut client = Client::connect(server.address());
    client.send("/slow?ms=1500");
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_state(1, "draining");
    let answer = client.answer();
    assert!(answer.contains("generation=1 ") && answer.contains("connection: close"), "{answer}");
    client.wait_closed();
    let retired = server.log().wait_for("retired");
    assert_eq!((retired.json["finished"].as_u64(), retired.json["cut"].as_u64()), (Some(1), Some(0)));
}
