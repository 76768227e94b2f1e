//! An upgrade across a change of the protocol between generations: a binary of an earlier commit hands over to this one, and
//! back. The earlier binary is built once, in the target directory.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use support::harness::{Traffic, install, skip, wait_until};
use support::load::Clients;
use support::process::{Server, command, signal};

use crate::HANDOVER;
use crate::faults::{wait_is, wait_said};
use crate::supervise::site;

/// The last commit that speaks version 1 of the protocol, in which READY is SIGTERM.
const VERSION_1: &str = "693c791";

/// Returns the binary of a commit, which is built unless it exists; `None` if git does not have the commit.
fn earlier(commit: &str) -> Option<PathBuf> {
    let here = support::root();
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.arg("-C").arg(here).args(args).stderr(Stdio::null());
        git
    };
    let there = git(&["cat-file", "-e", &format!("{commit}^{{commit}}")]).status();
    if !there.is_ok_and(|status| status.success()) {
        skip(&format!(
            "the history does not reach back to {commit}, so there is no earlier binary to hand over to"
        ));
        return None;
    }
    let place = support::target_dir().join("earlier").join(commit);
    let program = place.join("handover");
    if program.exists() {
        return Some(program);
    }
    std::fs::create_dir_all(&place).expect("writable");
    let source = tempfile::tempdir_in(&place).expect("writable");
    let mut archive = git(&["archive", commit]).stdout(Stdio::piped()).spawn().expect("git is installed");
    let tar = archive.stdout.take().expect("a pipe");
    let unpacked = Command::new("tar").arg("-x").arg("-C").arg(source.path()).stdin(tar).status();
    assert!(unpacked.is_ok_and(|status| status.success()) && archive.wait().is_ok_and(|s| s.success()));
    let mut build = support::cargo();
    build.args(["build", "--locked", "--bin", "handover", "--target-dir"]).arg(place.join("target"));
    let built = build.current_dir(source.path()).stdout(Stdio::null()).output().expect("cargo is installed");
    assert!(built.status.success(), "cannot build {commit}: {}", String::from_utf8_lossy(&built.stderr));
    // Renamed into place, because another test run may look for it at the same time.
    install(place.join("target/debug/handover"), &program);
    let _ = std::fs::remove_dir_all(place.join("target"));
    Some(program)
}

/// Each binary hands over to the next under load, whichever version of the protocol it speaks.
#[test]
fn a_binary_of_an_earlier_protocol_hands_over_to_this_one_and_back() {
    let Some(earlier) = earlier(VERSION_1) else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("server");
    let (old, new) = (&*earlier, Path::new(HANDOVER));
    // The third generation learns from the second what the second has learnt from the first.
    let chain = [new, old, new, new, old, old, new];
    install(chain[0], &program);
    let server = Server::start(site(command(&program), &dir, &["--no-control"]));
    let fresh = Traffic::fresh(&server);
    let pause = Duration::from_millis(5);
    let kept = Traffic::start(server.address(), Clients::KeepAlive { pause }, 16);
    wait_until("every client is answered", &server, || fresh.is_under_way() && kept.is_under_way());
    let mut leader = server.first_pid();
    for (number, pair) in (1..).zip(chain.windows(2)) {
        install(pair[1], &program);
        signal(leader, Signal::SIGHUP);
        let next = server.wait_serving(number + 1);
        wait_said(&server, next, "serving, took over");
        wait_is(&server, leader, "draining");
        let exe = std::fs::read(format!("/proc/{next}/exe")).expect("it is alive");
        assert!(exe == std::fs::read(pair[1]).expect("it was built"), "another program was started");
        leader = next;
    }
    let reports = [fresh.stop_lossless(&server), kept.stop_lossless(&server)];
    println!("{} requests, 0 failed", reports.iter().map(|r| r.samples.len()).sum::<usize>());
    signal(leader, Signal::SIGTERM);
    wait_said(&server, leader, "stopped");
}
