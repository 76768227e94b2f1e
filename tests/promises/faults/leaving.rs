//! Stops, exits and refused restarts during standby and during the drain.

use nix::sys::signal::Signal;
use support::harness::{Client, Traffic, get, is_alive, start, wait_until};
use support::process::{Server, signal};

use crate::faults::{CLIENTS, Faulty, assert_next_restart};

/// Asserts that the service has stopped: clients are refused from then on, and a start on the same address succeeds. A
/// client that connects at the very instant at which a listener closes may be reset, as with every server that stops.
fn assert_stopped(server: &mut Server, second: u32, traffic: Traffic) {
    assert!(server.first_exit().success(), "{}", server.log().history());
    wait_until("both generations have exited", server, || !is_alive(second));
    let report = traffic.stop();
    let refused = report.failures().get("refused").copied().unwrap_or_default();
    let said = || format!("{:?}\n{}", report.failures(), server.log().history());
    assert!(report.failed() - refused <= CLIENTS, "{}", said());
    for kind in ["timeout", "cut within the answer", "not closed properly after the answer"] {
        assert!(!report.failures().contains_key(kind), "{}", said());
    }
    println!("{} requests, {:?}", report.samples.len(), report.failures());
    let again = start(&["--listen", &server.address().to_string()]);
    assert_eq!(again.addresses(1)[1], server.address());
    assert!(get(server.address(), "/").contains("generation=1 "));
}

#[test]
fn a_term_to_the_old_the_new_or_both_in_standby_stops_the_service_and_answers_requests_in_flight() {
    for (to_the_old_one, to_the_new_one) in [(true, false), (false, true), (true, true)] {
        let mut server = start(&["--standby", "1s"]);
        let traffic = Traffic::fresh(&server);
        signal(server.first_pid(), Signal::SIGHUP);
        let second = server.wait_serving(2);
        server.wait_state(1, "standby");
        let mut under_way = Client::connect(server.address());
        under_way.send("/slow?ms=1500");
        wait_until("the request arrived", &server, || get(server.address(), "/").contains("generation=2"));
        if to_the_old_one {
            signal(server.first_pid(), Signal::SIGTERM);
        }
        if to_the_new_one {
            signal(second, Signal::SIGTERM);
        }
        assert!(under_way.answer().contains("generation=2 "), "the request under way was cut");
        assert_stopped(&mut server, second, traffic);
    }
}

#[test]
fn a_successor_that_leaves_with_status_0_in_standby_has_stopped_the_service() {
    let faulty = Faulty::start(&["--standby", "20s"]);
    let traffic = Traffic::fresh(&faulty.server);
    faulty.next_is("exit-zero-after-ready=300");
    signal(faulty.server.first_pid(), Signal::SIGHUP);
    let second = faulty.server.wait_serving(2);
    faulty.server.log().wait_for("the successor has left");
    let Faulty { mut server, .. } = faulty;
    let report = {
        assert!(server.first_exit().success(), "{}", server.log().history());
        traffic.stop()
    };
    let refused = report.failures().get("refused").copied().unwrap_or_default();
    assert!(report.failed() - refused <= 2 * CLIENTS, "{:?}\n{}", report.failures(), server.log().history());
    assert!(!is_alive(second));
    println!("{} requests, {:?}", report.samples.len(), report.failures());
    start(&["--listen", &server.address().to_string()]);
}

#[test]
fn ten_hups_to_a_draining_generation_are_refused_and_harmless() {
    let server = start(&["--standby", "100ms"]);
    let traffic = Traffic::fresh(&server);
    let mut client = Client::connect(server.address());
    client.send("/slow?ms=2000");
    wait_until("the request arrived", &server, || get(server.address(), "/").contains("generation=1"));
    let second = assert_next_restart(&server, server.first_pid());
    let refused = || {
        let lines = server.log().lines();
        lines.iter().filter(|l| l.generation() == 1 && l.message().contains("ask its successor")).count()
    };
    for n in 1..=10 {
        signal(server.first_pid(), Signal::SIGHUP);
        // One at a time, because the kernel merges pending signals.
        wait_until("the refusal is logged", &server, || refused() == n);
    }
    assert!(client.answer().contains("generation=1 "));
    server.wait_retired(1);
    assert_next_restart(&server, second);
    let report = traffic.stop_lossless(&server);
    assert!(report.first_answers().keys().eq([&1, &2, &3]), "{}", server.log().history());
}
