//! The typed events that a program receives about its own generation. The playground logs each of them.

use nix::sys::signal::Signal;
use support::harness::{Faulty, hand_over, start};
use support::process::{Server, signal};

/// The events that this process has logged, in order.
fn events(server: &Server, pid: u32) -> Vec<String> {
    let of = |line: &support::process::Line| {
        (line.pid() == pid && line.message() == "event")
            .then(|| line.json["event"].as_str().unwrap_or("").to_owned())
    };
    server.log().lines().iter().filter_map(of).collect()
}

fn wait_event(server: &Server, pid: u32, begin: &str) -> String {
    server.log().wait(&format!("pid {pid} logs the event {begin}"), |line| {
        let event = line.json["event"].as_str().filter(|_| line.pid() == pid)?;
        event.starts_with(begin).then(|| event.to_owned())
    })
}

#[test]
fn a_handover_that_succeeds_is_reported_step_by_step() {
    let server = start(&["-v"]);
    let first = server.first_pid();
    let second = hand_over(&server, 1, first);
    wait_event(&server, first, "Left(Outcome { end: Retired");
    let told = events(&server, first);
    let begins =
        ["Serving { predecessor: None }", "SuccessorStarted { pid: ", "HandedOver(", "StandbyEnded", "Left("];
    assert!(told.len() == begins.len() && told.iter().zip(begins).all(|(t, b)| t.starts_with(b)), "{told:?}");
    assert!(told[2].contains(&format!("successor: {second}")), "{told:?}");
    wait_event(&server, second, &format!("Serving {{ predecessor: Some({first}) }}"));
    signal(second, Signal::SIGTERM);
    wait_event(&server, second, "Stopping");
    wait_event(&server, second, "Left(Outcome { end: Stopped");
}

#[test]
fn a_handover_that_fails_is_reported_with_the_stderr_of_the_successor() {
    let service = Faulty::start(&["-v"]);
    let pid = service.server.first_pid();
    service.next_is("exit-before-ready");
    signal(pid, Signal::SIGHUP);
    let failed = wait_event(&service.server, pid, "HandoverFailed(");
    assert!(failed.contains("the successor left before it was ready: exit status: 1"), "{failed}");
    assert!(failed.contains("--fault exit-before-ready"), "{failed}");
    service.next_is("");
    hand_over(&service.server, 1, pid);
}

#[test]
fn a_crash_of_the_successor_in_standby_is_reported_when_its_predecessor_serves_again() {
    let server = start(&["-v", "--standby=10s"]);
    let first = server.first_pid();
    signal(first, Signal::SIGHUP);
    wait_event(&server, first, "HandedOver(");
    signal(server.wait_serving(2), Signal::SIGKILL);
    let told = wait_event(&server, first, "ServesAgain(");
    assert!(told.contains("signal: 9 (SIGKILL)"), "{told}");
}
