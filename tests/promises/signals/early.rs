//! Signals that arrive before a server listens.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use support::harness::{QUICK, Traffic, example, get, playground, start_copy, wait_until};
use support::process::{Server, command, signal};

use crate::HANDOVER;
use crate::faults::wait_is;

/// A named pipe: a process that reads it blocks for as long as the test has it open for writing.
struct Fifo(PathBuf);

impl Fifo {
    fn make(dir: &Path) -> Fifo {
        let path = dir.join("fifo");
        assert!(Command::new("mkfifo").arg(&path).status().is_ok_and(|status| status.success()));
        Fifo(path)
    }

    /// Waits until a process opens the pipe for reading.
    fn is_read(&self) -> File {
        File::options().write(true).open(&self.0).expect("a reader")
    }

    /// Lets every later read find the pipe empty.
    fn is_empty(&self) {
        let path = self.0.clone();
        std::thread::spawn(move || while File::options().write(true).open(&path).is_ok() {});
    }
}

fn assert_heard(program: Command, fifo: &Fifo) {
    let mut server = Server::launch(program);
    let reading = fifo.is_read();
    signal(server.first_pid(), Signal::SIGHUP);
    fifo.is_empty();
    drop(reading);
    let second = server.wait_serving(2);
    wait_is(&server, second, "serving");
    signal(server.first_pid(), Signal::SIGTERM);
    assert!(server.first_exit().success(), "{}", server.log().history());
}

#[test]
fn a_hup_while_the_binary_reads_its_config_is_not_lost() {
    for supervise in ["--supervise=false", "--supervise"] {
        let dir = tempfile::tempdir().expect("a directory");
        let fifo = Fifo::make(dir.path());
        let mut started = command(HANDOVER);
        started.args(QUICK).arg(supervise).arg("--config").arg(&fifo.0);
        assert_heard(started, &fifo);
    }
}

#[test]
fn a_hup_before_an_embedding_program_has_a_server_is_not_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let fifo = Fifo::make(dir.path());
    let mut started = playground(&["--fault-file"]);
    started.arg(&fifo.0);
    assert_heard(started, &fifo);
}

#[test]
fn a_question_on_the_command_line_is_ended_by_a_hup_as_usual() {
    use std::os::unix::process::ExitStatusExt;
    let dir = tempfile::tempdir().expect("a directory");
    let fifo = Fifo::make(dir.path());
    // These tests may run under nohup(1), which makes their children ignore SIGHUP.
    let mut checked = command("env");
    let checked = checked.args(["--default-signal=HUP", HANDOVER]);
    let mut checked = checked.arg("--check").arg("--config").arg(&fifo.0).spawn().expect("env starts");
    let _reading = fifo.is_read();
    signal(checked.id(), Signal::SIGHUP);
    assert_eq!(checked.wait().expect("a child").signal(), Some(1));
}

/// Installs a program that, the first `times` times, is killed by a signal before it has a handler.
fn release(dir: &Path, signal: &str, times: usize) {
    let marks = dir.join("marks");
    let script = format!(
        "#!/bin/sh\nif [ \"$(ls {0} | wc -l)\" -lt {times} ]; then mktemp -p {0} >/dev/null; kill -{signal} $$; fi\nexec {1} \"$@\"\n",
        marks.display(),
        example("playground").display(),
    );
    let _ = std::fs::remove_dir_all(&marks);
    std::fs::create_dir(&marks).expect("writable");
    let draft = dir.join("draft");
    std::fs::write(&draft, script).expect("writable");
    std::fs::set_permissions(&draft, PermissionsExt::from_mode(0o755)).expect("writable");
    std::fs::rename(draft, dir.join("server")).expect("writable");
}

#[test]
fn a_successor_that_a_hup_ends_in_its_first_milliseconds_is_started_again() {
    let dir = tempfile::tempdir().expect("a directory");
    for word in ["HUP", "USR2"] {
        let server = start_copy(&dir.path().join("server"), &QUICK);
        let traffic = Traffic::fresh(&server);
        release(dir.path(), word, 2);
        signal(server.first_pid(), Signal::SIGHUP);
        server.wait_serving(2);
        server.wait_state(1, "draining");
        traffic.stop_lossless(&server);
    }
}

#[test]
fn a_successor_that_ends_itself_by_hup_is_not_started_for_ever() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start_copy(&dir.path().join("server"), &QUICK);
    release(dir.path(), "HUP", 1_000_000);
    signal(server.first_pid(), Signal::SIGHUP);
    wait_until("the fourth attempt has failed", &server, || {
        let lines = server.log().lines();
        let said = |text| lines.iter().filter(|line| line.message().starts_with(text)).count();
        let last = lines.iter().rev().find_map(|line| line.json["to"].as_str());
        said("successor started") == 4 && said("handover failed") == 4 && last == Some("serving")
    });
    assert!(get(server.address(), "/").contains("generation=1 "));
}
