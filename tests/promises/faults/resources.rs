//! The machine runs out of disk space, descriptors, threads or processes.

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use support::harness::{
    Client, QUICK, Traffic, example, install, leave_descriptors, skip, start, wait_until,
};
use support::process::{Server, command, signal};

use crate::HANDOVER;
use crate::faults::{assert_next_restart, restart, wait_buried, wait_is, wait_said};

fn works(program: &str, args: &[&str]) -> bool {
    command(program).args(args).stderr(std::process::Stdio::null()).status().is_ok_and(|s| s.success())
}

/// Starts a server with its pid file on a separate small disk. Returns the server, and the path to the disk from outside
/// the server's mount namespace.
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

/// Fills the disk to the last byte, and returns the file that fills it.
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
        "only the pid file and the file that fills the disk are left"
    );
    traffic.stop_lossless(&server);
}

#[test]
fn a_pid_file_without_room_on_the_disk_is_written_as_soon_as_there_is_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some((server, disk)) = start_on_a_small_disk(dir.path(), "1s") else { return };
    let traffic = Traffic::fresh(&server);
    let second = restart(&server, server.first_pid());
    wait_is(&server, server.first_pid(), "standby");
    std::fs::remove_file(disk.join("pid")).expect("writable");
    let full = fill(&disk);
    server.log().wait("the successor cannot write it either", |line| {
        (line.pid() == second && line.message().starts_with("cannot write the pid file")).then_some(())
    });
    let disk = PathBuf::from(format!("/proc/{second}/root{}/disk", dir.path().display()));
    std::fs::remove_file(disk.join(full.file_name().expect("a name"))).expect("writable");
    // No restart happens in between.
    wait_until("the pid file is right again", &server, || {
        std::fs::read_to_string(disk.join("pid")).is_ok_and(|text| text.trim() == second.to_string())
    });
    server.log().wait_for("the pid file is right again");
    assert_next_restart(&server, second);
    traffic.stop_lossless(&server);
}

#[test]
fn a_handover_without_free_descriptors_succeeds_and_waiting_requests_are_answered() {
    let server = start(&["--max-connections", "1000"]);
    leave_descriptors(server.first_pid(), 10);
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

/// Runs programs as a user without other processes, so only the processes of the test count towards a limit.
struct Lonely {
    user: &'static str,
    dir: tempfile::TempDir,
}

impl Lonely {
    fn new(user: &'static str, program: impl AsRef<Path>) -> Option<Lonely> {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let lonely = Lonely { user, dir };
        if !nix::unistd::geteuid().is_root()
            || !works("setpriv", &[&lonely.drop_root()[..], &["true"]].concat())
        {
            skip("only root can become a user to whom a process limit applies");
            return None;
        }
        std::fs::set_permissions(lonely.dir.path(), PermissionsExt::from_mode(0o755)).expect("we own it");
        install(program, &lonely.program());
        Some(lonely)
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("server")
    }

    fn drop_root(&self) -> [&'static str; 5] {
        ["--reuid", self.user, "--regid", self.user, "--clear-groups"]
    }

    fn runs(&self, program: &str) -> std::process::Command {
        let mut started = command("setpriv");
        started.args(self.drop_root()).arg(program);
        started
    }

    /// Leaves a process room for `room` more threads. The same user sets the limit, which needs no capability.
    fn limit(&self, pid: u32, room: usize) {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives").count();
        let (pid, nproc) = (pid.to_string(), format!("--nproc={}:", threads + room));
        let mut prlimit = self.runs("prlimit");
        assert!(prlimit.args(["--pid", &pid, &nproc]).status().is_ok_and(|s| s.success()), "prlimit");
    }
}

#[test]
fn a_generation_that_gets_no_more_threads_still_reads_files() {
    let Some(lonely) = Lonely::new("64125", HANDOVER) else { return };
    let mut started = lonely.runs(lonely.program().to_str().expect("UTF-8"));
    std::fs::write(lonely.dir.path().join("index.html"), "generation=1 of a file\n").expect("writable");
    started.args(QUICK).arg("--no-control").arg(lonely.dir.path());
    let server = Server::start(started);
    let pid = server.first_pid();
    lonely.limit(pid, 0);
    let traffic = Traffic::start(server.address(), support::load::Clients::Fresh, 64);
    wait_until("every client is answered", &server, || traffic.is_under_way());
    // A new thread for reading files would take the room of the next process.
    traffic.stop_lossless(&server);
    lonely.limit(pid, 1);
    let child = restart(&server, pid);
    let failed = wait_buried(&server, child);
    assert_eq!(failed.json["status"], "exit status: 1", "{}", failed.text);
    server.log().wait("the child says why", |line| line.text.contains("threads are needed").then_some(()));
    lonely.limit(pid, 1000);
    assert_next_restart(&server, pid);
    assert!(!server.log().history().contains("panicked"), "{}", server.log().history());
}

#[test]
fn a_start_with_too_few_processes_allowed_is_one_clear_error() {
    let Some(lonely) = Lonely::new("64126", HANDOVER) else { return };
    for nproc in 1..=5 {
        let mut started = lonely.runs("prlimit");
        started.arg(format!("--nproc={nproc}")).arg(lonely.program()).args(&QUICK[..2]);
        let output = started.stderr(std::process::Stdio::piped()).output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{nproc}: {said}");
        assert!(said.starts_with("ERROR cannot start: ") && said.contains("ulimit -u"), "{nproc}: {said}");
        assert_eq!(said.lines().count(), 1, "{nproc}: {said}");
    }
}

#[test]
fn a_handover_without_room_for_another_process_fails_and_succeeds_once_there_is() {
    let Some(lonely) = Lonely::new("64123", example("playground")) else { return };
    let mut started = lonely.runs(lonely.program().to_str().expect("UTF-8"));
    started.args(QUICK);
    let server = Server::start(started);
    let pid = server.first_pid();
    let traffic = Traffic::fresh(&server);
    lonely.limit(pid, 0);
    signal(pid, Signal::SIGHUP);
    server.log().wait_for("handover failed: cannot start");
    // There is room for a process, but not for its threads.
    lonely.limit(pid, 1);
    let child = restart(&server, pid);
    let failed = wait_buried(&server, child);
    assert!(failed.message().starts_with("handover failed"), "{}", failed.text);
    lonely.limit(pid, 1000);
    assert_next_restart(&server, pid);
    traffic.stop_lossless(&server);
}
