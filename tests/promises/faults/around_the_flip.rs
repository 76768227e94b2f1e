//! One of two generations is killed or stopped around the flip, the moment at which new connections go to the successor.
//!
//! A successor listens, is ready after [`WARM_UP`], flips and signals. A test cannot stop it exactly between the flip and
//! the signal, so each test interferes at random moments, which are the same in each run.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::harness::{Client, Traffic, get, start};
use support::process::{Server, signal};

use crate::faults::{assert_lost_at_most, assert_next_restart, restart, wait_buried, wait_is, wait_said};

const WARM_UP: &str = "slow-start=4";
/// The longest random delay after the moment at which the successor listens, in microseconds.
const WITHIN: u64 = 14_000;
const KILLS: u64 = 30;

/// Starts a successor, waits until it listens, and then for a random delay.
fn successor_around_the_flip(server: &Server, leader: u32, random: &mut fastrand::Rng) -> u32 {
    let child = restart(server, leader);
    wait_said(server, child, "not ready yet");
    std::thread::sleep(Duration::from_micros(random.u64(0..WITHIN)));
    child
}

#[test]
fn a_parent_that_is_killed_around_the_flip_leaves_a_successor_that_serves_alone() {
    let server = start(&["-v", "--standby", "10s", "--fault", WARM_UP]);
    let traffic = Traffic::fresh(&server);
    let mut random = fastrand::Rng::with_seed(2);
    let mut leader = server.first_pid();
    for _ in 0..KILLS {
        let child = successor_around_the_flip(&server, leader, &mut random);
        signal(leader, Signal::SIGKILL);
        wait_said(&server, child, "serving");
        assert!(get(server.address(), "/").contains(&format!("pid={child}")));
        leader = child;
    }
    assert_next_restart_after_standby(&server, leader);
    let report = assert_lost_at_most(&server, traffic, KILLS);
    let said = |text| server.log().lines().iter().filter(|line| line.message().contains(text)).count();
    println!(
        "{} before the flip, {} until the signal, {} requests, {:?}",
        said("serving; ") - 1 - said("died before it could retire"),
        said("died before it could retire"),
        report.samples.len(),
        report.failures()
    );
}

#[test]
fn a_successor_that_is_killed_around_the_flip_leaves_the_service_to_its_parent() {
    let server = start(&["-v", "--standby", "10s", "--fault", WARM_UP]);
    let traffic = Traffic::fresh(&server);
    let mut random = fastrand::Rng::with_seed(3);
    let leader = server.first_pid();
    let mut before = 0;
    for _ in 0..KILLS {
        let child = successor_around_the_flip(&server, leader, &mut random);
        signal(child, Signal::SIGKILL);
        let buried = wait_buried(&server, child);
        before += u64::from(buried.message().starts_with("handover failed"));
        assert!(get(server.address(), "/").contains(&format!("pid={leader}")), "{}", server.log().history());
    }
    assert_next_restart_after_standby(&server, leader);
    let report = assert_lost_at_most(&server, traffic, KILLS);
    println!(
        "{before} of {KILLS} before the signal, {} requests, {:?}",
        report.samples.len(),
        report.failures()
    );
}

/// Like `assert_next_restart`, but does not wait for the end of a long standby.
fn assert_next_restart_after_standby(server: &Server, leader: u32) {
    let child = restart(server, leader);
    wait_said(server, child, "serving, took over");
    wait_is(server, leader, "standby");
}

/// Stops (SIGSTOP) the old or the new generation for a while in each round, and asserts that nothing is lost.
fn assert_outlives_a_stop(the_old_one: bool, seed: u64) {
    let server = start(&["-v", "--fault", WARM_UP]);
    let traffic = Traffic::fresh(&server);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut leader = server.first_pid();
    // The longest pause is where clients wait for the stopped process: around the flip for the old one, after it for the new.
    let (around, after) = if the_old_one { (10_000, 2000) } else { (3000, 10_000) };
    // Each pause is longer than standby.
    for pause in [400, 400, 400, 400, 400, around] {
        let child = successor_around_the_flip(&server, leader, &mut random);
        let stopped = if the_old_one { leader } else { child };
        signal(stopped, Signal::SIGSTOP);
        std::thread::sleep(Duration::from_millis(pause));
        signal(stopped, Signal::SIGCONT);
        wait_is(&server, leader, "draining");
        leader = child;
    }
    // The last stop is certainly after the flip: a stopped successor lets connections wait, and a predecessor gets none.
    let child = restart(&server, leader);
    wait_said(&server, child, "serving, took over");
    let stopped = if the_old_one { leader } else { child };
    signal(stopped, Signal::SIGSTOP);
    if the_old_one {
        assert!(get(server.address(), "/").contains(&format!("pid={child}")));
    }
    std::thread::sleep(Duration::from_millis(after));
    signal(stopped, Signal::SIGCONT);
    wait_is(&server, leader, "draining");
    assert_next_restart(&server, child);
    let report = traffic.stop_lossless(&server);
    println!("{} requests, slowest {:?}", report.samples.len(), report.samples.iter().map(|s| s.took).max());
}

#[test]
fn a_predecessor_that_is_stopped_for_seconds_around_the_flip_loses_nothing() {
    assert_outlives_a_stop(true, 4);
}

#[test]
fn a_successor_that_is_stopped_for_seconds_around_the_flip_loses_nothing() {
    assert_outlives_a_stop(false, 5);
}

#[test]
fn connections_queued_at_a_predecessor_that_is_stopped_for_ten_seconds_are_answered_by_it() {
    // Without standby the predecessor has to close its listener as soon as it runs again.
    let server = start(&["-v", "--standby", "0s", "--fault", "slow-start=2000"]);
    let traffic = Traffic::fresh(&server);
    let leader = server.first_pid();
    let child = restart(&server, leader);
    wait_said(&server, child, "not ready yet");
    signal(leader, Signal::SIGSTOP);
    let stopped = Instant::now();
    let mut waiting: Vec<_> = (0..300).map(|_| Client::connect(server.address())).collect();
    for client in &mut waiting {
        client.send("/");
    }
    wait_said(&server, child, "serving, took over");
    assert!(get(server.address(), "/").contains(&format!("pid={child}")));
    std::thread::sleep(Duration::from_secs(10).saturating_sub(stopped.elapsed()));
    signal(leader, Signal::SIGCONT);
    for (n, client) in waiting.iter_mut().enumerate() {
        let answer = client.answer();
        assert!(answer.contains("generation=1 "), "connection {n}: {answer}");
    }
    drop(waiting);
    server.wait_retired(1);
    assert_eq!(server.log().wait_for("retired").json["cut"], 0, "{}", server.log().history());
    assert_next_restart(&server, child);
    let report = traffic.stop_lossless(&server);
    println!("{} requests, slowest {:?}", report.samples.len(), report.samples.iter().map(|s| s.took).max());
}
