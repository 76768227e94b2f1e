//! The stderr of all generations is one stream, whichever generation starts, fails or dies.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;
use support::harness::{QUICK, Traffic, example, install, is_alive, skip, start_copy, wait_until};
use support::process::{Line, Server, command, signal};

use crate::HANDOVER;
use crate::faults::{assert_next_restart, restart, wait_buried, wait_is, wait_said};

/// Puts a script in place of the server.
fn put_script(program: &Path, text: &str) {
    let draft = program.with_extension("script");
    std::fs::write(&draft, text).expect("writable");
    std::fs::set_permissions(&draft, PermissionsExt::from_mode(0o755)).expect("we own it");
    std::fs::rename(draft, program).expect("writable");
}

fn stderr_of(pid: u32) -> String {
    let link = std::fs::read_link(format!("/proc/{pid}/fd/2"));
    link.map(|target| target.display().to_string()).unwrap_or_default()
}

#[test]
fn the_stderr_of_a_successor_that_fails_is_passed_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("server");
    let server = start_copy(&program, &QUICK);
    let traffic = Traffic::fresh(&server);
    put_script(&program, "#!/bin/sh\necho the database is on fire >&2\nexit 3\n");
    let child = restart(&server, server.first_pid());
    let buried = wait_buried(&server, child);
    assert_eq!(buried.json["status"], "exit status: 3");
    server.log().wait_for("the database is on fire");
    install(example("playground"), &program);
    assert_next_restart(&server, server.first_pid());
    traffic.stop_lossless(&server);
}

#[test]
fn a_successor_writes_where_the_first_generation_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start_copy(&dir.path().join("server"), &QUICK);
    let truth = stderr_of(server.first_pid());
    let second = assert_next_restart(&server, server.first_pid());
    assert_eq!(stderr_of(second), truth);
    let third = assert_next_restart(&server, second);
    assert_eq!(stderr_of(third), truth);
    assert_eq!(
        std::fs::read_link(format!("/proc/{third}/fd/0")).expect("the descriptor is open"),
        Path::new("/dev/null")
    );
}

#[test]
fn a_wrapper_that_replaces_stdin_loses_no_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("server");
    let server = start_copy(&program, &QUICK);
    let truth = stderr_of(server.first_pid());
    let real = example("playground");
    put_script(&program, &format!("#!/bin/sh\nexec {} \"$@\" </dev/null\n", real.display()));
    let second = assert_next_restart(&server, server.first_pid());
    assert_eq!(stderr_of(second), truth);
}

#[test]
fn a_successor_whose_predecessor_dies_while_it_starts_loses_nothing_it_says() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("server");
    let server = start_copy(&program, &[&QUICK[..], &["-v"]].concat());
    // Until a successor is ready its stderr is a pipe to the predecessor. A write after the predecessor's death must not fail.
    let script = "#!/bin/sh\necho started >&2\nread line </dev/null\nwhile [ -e \"$0.wait\" ]; do sleep 0.01; done\n\
                  echo the predecessor is dead >&2\nexec REAL \"$@\"\n";
    put_script(&program, &script.replace("REAL", &example("playground").display().to_string()));
    let wait = dir.path().join("server.wait");
    std::fs::write(&wait, "").expect("writable");
    let first = server.first_pid();
    let child = restart(&server, first);
    server.log().wait_for("started");
    signal(first, Signal::SIGKILL);
    // All of its threads must be gone, because a dying thread may still consume bytes from the pipe.
    let threads = || std::fs::read_dir(format!("/proc/{first}/task")).map_or(0, Iterator::count);
    wait_until("the first generation is dead", &server, || !is_alive(first) && threads() <= 1);
    std::fs::remove_file(wait).expect("writable");
    // The successor lost its parent before it checked, so it starts as a first generation with port 0.
    server.log().wait_for("the predecessor is dead");
    wait_said(&server, child, "serving");
}

#[test]
fn a_successor_that_writes_very_much_before_it_is_ready_is_not_delayed() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("server");
    let server = start_copy(&program, &QUICK);
    let traffic = Traffic::fresh(&server);
    let real = example("playground");
    put_script(&program, &format!("#!/bin/sh\nseq 20000 >&2\nexec {} \"$@\"\n", real.display()));
    let second = restart(&server, server.first_pid());
    wait_said(&server, second, "serving, took over");
    wait_is(&server, server.first_pid(), "draining");
    let numbers = server.log().lines().iter().filter(|line| line.text.parse::<u32>().is_ok()).count();
    assert_eq!(numbers, 20_000);
    traffic.stop_lossless(&server);
}

#[test]
fn a_program_that_a_successor_starts_does_not_trust_its_environment() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start_copy(&dir.path().join("server"), &QUICK);
    let second = assert_next_restart(&server, server.first_pid());
    // With the same environment and another parent the program is a first generation, with its own stdin and stderr.
    let environ = std::fs::read(format!("/proc/{second}/environ")).expect("the process lives");
    let variables = String::from_utf8_lossy(&environ).into_owned();
    let mut other = command(example("playground"));
    other.args(QUICK).envs(
        variables.split('\0').filter_map(|v| v.split_once('=')).filter(|(k, _)| k.starts_with("HANDOVER_")),
    );
    let other = Server::start(other);
    assert_ne!(stderr_of(other.first_pid()), stderr_of(second));
}

/// Tests a setup as in a chroot or a container that was made by hand.
#[test]
fn without_a_dev_directory_a_handover_and_an_upgrade_work_without_a_warning() {
    let mut started = command("unshare");
    let hide = ["--mount", "sh", "-c", "mount -t tmpfs tmpfs /dev && exec \"$@\"", "sh"];
    let tried = std::process::Command::new("unshare").args(hide).arg("true").stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        return skip("may not mount");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (program, control) = (dir.path().join("server"), dir.path().join("control"));
    install(HANDOVER, &program);
    started.args(hide).arg(&program).args(QUICK).arg("--control").arg(&control);
    let server = Server::start(started);
    let truth = stderr_of(server.first_pid());
    let second = assert_next_restart(&server, server.first_pid());
    assert_eq!(stderr_of(second), truth);
    let link = std::fs::read_link(format!("/proc/{second}/fd/0")).expect("the descriptor is open");
    assert_ne!(link.display().to_string(), truth);
    let mut stdin = File::open(format!("/proc/{second}/fd/0")).expect("the descriptor is open");
    assert_eq!(stdin.read(&mut [0]).expect("readable"), 0, "stdin is empty like /dev/null");
    let mut asked = command(HANDOVER);
    let upgraded = asked.arg("upgrade").arg(HANDOVER).arg("--control").arg(&control).status();
    assert!(upgraded.expect("the program starts").success(), "{}", server.log().history());
    let warned = |line: &Line| line.json["level"] == "WARN" || line.json["level"] == "ERROR";
    assert!(!server.log().lines().iter().any(warned), "{}", server.log().history());
}
