//! A control directory from a flag that cannot be trusted is refused before anything is taken over. Without the flag, a
//! default directory that cannot be used is only a warning.

use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::signal::Signal;
use support::harness::{QUICK, Traffic, get, skip};
use support::process::{RUNTIME, Server, command, signal};

use super::{Operated, Said, handover, root};
use crate::HANDOVER;

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("we own it");
}

fn start_with(dir: &Path) -> Said {
    Said::of(handover(&["--listen", "127.0.0.1:0", "--control"]).arg(dir))
}

#[test]
fn a_directory_that_others_may_enter_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    for open in [0o755, 0o710, 0o777, 0o701] {
        mode(dir.path(), open);
        let said = start_with(dir.path());
        said.assert(
            1,
            &["control directory", &format!("{open:o}"), "chmod 700", dir.path().to_str().expect("UTF-8")],
        );
        assert_eq!(said.stderr.lines().count(), 1, "{said:?}");
    }
}

#[test]
fn a_directory_of_another_user_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can give a directory away");
    }
    let dir = tempfile::tempdir().expect("a directory");
    chown(dir.path(), Some(65534), None).expect("root may");
    start_with(dir.path()).assert(1, &["control directory", "uid 65534", "--control"]);
}

#[test]
fn a_file_and_a_path_that_is_too_long_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("file"), "").expect("writable");
    start_with(&dir.path().join("file")).assert(1, &["file", "--control"]);
    start_with(&dir.path().join("file/below")).assert(1, &["file/below", "not a directory"]);
    let long = dir.path().join("x".repeat(100));
    start_with(&long).assert(1, &["bytes", "107", "--control"]);
}

#[test]
fn a_successor_that_cannot_use_the_directory_fails_and_the_old_generation_goes_on() {
    let it = Operated::start(&[]);
    let traffic = Traffic::fresh(&it.server);
    mode(&it.control(), 0o755);
    it.ask(&["reload"]).assert(1, &["others may enter it", "goes on serving"]);
    mode(&it.control(), 0o700);
    it.ask(&["reload"]).assert(0, &["generation 2"]);
    traffic.stop_lossless(&it.server);
}

/// Starts a server with the default control directory, below `base/run`.
fn usual(base: &Path) -> Server {
    let mut started = command(HANDOVER);
    started.args(QUICK).arg(root(base)).env(RUNTIME, base.join("run"));
    Server::start(started)
}

#[test]
fn a_default_directory_that_cannot_be_used_is_a_warning_and_there_is_no_control() {
    let base = tempfile::tempdir().expect("a directory");
    let run = base.path().join("run");
    let warned = |server: Server, why: &str| {
        let warning = server.log().wait_for("no control socket");
        assert_eq!(warning.json["level"], "WARN");
        assert!(warning.message().contains(why), "{}", warning.text);
        signal(server.first_pid(), Signal::SIGHUP);
        server.wait_serving(2);
        assert!(get(server.address(), "/").contains("200 OK"));
    };
    warned(usual(base.path()), "no such file");
    std::fs::create_dir(&run).expect("writable");
    std::fs::create_dir(run.join("handover")).expect("writable");
    mode(&run.join("handover"), 0o755);
    warned(usual(base.path()), "others may enter it");
    std::fs::remove_dir(run.join("handover")).expect("writable");
    let elsewhere = base.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("writable");
    mode(&elsewhere, 0o700);
    symlink(&elsewhere, run.join("handover")).expect("writable");
    warned(usual(base.path()), "symbolic link");
    assert_eq!(std::fs::read_dir(&elsewhere).expect("readable").count(), 0);
}

#[test]
fn the_socket_of_a_dead_process_is_removed_and_that_of_a_living_process_is_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    mode(dir.path(), 0o700);
    // A pid above the maximum of Linux (4194304), and the pid of this process.
    let (dead, alive) =
        (dir.path().join("99999999.sock"), dir.path().join(format!("{}.sock", std::process::id())));
    for path in [&dead, &alive] {
        drop(UnixListener::bind(path).expect("a socket"));
    }
    std::fs::write(dir.path().join("notes.txt"), "").expect("writable");
    let none = Said::of(handover(&["status", "--control"]).arg(dir.path()));
    none.assert(3, &["no server is running"]);
    let mut started = command(HANDOVER);
    started.args(QUICK).arg("--control").arg(dir.path());
    let server = Server::start(started);
    assert!(!dead.exists());
    assert!(alive.exists() && dir.path().join("notes.txt").exists());
    let said = Said::of(handover(&["reload", "--control"]).arg(dir.path()));
    said.assert(0, &[&format!("asked generation 1, pid {}", server.first_pid())]);
}

#[test]
fn the_socket_that_a_killed_generation_leaves_does_not_prevent_a_start() {
    let it = Operated::start(&[]);
    it.ask(&["reload"]).assert(0, &[]);
    it.server.wait_retired(1);
    let second = it.server.wait_serving(2);
    it.ask(&["reload"]).assert(0, &[]);
    let third = it.server.wait_serving(3);
    it.server.wait_state(2, "draining");
    signal(third, Signal::SIGKILL);
    let socket = it.control().join(format!("{third}.sock"));
    support::harness::wait_until("no generation is alive", &it.server, || it.server.alive().is_empty());
    assert!(socket.exists() && !it.control().join(format!("{second}.sock")).exists());
    it.ask(&["status"]).assert(3, &["no server is running"]);
    let mut again = command(it.path("server"));
    again.args(QUICK).arg("--control").arg(it.control()).arg(root(it.dir.path()));
    let again = Server::start(again);
    assert!(!socket.exists());
    it.ask(&["stop"]).assert(0, &[&format!("pid {}", again.first_pid())]);
}
