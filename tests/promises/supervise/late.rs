//! The supervisor is suspended or slow, and the generations do not wait for it.

use std::process::Command;

use nix::sys::signal::Signal;
use support::harness::{Traffic, get, is_alive, wait_until};
use support::process::{Server, command, signal};

use super::{as_pid_1, children, front, site, supervised, wait_gone};
use crate::HANDOVER;
use crate::faults::{restart, wait_said};

/// Waits until the kernel's status of a process has a line that begins with `line`.
fn wait_status(server: &Server, pid: u32, line: &str) {
    wait_until(&format!("{pid} is {line:?}"), server, || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|it| it.starts_with(line))
    });
}

fn stop(server: &Server, pid: u32) {
    signal(pid, Signal::SIGSTOP);
    wait_status(server, pid, "State:\tT");
}

/// Makes two handovers while the supervisor is suspended, and waits until all but the last generation have exited; returns
/// the pid of the last.
fn two_handovers_unseen(server: &Server, front: u32, first: u32) -> u32 {
    stop(server, front);
    let second = restart(server, first);
    server.wait_retired(1);
    wait_status(server, first, "State:\tZ");
    let third = restart(server, second);
    server.wait_retired(2);
    wait_status(server, second, "State:\tZ");
    wait_said(server, third, "serving");
    third
}

#[test]
fn a_supervisor_that_sleeps_through_two_handovers_stays_and_passes_on_the_next() {
    let mut server = Server::start(supervised(&["--standby", "100ms"]));
    let (front, first) = (server.first_pid(), server.wait_serving(1));
    let traffic = Traffic::fresh(&server);
    two_handovers_unseen(&server, front, first);
    signal(front, Signal::SIGHUP);
    signal(front, Signal::SIGCONT);
    server.wait_serving(4);
    server.wait_state(3, "draining");
    traffic.stop_lossless(&server);
    signal(front, Signal::SIGTERM);
    assert_eq!(server.first_exit().code(), Some(0), "{}", server.log().history());
    wait_gone(&server);
}

#[test]
fn a_supervisor_that_sleeps_through_two_handovers_and_a_crash_reports_the_crash() {
    let mut server = Server::start(supervised(&["--standby", "100ms"]));
    let (front, first) = (server.first_pid(), server.wait_serving(1));
    let third = two_handovers_unseen(&server, front, first);
    signal(third, Signal::SIGKILL);
    wait_until("the third generation is dead", &server, || !is_alive(third));
    signal(front, Signal::SIGCONT);
    assert_eq!(server.first_exit().code(), Some(137), "{}", server.log().history());
    server.log().wait_for("killed by signal 9 without a successor");
}

/// The same as the first test, as an operator would do it in a container.
#[test]
fn a_container_whose_supervisor_sleeps_through_two_reloads_goes_on() {
    let Some(mut unshare) = as_pid_1() else { return };
    unshare.arg(HANDOVER);
    let dir = tempfile::tempdir().expect("a directory");
    let control = dir.path().join("control");
    let control = control.to_str().expect("UTF-8");
    let server = Server::start(site(unshare, &dir, &["--control", control]));
    let front = front(&server);
    stop(&server, front);
    for _ in 0..2 {
        let mut reload = command(HANDOVER);
        let asked =
            reload.args(["reload", "--wait-drained", "--control", control]).output().expect("it starts");
        assert!(asked.status.success(), "{asked:?}\n{}", server.log().history());
    }
    let dead = |pid: &u32| !is_alive(*pid);
    let two_are_dead = || children(front).iter().filter(|pid| dead(pid)).count() == 2;
    wait_until("the earlier generations have ended", &server, two_are_dead);
    signal(front, Signal::SIGCONT);
    signal(front, Signal::SIGHUP);
    server.wait_serving(4);
    assert!(get(server.address(), "/").contains("generation=1 "));
    assert!(!server.log().lines().iter().any(|line| line.message().contains("the service has ended")));
    wait_until("the earlier generations are reaped", &server, || children(front).len() == 1);
}

/// The supervisor has the lowest priority on a busy machine, and generations change faster than it can follow.
#[test]
fn a_supervisor_that_hardly_runs_follows_a_storm_of_handovers() {
    let mut niced = supervised(&["--standby", "0s", "--idle-grace", "1s"]);
    let program = niced.get_program().to_owned();
    let args: Vec<_> = niced.get_args().map(ToOwned::to_owned).collect();
    niced = command("nice");
    niced.args(["-n", "19"]).arg(program).args(args);
    let mut server = Server::start(niced);
    let front = server.first_pid();
    let mut busy: Vec<_> = (0..4)
        .map(|_| Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("it starts"))
        .collect();
    // Enough handovers that the supervisor must have noticed some of them late.
    let stormed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for generation in 2..=12 {
            let serves = |line: &support::process::Line| {
                (line.generation() == generation && line.message().starts_with("serving")).then_some(())
            };
            while server.log().lines().iter().find_map(serves).is_none() {
                signal(front, Signal::SIGHUP);
                std::thread::sleep(std::time::Duration::from_millis(4));
                assert!(is_alive(front), "{}", server.log().history());
            }
        }
    }));
    for one in &mut busy {
        one.kill().and_then(|()| one.wait()).expect("a child");
    }
    stormed.expect("the supervisor stays");
    signal(front, Signal::SIGTERM);
    assert_eq!(server.first_exit().code(), Some(0), "{}", server.log().history());
    wait_gone(&server);
}
