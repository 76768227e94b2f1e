//! The machine runs out of something.

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::faults::{assert_next_restart, restart, wait_buried, wait_is, wait_said};
use crate::harness::{Client, QUICK, Traffic, example, install, skip, wait_until};
use crate::process::{Server, command, signal};

fn works(program: &str, args: &[&str]) -> bool {
    command(program).args(args).stderr(std::process::Stdio::null()).status().is_ok_and(|s| s.success())
}

/// A server whose pid file lies on a small disk of its own, and the way to that disk for others.
fn start_on_a_small_disk(dir: &Path, standby: &str) -> Option<(Server, PathBuf)> {
    let mount = "mount -t tmpfs -o size=16k tmpfs \"$0\" && exec \"$@\"";
    let disk = dir.join("disk");
    std::fs::create_dir(&disk).expect("writable");
    if !works("unshare", &["--mount", "sh", "-c", mount, disk.to_str().expect("UTF-8"), "true"]) {
        skip("may not mount");
        return None;
    }
    let mut started = command("unshare");
    started.args(["--mount", "sh", "-c", mount]).arg(&disk).arg(example("playground")).args(QUICK);
    started.args(["--standby", standby, "--pid-file"]).arg(disk.join("pid"));
    let server = Server::start(started);
    let seen = format!("/proc/{}/root{}", server.first_pid(), disk.display());
    Some((server, seen.into()))
}

/// Fills the disk to the last byte.
fn fill(disk: &Path) -> PathBuf {
    use std::io::Write;
    let path = disk.join("fill");
    let mut file = std::fs::File::create(&path).expect("there is room for a name");
    while file.write_all(&[0; 512]).is_ok() {}
    path
}

#[test]
fn a_full_disk_refuses_no_restart_and_the_pid_file_is_overwritten_in_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some((server, disk)) = start_on_a_small_disk(dir.path(), "300ms") else { return };
    let traffic = Traffic::fresh(&server);
    fill(&disk);
    let second = assert_next_restart(&server, server.first_pid());
    server.wait_retired(1);
    let disk = PathBuf::from(format!("/proc/{second}/root{}/disk", dir.path().display()));
    wait_until("the pid file names the successor", &server, || {
        std::fs::read_to_string(disk.join("pid")).is_ok_and(|text| text == format!("{second}\n"))
    });
    let said = server.log().wait_for("there is no room to write the pid file");
    assert_eq!((&said.json["level"], said.pid()), (&"WARN".into(), second));
    assert_eq!(
        std::fs::read_dir(&disk).expect("readable").count(),
        2,
        "no draft is left beside what fills it"
    );
    traffic.stop_lossless(&server);
}

#[test]
fn a_pid_file_for_which_there_is_no_room_at_all_is_right_as_soon_as_there_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some((server, disk)) = start_on_a_small_disk(dir.path(), "1s") else { return };
    let traffic = Traffic::fresh(&server);
    let second = restart(&server, server.first_pid());
    wait_is(&server, server.first_pid(), "standby");
    std::fs::remove_file(disk.join("pid")).expect("ours");
    let full = fill(&disk);
    server.log().wait("the successor cannot write it either", |line| {
        (line.pid() == second && line.message().starts_with("cannot write the pid file")).then_some(())
    });
    let disk = PathBuf::from(format!("/proc/{second}/root{}/disk", dir.path().display()));
    std::fs::remove_file(disk.join(full.file_name().expect("a name"))).expect("ours");
    // Nobody restarts meanwhile.
    wait_until("the pid file is right again", &server, || {
        std::fs::read_to_string(disk.join("pid")).is_ok_and(|text| text.trim() == second.to_string())
    });
    server.log().wait_for("the pid file is right again");
    assert_next_restart(&server, second);
    traffic.stop_lossless(&server);
}

#[test]
fn a_handover_without_free_descriptors_succeeds_and_what_waits_is_answered() {
    let mut limited = command("sh");
    limited.args(["-c", "ulimit -n 24; exec \"$@\"", "sh"]).arg(example("playground")).args(QUICK);
    limited.args(["--max-connections", "1000"]);
    let server = Server::start(limited);
    let idle: Vec<_> = (0..30).map(|_| Client::connect(server.address())).collect();
    server.log().wait_for("cannot accept");
    let traffic = Traffic::fresh(&server);
    let mut waiting = Client::connect(server.address());
    waiting.send("/");
    let second = restart(&server, server.first_pid());
    wait_said(&server, second, "serving, took over");
    server.wait_state(1, "draining");
    drop(idle);
    assert!(waiting.answer().contains("generation=1 "));
    server.wait_retired(1);
    assert_next_restart(&server, second);
    traffic.stop_lossless(&server);
}

#[test]
fn a_handover_without_room_for_another_process_fails_and_succeeds_once_there_is() {
    use std::os::unix::fs::PermissionsExt;
    // Nobody else has this user, so the processes that count are the server's.
    const USER: &str = "64123";
    let drop_root = ["--reuid", USER, "--regid", USER, "--clear-groups"];
    if !nix::unistd::geteuid().is_root() || !works("setpriv", &[&drop_root[..], &["true"]].concat()) {
        return skip("only root can become a user that a limit of processes holds for");
    }
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("ours");
    let program = dir.path().join("server");
    install(example("playground"), &program);
    let mut started = command("setpriv");
    started.args(drop_root).arg(&program).args(QUICK);
    let server = Server::start(started);
    let pid = server.first_pid();
    let traffic = Traffic::fresh(&server);
    // Set by the same user, who may do so without a capability.
    let limit = |room: usize| {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it lives").count();
        let (pid, nproc) = (pid.to_string(), format!("--nproc={}:", threads + room));
        assert!(works("setpriv", &[&drop_root[..], &["prlimit", "--pid", &pid, &nproc]].concat()), "prlimit");
    };
    limit(0);
    signal(pid, Signal::SIGHUP);
    server.log().wait_for("handover failed: cannot start");
    // Room for a process, and not for its threads.
    limit(1);
    let child = restart(&server, pid);
    let failed = wait_buried(&server, child);
    assert!(failed.message().starts_with("handover failed"), "{}", failed.text);
    limit(1000);
    assert_next_restart(&server, pid);
    traffic.stop_lossless(&server);
}
