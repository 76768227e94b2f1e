//! A server may write files into directories of another user, who must gain nothing by that.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;
use support::harness::{QUICK, install, skip, wait_until};
use support::process::{Server, command, signal};

use crate::HANDOVER;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("we own it");
}

#[test]
fn a_pid_file_is_never_written_through_a_planted_link() {
    let dir = tempfile::tempdir().expect("a directory");
    let (victim, run) = (dir.path().join("victim"), dir.path().join("run"));
    fs::create_dir(&run).expect("writable");
    fs::write(&victim, "precious").expect("writable");
    // The server has the pid of the shell, so this link is the one that an attacker who guesses the pid would plant.
    let trap = "ln -s \"$0\" \"$1/.pid.$$\"; shift; exec \"$@\"";
    let mut started = command("sh");
    started.args(["-c", trap]).arg(&victim).arg(&run).arg(HANDOVER).args(QUICK);
    started.arg("--pid-file").arg(run.join("pid"));
    let server = Server::start(started);
    let pid = || fs::read_to_string(run.join("pid")).unwrap_or_default();
    wait_until("the pid file is there", &server, || pid().trim() == server.first_pid().to_string());
    signal(server.first_pid(), Signal::SIGHUP);
    let second = server.wait_serving(2);
    server.wait_retired(1);
    assert_eq!(pid().trim(), second.to_string());
    assert_eq!(fs::read_to_string(&victim).expect("the file exists"), "precious");
    assert!(!fs::symlink_metadata(run.join("pid")).expect("the file exists").is_symlink());
    assert_eq!(fs::read_dir(&run).expect("readable").count(), 2, "the trap and the pid file");
}

#[test]
fn a_log_is_never_written_through_a_link_in_a_directory_that_others_may_write_to() {
    let dir = tempfile::tempdir().expect("a directory");
    let (victim, logs) = (dir.path().join("victim"), dir.path().join("logs"));
    fs::create_dir(&logs).expect("writable");
    fs::write(&victim, "precious").expect("writable");
    symlink(&victim, logs.join("link")).expect("writable");
    fs::hard_link(&victim, logs.join("name")).expect("writable");
    mode(&logs, 0o777);
    for (file, why) in [("link", "symbolic link"), ("name", "second name")] {
        for flags in [&["--log-file"][..], &["--access-log", "json", "--access-log-file"]] {
            for check in [&[][..], &["--check"]] {
                let mut started = command("timeout");
                started.args(["20", HANDOVER, "--listen", "127.0.0.1:0"]).args(check).args(flags);
                let output = started.arg(logs.join(file)).stderr(Stdio::piped()).output().expect("it starts");
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{file}: {said}");
                assert!(said.contains(why), "{file}: {said}");
            }
        }
    }
    assert_eq!(fs::read_to_string(&victim).expect("the file exists"), "precious");
    // In a directory that only the owner can write to, a link is the owner's wish, for instance to /dev/stdout.
    mode(&logs, 0o755);
    let mut started = command(HANDOVER);
    started.args(["--listen", "127.0.0.1:0", "--log-file"]).arg(logs.join("link"));
    let server = Server::launch(started);
    wait_until("the log says that the server serves", &server, || {
        fs::read_to_string(&victim).is_ok_and(|text| text.starts_with("precious") && text.contains("serving"))
    });
}

#[test]
fn a_control_socket_is_for_its_user_only_whatever_the_umask() {
    for umask in ["0", "777"] {
        let dir = tempfile::tempdir().expect("a directory");
        mode(dir.path(), 0o700);
        let mut started = command("sh");
        started.args(["-c", "umask $0; exec \"$@\"", umask, HANDOVER]).args(QUICK);
        started.arg("--control").arg(dir.path());
        let server = Server::start(started);
        let socket = dir.path().join(format!("{}.sock", server.first_pid()));
        let about = fs::metadata(&socket).expect("the file exists");
        assert_eq!(about.permissions().mode() & 0o777, 0o600, "umask {umask}");
    }
}

#[test]
fn a_umask_that_leaves_the_owner_no_permission_causes_neither_an_error_nor_a_warning() {
    const USER: &str = "64127";
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can become another user");
    }
    let dir = tempfile::tempdir().expect("a directory");
    mode(dir.path(), 0o755);
    let home = dir.path().join("home");
    fs::create_dir(&home).expect("writable");
    std::os::unix::fs::chown(&home, Some(64127), Some(64127)).expect("root may");
    install(HANDOVER, &dir.path().join("server"));
    let mut started = command("setpriv");
    started.args([
        "--reuid",
        USER,
        "--regid",
        USER,
        "--clear-groups",
        "sh",
        "-c",
        "umask 777; exec \"$@\"",
        "sh",
    ]);
    started.arg(dir.path().join("server")).args(QUICK).arg("--control").arg(home.join("run/control"));
    started.arg("--pid-file").arg(home.join("pid")).args(["--access-log", "json", "--access-log-file"]);
    let server = Server::start({
        started.arg(home.join("access"));
        started
    });
    signal(server.first_pid(), Signal::SIGHUP);
    let second = server.wait_serving(2);
    server.wait_retired(1);
    assert!(support::harness::get(server.address(), "/").contains("generation 2,"));
    signal(second, Signal::SIGTERM);
    server.log().wait_for("stopped");
    wait_until("the pid file is gone", &server, || !home.join("pid").exists());
    let warned = |line: &&support::process::Line| line.json["level"] != "INFO";
    assert_eq!(server.log().lines().iter().filter(warned).count(), 0, "{}", server.log().history());
}
