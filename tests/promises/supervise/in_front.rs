//! A change of generation leaves the pid, the pid file and the control commands as they are.

use std::time::Duration;

use nix::sys::signal::Signal;
use support::harness::{Client, Faulty, Traffic, get, is_alive, wait_until};
use support::load::Clients;
use support::process::{Server, command, signal};

use super::{binary, site, supervised, wait_gone, wait_in_front};
use crate::HANDOVER;

#[test]
fn the_pid_stays_the_same_over_five_handovers_under_load() {
    let dir = tempfile::tempdir().expect("a directory");
    let (control, pid_file) = (dir.path().join("control"), dir.path().join("pid"));
    let (control, pid_file) = (control.to_str().expect("UTF-8"), pid_file.to_str().expect("UTF-8"));
    let flags = ["--supervise", "--control", control, "--pid-file", pid_file];
    let mut server = Server::start(site(binary(), &dir, &flags));
    let front = server.first_pid();
    let fresh = Traffic::fresh(&server);
    let pause = Duration::from_millis(5);
    let kept = Traffic::start(server.address(), Clients::KeepAlive { pause }, 16);
    let ask = |words: &[&str]| {
        let asked =
            command("timeout").arg("60").arg(HANDOVER).args(words).args(["--control", control]).output();
        let asked = asked.expect("it starts");
        assert!(asked.status.success(), "{words:?}: {asked:?}\n{}", server.log().history());
    };
    for generation in 1..=5 {
        match generation % 2 {
            1 => signal(front, Signal::SIGHUP),
            _ => ask(&["reload"]),
        }
        server.wait_serving(generation + 1);
        server.wait_state(generation, "draining");
        let named = || std::fs::read_to_string(pid_file).expect("the pid file");
        assert_eq!(named().trim(), front.to_string(), "after {generation} handovers");
    }
    ask(&["status"]);
    let reports = [fresh.stop_lossless(&server), kept.stop_lossless(&server)];
    println!("{} requests, 0 failed, 5 handovers", reports.iter().map(|r| r.samples.len()).sum::<usize>());
    assert!(is_alive(front));
    ask(&["stop"]);
    assert_eq!(server.first_exit().code(), Some(0));
    wait_gone(&server);
    assert!(!std::path::Path::new(pid_file).exists());
}

#[test]
fn the_log_names_the_pid_that_stays() {
    let server = Server::start(supervised(&[]));
    let front = server.first_pid();
    server.log().wait_for(&format!("`kill -HUP {front}` restarts"));
    signal(front, Signal::SIGUSR2);
    assert_ne!(server.wait_serving(2), front);
    server.log().wait_for(&format!("serving, took over; `kill -HUP {front}` restarts"));
}

#[test]
fn a_hup_while_the_first_generation_starts_is_not_lost() {
    let server = Server::launch(supervised(&["--fault", "slow-start=500"]));
    wait_in_front(&server);
    signal(server.first_pid(), Signal::SIGHUP);
    server.log().wait_for("restart queued");
    server.wait_serving(2);
}

#[test]
fn a_term_stops_serving_and_draining_generations_and_a_hup_then_is_refused() {
    let mut server = Server::start(supervised(&["--stop-idle-grace", "200ms"]));
    let front = server.first_pid();
    let mut old = Client::connect(server.address());
    old.send("/slow?ms=1500");
    wait_until("the request has arrived", &server, || get(server.address(), "/").contains("generation=1"));
    signal(front, Signal::SIGHUP);
    server.wait_serving(2);
    server.wait_state(1, "draining");
    let mut new = Client::connect(server.address());
    new.send("/slow?ms=1500");
    wait_until("the request has arrived", &server, || get(server.address(), "/").contains("generation=2"));
    signal(front, Signal::SIGTERM);
    server.wait_state(2, "draining");
    signal(front, Signal::SIGHUP);
    server.log().wait_for("restart refused");
    assert!(old.answer().contains("generation=1 "));
    assert!(new.answer().contains("generation=2 "));
    assert_eq!(server.first_exit().code(), Some(0), "{}", server.log().history());
    wait_gone(&server);
}

