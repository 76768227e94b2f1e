//! The signals between generations, when other processes send signals at the same moment.

use std::process::Command;

use nix::sys::signal::Signal;
use support::harness::{Client, Faulty, Traffic, get, is_alive, skip, start, wait_until};
use support::process::{Server, signal};

use super::{stopped, while_stopped};
use crate::faults::{restart, wait_is, wait_said};

const SLOW: &str = "slow-start=300";

/// Suspends the parent and lets its successor send READY, which stays pending; returns the pid of the successor. `before` runs
/// while the parent is suspended and before READY is sent.
fn ready_unheard(server: &Server, before: impl FnOnce(u32)) -> u32 {
    let parent = server.first_pid();
    let child = restart(server, parent);
    wait_said(server, child, "not ready yet");
    stopped(server, parent);
    before(parent);
    wait_said(server, child, "serving, took over");
    child
}

#[test]
fn a_stop_that_arrives_together_with_the_word_ready_is_not_lost() {
    let mut server = start(&["-v", "--standby", "2s", "--fault", SLOW]);
    let child = ready_unheard(&server, |_| {});
    assert!(get(server.address(), "/").contains(&format!("pid={child}")));
    signal(server.first_pid(), Signal::SIGTERM);
    signal(server.first_pid(), Signal::SIGCONT);
    assert!(server.first_exit().success(), "{}", server.log().history());
    wait_until("the successor has stopped too", &server, || !is_alive(child));
}

#[test]
fn the_word_ready_that_another_signal_swallows_is_said_again() {
    let server = start(&["-v", "--standby", "1s", "--fault", SLOW]);
    let traffic = Traffic::fresh(&server);
    // The kernel keeps one pending SIGURG with its sender, which is this process.
    ready_unheard(&server, |parent| signal(parent, Signal::SIGURG));
    signal(server.first_pid(), Signal::SIGCONT);
    wait_is(&server, server.first_pid(), "standby");
    server.wait_retired(1);
    traffic.stop_lossless(&server);
}

#[test]
fn the_word_closed_that_another_signal_swallows_is_found_out() {
    let server = start(&["--idle-grace", "1h", "--drain-timeout", "1h"]);
    let first = server.first_pid();
    // Keeps the predecessor alive: its exit would tell the successor the same.
    let mut kept = Client::connect(server.address());
    kept.get("/");
    let second = restart(&server, first);
    wait_is(&server, first, "standby");
    while_stopped(&server, second, || {
        signal(second, Signal::SIGURG);
        wait_is(&server, first, "draining");
        wait_until("the old listener is closed", &server, || !listens(first, server.address().port()));
    });
    let third = restart(&server, second);
    wait_said(&server, third, "serving, took over");
    assert!(is_alive(first));
}

/// Returns whether the process has a socket that listens on this port.
fn listens(pid: u32, port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc is mounted");
    let inodes: Vec<_> = table
        .lines()
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            (fields.get(1)?.ends_with(&format!(":{port:04X}")) && fields.get(3) == Some(&"0A"))
                .then(|| format!("socket:[{}]", fields[9]))
        })
        .collect();
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    fds.filter_map(|fd| std::fs::read_link(fd.path()).ok())
        .any(|link| inodes.iter().any(|inode| link.as_os_str() == &**inode))
}

/// Sends a signal by rt_sigqueueinfo(2), which lets the caller set the sender's pid; returns whether that succeeded.
fn forge(to: u32, number: i32, from: u32) -> bool {
    let call = if cfg!(target_arch = "x86_64") { 129 } else { 138 };
    // Packs siginfo_t: signo, errno, code (SI_QUEUE), padding, pid, uid, value.
    let send = "my ($call, $to, $sig, $from) = map { $_ + 0 } @ARGV; \
                my $info = pack('i i i i i i x104', $sig, 0, -1, 0, $from, $<); \
                exit(syscall($call, $to, $sig, $info) == 0 ? 0 : 1)";
    let args = [call.to_string(), to.to_string(), number.to_string(), from.to_string()];
    let sent = Command::new("perl").args(["-e", send]).args(args).status();
    sent.is_ok_and(|status| status.success())
}

#[test]
fn no_process_can_forge_the_word_ready() {
    let faulty = Faulty::start(&["-v"]);
    let server = &faulty.server;
    let parent = server.first_pid();
    faulty.next_is("hang-before-ready");
    let child = restart(server, parent);
    wait_said(server, child, "not ready yet");
    if !forge(parent, Signal::SIGURG as i32, child) {
        return skip("no perl here, so no signal can be forged");
    }
    // The kernel does not vouch for the sender of this SIGTERM, so it is a request to stop.
    assert!(forge(parent, Signal::SIGTERM as i32, child));
    wait_is(server, parent, "draining");
    let believed = server.log().lines().iter().any(|line| line.json["to"] == "standby");
    assert!(!believed, "{}", server.log().history());
}

#[test]
fn a_signal_of_another_process_says_neither_ready_nor_closed() {
    let faulty = Faulty::start(&["-v", "--standby", "1s"]);
    let server = &faulty.server;
    let parent = server.first_pid();
    faulty.next_is("hang-before-ready");
    let hanging = restart(server, parent);
    wait_said(server, hanging, "not ready yet");
    for _ in 0..20 {
        signal(parent, Signal::SIGURG);
        assert!(get(server.address(), "/").contains("generation=1 "));
    }
    signal(hanging, Signal::SIGKILL);
    server.log().wait_for("handover failed");
    faulty.next_is("");
    let child = restart(server, parent);
    wait_is(server, parent, "standby");
    for _ in 0..20 {
        signal(child, Signal::SIGURG);
        assert!(get(server.address(), "/").contains(&format!("pid={child}")));
    }
    server.wait_retired(1);
}
