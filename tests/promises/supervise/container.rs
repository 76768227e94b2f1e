//! The server as pid 1 of a pid namespace, which is how a process in a container runs.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::harness::{Client, QUICK, Traffic, example, get, wait_until};
use support::load::Clients;
use support::process::{Server, signal};

use super::{as_pid_1, children, front, site, wait_gone};
use crate::HANDOVER;

#[test]
fn pid_1_hands_over_three_times_under_load_and_leaves_with_status_0() {
    let Some(mut unshare) = as_pid_1() else { return };
    unshare.arg(HANDOVER);
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(site(unshare, &dir, &["--stop-idle-grace", "200ms"]));
    server.log().wait_for("`kill -HUP 1` restarts");
    let front = front(&server);
    let fresh = Traffic::fresh(&server);
    let pause = Duration::from_millis(5);
    let kept = Traffic::start(server.address(), Clients::KeepAlive { pause }, 16);
    for generation in 1..=3 {
        signal(front, Signal::SIGHUP);
        server.wait_serving(generation + 1);
        server.wait_state(generation, "draining");
    }
    let reports = [fresh.stop_lossless(&server), kept.stop_lossless(&server)];
    println!("{} requests, 0 failed, 3 handovers", reports.iter().map(|r| r.samples.len()).sum::<usize>());
    wait_until("the earlier generations have left and are reaped", &server, || children(front).len() == 1);
    signal(front, Signal::SIGTERM);
    assert_eq!(server.first_exit().code(), Some(0), "{}", server.log().history());
    wait_gone(&server);
}

#[test]
fn pid_1_reaps_the_orphans_of_others() {
    let Some(mut unshare) = as_pid_1() else { return };
    let orphans = "for _ in 1 2 3 4 5; do (sleep 0.3 &); done; exec \"$0\" \"$@\"";
    unshare.args(["sh", "-c", orphans, HANDOVER]);
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(site(unshare, &dir, &[]));
    let front = front(&server);
    wait_until("the orphans have ended and are reaped", &server, || children(front).len() == 1);
    assert!(get(server.address(), "/").contains("generation=1 "));
}

/// The flags are those of examples/Dockerfile.
#[test]
fn the_ten_seconds_of_a_container_runtime_are_enough_although_clients_hold_their_connections() {
    let Some(mut unshare) = as_pid_1() else { return };
    unshare.arg(example("playground")).args(QUICK).arg("--supervise");
    let mut server = Server::start({
        unshare.args(["--stop-timeout", "8s", "--stop-idle-grace", "2s", "--drain-timeout", "1h"]);
        unshare
    });
    let front = front(&server);
    let mut old = Client::connect(server.address());
    old.send("/slow?ms=600000");
    wait_until("the request has arrived", &server, || get(server.address(), "/").contains("generation=1"));
    signal(front, Signal::SIGHUP);
    server.wait_serving(2);
    server.wait_state(1, "draining");
    let mut new = Client::connect(server.address());
    new.send("/slow?ms=600000");
    wait_until("the request has arrived", &server, || get(server.address(), "/").contains("generation=2"));
    let told = Instant::now();
    signal(front, Signal::SIGTERM);
    assert_eq!(server.first_exit().code(), Some(0), "{}", server.log().history());
    wait_gone(&server);
    assert!(told.elapsed() < Duration::from_secs(10), "it took {:?}", told.elapsed());
    drop((old, new));
}

#[test]
fn pid_1_without_a_supervisor_serves_and_refuses_a_restart() {
    let Some(mut unshare) = as_pid_1() else { return };
    unshare.arg(HANDOVER);
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(site(unshare, &dir, &["--supervise=false"]));
    let first = front(&server);
    assert_eq!(server.wait_serving(1), 1);
    signal(first, Signal::SIGHUP);
    server.log().wait_for("keep a supervisor with --supervise");
    assert!(get(server.address(), "/").contains("generation=1 "));
    signal(first, Signal::SIGTERM);
    assert_eq!(server.first_exit().code(), Some(0));
}