#[test]
fn a_second_term_stops_at_once() {
    let mut server = Server::start(supervised(&["--stop-timeout", "1h", "--stop-idle-grace", "1h"]));
    let front = server.first_pid();
    let mut client = Client::connect(server.address());
    client.send("/slow?ms=600000");
    wait_until("the request has arrived", &server, || get(server.address(), "/").contains("generation=1"));
    signal(front, Signal::SIGTERM);
    server.wait_state(1, "draining");
    signal(front, Signal::SIGTERM);
    assert_eq!(server.first_exit().code(), Some(0));
    wait_gone(&server);
}

/// systemd and timeout(1) send the signal to every process of the service.
#[test]
fn a_term_that_comes_both_directly_and_through_the_supervisor_is_one_request_to_stop() {
    for directly_first in [true, false] {
        let mut server = Server::start(supervised(&["--stop-timeout", "1h"]));
        let front = server.first_pid();
        signal(front, Signal::SIGHUP);
        let second = server.wait_serving(2);
        server.wait_state(1, "draining");
        let mut client = Client::connect(server.address());
        client.send("/slow?ms=800");
        let arrived = || get(server.address(), "/").contains("generation=2");
        wait_until("the request has arrived", &server, arrived);
        let (one, other) = if directly_first { (second, front) } else { (front, second) };
        signal(one, Signal::SIGTERM);
        server.wait_state(2, "draining");
        signal(other, Signal::SIGTERM);
        assert!(client.answer().contains("generation=2 "), "the request in flight was cut");
        assert_eq!(server.first_exit().code(), Some(0));
    }
}

#[test]
fn a_failed_handover_leaves_the_supervisor_and_the_generation_where_they_are() {
    let faulty = Faulty::start(&["--supervise"]);
    let front = faulty.server.first_pid();
    faulty.next_is("exit-before-ready");
    signal(front, Signal::SIGHUP);
    faulty.server.log().wait_for("handover failed");
    assert!(get(faulty.server.address(), "/").contains("generation=1 "));
    faulty.next_is("");
    signal(front, Signal::SIGHUP);
    faulty.server.wait_serving(2);
}

#[test]
fn the_flag_may_be_given_twice_and_the_last_one_counts() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(site(binary(), &dir, &["--supervise", "--supervise"]));
    assert_ne!(server.wait_serving(1), server.first_pid());
    let server = Server::start(site(binary(), &dir, &["--supervise", "--supervise=false"]));
    assert_eq!(server.wait_serving(1), server.first_pid());
}

#[test]
fn the_config_may_set_supervise_and_a_check_never_supervises() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("config.toml");
    std::fs::write(&config, "supervise = true\n").expect("writable");
    let config = config.to_str().expect("UTF-8");
    let server = Server::start(site(binary(), &dir, &["--config", config]));
    assert_ne!(server.wait_serving(1), server.first_pid());
    let mut checked = site(binary(), &dir, &["--config", config, "--check"]);
    let checked = checked.stdout(std::process::Stdio::piped()).output().expect("it starts");
    assert!(String::from_utf8_lossy(&checked.stdout).starts_with("ok: would serve"), "{checked:?}");
    assert!(!String::from_utf8_lossy(&checked.stderr).contains("in front"), "{checked:?}");
}

#[test]
fn where_systemd_does_not_listen_a_supervisor_stays_by_default() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut shell = command("sh");
    shell.args(["-c", "SYSTEMD_EXEC_PID=$$ exec \"$0\" \"$@\"", HANDOVER]).env_remove("NOTIFY_SOCKET");
    let server = Server::start(site(shell, &dir, &[]));
    wait_in_front(&server);
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_serving(2);
    server.wait_state(1, "draining");
}

#[test]
fn a_program_that_a_generation_starts_may_have_its_own_supervisor() {
    let server = Server::start(supervised(&[]));
    let generation = server.wait_serving(1);
    let environment = std::fs::read(format!("/proc/{generation}/environ")).expect("it is alive");
    let of_it = |name: &str| {
        let entries =
            environment.split(|byte| *byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok());
        entries.into_iter().find_map(|entry| Some(entry.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
    };
    let mut heir = supervised(&[]);
    for name in handover::ENVIRONMENT.iter().copied().chain(["NOTIFY_SOCKET"]) {
        heir.envs(of_it(name).map(|value| (name, value)));
    }
    let heir = Server::start(heir);
    wait_in_front(&heir);
    signal(heir.first_pid(), Signal::SIGHUP);
    heir.wait_serving(2);
    heir.wait_state(1, "draining");
    assert!(get(server.address(), "/").contains("generation=1 "));
}
