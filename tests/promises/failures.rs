//! A handover that fails changes nothing, and the next one can succeed.

use std::time::Duration;

use nix::sys::signal::Signal;
use support::harness::{
    Faulty, QUICK, Traffic, example, get, install, is_alive, start, start_copy, wait_until,
};
use support::load::Clients;
use support::process::{Server, signal};

/// Asserts that generation 1 serves after a failed handover, that the next HUP succeeds, and that nothing was lost.
fn assert_unharmed(server: &Server, traffic: Traffic) {
    server.wait_state(1, "serving");
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_serving(2);
    server.wait_state(1, "draining");
    let report = traffic.stop_lossless(server);
    assert!(report.first_answers().keys().eq([&1, &2]), "{}", server.log().history());
}

#[test]
fn a_successor_that_fails_before_it_is_ready_changes_nothing() {
    let faulty = Faulty::start(&[]);
    let traffic = Traffic::fresh(&faulty.server);
    for _ in 0..3 {
        faulty.next_is("exit-before-ready");
        signal(faulty.server.first_pid(), Signal::SIGHUP);
        wait_until("the handover has failed", &faulty.server, || {
            faulty.server.log().lines().iter().any(|line| line.message().starts_with("handover failed"))
        });
    }
    let failed = faulty.server.log().wait_for("handover failed");
    assert_eq!(failed.json["status"], "exit status: 1", "{}", failed.text);
    faulty.next_is("");
    assert_unharmed(&faulty.server, traffic);
}

#[test]
fn a_hung_successor_is_told_to_leave_and_the_old_one_keeps_serving() {
    let faulty = Faulty::start(&["--ready-timeout", "700ms"]);
    let traffic = Traffic::fresh(&faulty.server);
    faulty.next_is("hang-before-ready");
    signal(faulty.server.first_pid(), Signal::SIGHUP);
    faulty.server.log().wait_for("handover failed");
    faulty.next_is("");
    assert_unharmed(&faulty.server, traffic);
}

#[test]
fn a_successor_that_never_accepts_is_killed_and_the_old_one_keeps_serving() {
    let faulty = Faulty::start(&["--ready-timeout", "700ms"]);
    let traffic = Traffic::fresh(&faulty.server);
    faulty.next_is("never-accepts");
    signal(faulty.server.first_pid(), Signal::SIGHUP);
    let failed = faulty.server.log().wait_for("handover failed");
    assert!(failed.json["status"].as_str().is_some_and(|s| s.contains("signal: 9")), "{}", failed.text);
    faulty.next_is("");
    assert_unharmed(&faulty.server, traffic);
}

#[test]
fn a_binary_that_is_missing_or_not_executable_or_not_a_program_changes_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("server");
    let server = start_copy(&program, &QUICK);
    let traffic = Traffic::fresh(&server);
    let fails = |because: &str| {
        signal(server.first_pid(), Signal::SIGHUP);
        server.log().wait_for(because);
    };

    std::fs::remove_file(&program).expect("removable");
    fails("no such file");
    install(example("playground"), &program);
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o644)).expect("we own it");
    fails("permission denied");
    std::fs::remove_file(&program).and_then(|()| std::fs::write(&program, [0; 64])).expect("writable");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("we own it");
    fails("not an executable");

    install(example("playground"), &program);
    assert_unharmed(&server, traffic);
}

#[test]
fn a_successor_that_crashes_in_standby_is_replaced_by_the_old_generation() {
    let server = start(&["--standby", "10s"]);
    let traffic = Traffic::start(server.address(), Clients::Fresh, 16);
    let idle = Traffic::start(server.address(), Clients::KeepAlive { pause: Duration::from_millis(20) }, 16);
    signal(server.first_pid(), Signal::SIGHUP);
    let successor = server.wait_serving(2);
    server.wait_state(1, "standby");
    std::thread::sleep(Duration::from_secs(1));
    signal(successor, Signal::SIGKILL);
    server.log().wait_for("serves again");
    assert!(get(server.address(), "/").contains("generation=1 "));
    signal(server.first_pid(), Signal::SIGHUP);
    server.log().wait("the next handover succeeds", |line| {
        (line.generation() == 2 && line.pid() != successor && line.message().starts_with("serving"))
            .then_some(())
    });
    for (traffic, clients) in [(traffic, 16), (idle, 16)] {
        let report = traffic.stop();
        // Each client has at most one request in flight, so at most this many were inside the killed process.
        assert!(report.failed() <= clients, "{:?}", report.failures());
        assert!(!report.failures().contains_key("refused"), "no process listened: {:?}", report.failures());
        assert!(!report.failures().contains_key("timeout"), "{:?}", report.failures());
    }
}

#[test]
fn a_connection_lives_on_when_the_successor_crashes() {
    let server = start(&["--standby", "10s"]);
    let mut client = support::harness::Client::connect(server.address());
    client.get("/");
    signal(server.first_pid(), Signal::SIGHUP);
    let successor = server.wait_serving(2);
    server.wait_state(1, "standby");
    signal(successor, Signal::SIGKILL);
    server.log().wait_for("serves again");
    for _ in 0..2 {
        let answer = client.get("/");
        assert!(answer.contains("generation=1 ") && !answer.contains("connection: close"), "{answer}");
    }
}

#[test]
fn a_successor_that_crashes_after_standby_does_not_take_the_old_generation_with_it() {
    let faulty = Faulty::start(&[]);
    let mut client = support::harness::Client::connect(faulty.server.address());
    client.send("/slow?ms=2500");
    faulty.next_is("exit-after-ready=1000");
    signal(faulty.server.first_pid(), Signal::SIGHUP);
    faulty.server.log().wait_for("cannot serve again");
    assert!(client.answer().contains("generation=1 "));
}

#[test]
fn a_successor_whose_parent_dies_before_it_is_ready_serves_alone() {
    let faulty = Faulty::start(&["-v"]);
    let address = faulty.server.address();
    faulty.next_is("slow-start=800");
    signal(faulty.server.first_pid(), Signal::SIGHUP);
    faulty.server.log().wait("the successor has joined", |line| {
        (line.generation() == 2 && line.message().contains("not ready yet")).then_some(())
    });
    signal(faulty.server.first_pid(), Signal::SIGKILL);
    let pid = faulty.server.wait_serving(2);
    assert!(get(address, "/").contains("generation=2 "));
    faulty.next_is("");
    signal(pid, Signal::SIGHUP);
    faulty.server.wait_serving(3);
    assert!(is_alive(pid));
}
