//! A successor is started from the file that is now at the path from which its predecessor was started.

use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::signal::Signal;
use support::harness::{QUICK, example, get, install, start, start_copy};
use support::process::{Server, command, signal};

use crate::HANDOVER;

fn hand_over_to_the_page(server: &Server) {
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_serving(2);
    let answer = get(server.address(), "/");
    assert!(answer.contains("generation 2,"), "the new file was not started: {answer}");
}

#[test]
fn a_replaced_binary_is_started_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("server");
    let server = start_copy(&program, &QUICK);
    install(HANDOVER, &program);
    hand_over_to_the_page(&server);
}

#[test]
fn a_link_that_points_to_a_new_release_starts_the_new_release() {
    let dir = tempfile::tempdir().expect("a directory");
    for (release, program) in [("1", example("playground")), ("2", HANDOVER.into())] {
        std::fs::create_dir(dir.path().join(release)).expect("writable");
        install(program, &dir.path().join(release).join("server"));
    }
    let current = dir.path().join("current");
    symlink("1", &current).expect("writable");
    // A shell does the same after `cd current`: the working directory is the real one, and PWD has the path with the link.
    let mut started = command("./server");
    started.current_dir(&current).env("PWD", &current).args(QUICK);
    let server = Server::start(started);
    symlink("2", dir.path().join("next")).expect("writable");
    std::fs::rename(dir.path().join("next"), &current).expect("writable");
    hand_over_to_the_page(&server);
}

#[test]
fn a_relative_path_is_found_again_after_a_chdir() {
    let dir = tempfile::tempdir().expect("a directory");
    install(example("playground"), &dir.path().join("server"));
    let mut started = command("./server");
    started.current_dir(dir.path()).env_remove("PWD").args(QUICK).args(["--chdir", "/"]);
    let server = Server::start(started);
    signal(server.first_pid(), Signal::SIGHUP);
    let second = server.wait_serving(2);
    server.wait_state(1, "draining");
    let status = std::fs::read_link(format!("/proc/{second}/exe")).expect("the successor lives");
    assert_eq!(status, dir.path().canonicalize().expect("exists").join("server"));
}

#[test]
fn a_working_directory_that_is_gone_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut started = command(example("playground"));
    started.current_dir(dir.path()).env_remove("PWD").args(QUICK).args(["--chdir", "/"]);
    let server = Server::start(started);
    drop(dir);
    signal(server.first_pid(), Signal::SIGHUP);
    server.log().wait_for("working directory");
    assert!(get(server.address(), "/").contains("generation=1 "));
}

/// Installs a release with a program that runs the playground with these flags.
fn release(dir: &Path, flags: &str) {
    use std::os::unix::fs::PermissionsExt;
    let script = format!("#!/bin/sh\nexec {} {flags}\n", example("playground").display());
    let draft = dir.join("draft");
    std::fs::write(&draft, script).expect("writable");
    std::fs::set_permissions(&draft, PermissionsExt::from_mode(0o755)).expect("writable");
    std::fs::rename(draft, dir.join("server")).expect("writable");
}

#[test]
fn addresses_may_be_added_and_removed_by_the_next_generation() {
    let dir = tempfile::tempdir().expect("a directory");
    let listen =
        ["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--log-format", "json", "--standby", "300ms"];
    let server = start_copy(&dir.path().join("server"), &listen);
    let before = server.addresses(1);
    let (kept, removed) = (before[0], before[1]);
    release(dir.path(), &format!("--listen {kept} --listen [::1]:0 --log-format json --standby 300ms"));
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_serving(2);
    server.wait_state(1, "draining");
    server.log().wait_for("retired");
    let after = server.addresses(2);
    assert_eq!(after[0], kept);
    for addr in &after {
        assert!(get(*addr, "/").contains("generation=2 "), "{addr}");
    }
    let refused = std::net::TcpStream::connect(removed).expect_err("the listener is closed");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn another_spelling_of_the_address_is_refused_and_explained() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start_copy(&dir.path().join("server"), &QUICK);
    release(dir.path(), &format!("--listen 0.0.0.0:{} --log-format json", server.address().port()));
    signal(server.first_pid(), Signal::SIGHUP);
    server.log().wait_for("write it the same way");
    server.wait_state(1, "serving");
    assert!(get(server.address(), "/").contains("generation=1 "));
}

#[test]
fn a_chain_of_generations_serves_on_a_port_that_was_picked_once() {
    let server = start(&[]);
    let mut pid = server.first_pid();
    for generation in 2..=4 {
        signal(pid, Signal::SIGHUP);
        pid = server.wait_serving(generation);
        server.wait_state(generation - 1, "draining");
        assert_eq!(server.addresses(generation), server.addresses(1));
    }
}

#[test]
fn a_new_program_that_would_serve_the_content_of_the_old_release_is_warned_of() {
    let dir = tempfile::tempdir().expect("a directory");
    for release in ["1", "2"] {
        let path = dir.path().join("releases").join(release);
        std::fs::create_dir_all(path.join("www")).expect("writable");
        install(HANDOVER, &path.join("server"));
    }
    let current = dir.path().join("current");
    symlink("releases/1", &current).expect("writable");
    // A service manager with `current` as the configured working directory does the same: the process starts in the real
    // directory, without PWD.
    let mut started = command(current.join("server"));
    started.current_dir(&current).env_remove("PWD").args(QUICK).arg("www");
    let server = Server::start(started);
    let second = support::harness::hand_over(&server, 1, server.first_pid());
    let warned = |generation: u64| {
        let lines = server.log().lines();
        let of = |line: &&support::process::Line| {
            line.generation() == generation && line.message().contains("of another release")
        };
        lines.iter().find(of).map(|line| line.message().to_owned())
    };
    assert_eq!((warned(1), warned(2)), (None, None));
    symlink("releases/2", dir.path().join("next")).expect("writable");
    std::fs::rename(dir.path().join("next"), &current).expect("writable");
    signal(second, Signal::SIGHUP);
    server.wait_serving(3);
    let warning = warned(3).expect("a warning");
    assert!(warning.contains(&current.join("www").display().to_string()), "{warning}");
}
