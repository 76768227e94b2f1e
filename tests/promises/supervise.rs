//! The supervisor: its pid stays the same, whichever generation serves.

use std::process::{Command, Stdio};

use serde_json::Value;
use support::harness::{QUICK, playground, skip, wait_until};
use support::process::{Server, command};

use crate::HANDOVER;

mod around;
mod container;
mod deaths;
mod in_front;
mod late;
mod manager;
mod managers;
mod terminal;

/// The command of the playground with a supervisor.
fn supervised(args: &[&str]) -> Command {
    let mut command = playground(args);
    command.arg("--supervise");
    command
}

/// Adds the arguments to serve a page that the load generator understands.
pub(crate) fn site(program: Command, dir: &tempfile::TempDir, args: &[&str]) -> Command {
    let root = dir.path().join("root");
    std::fs::create_dir_all(&root).expect("writable");
    std::fs::write(root.join("index.html"), "generation=1 of a file\n").expect("writable");
    let mut command = program;
    command.args(QUICK).args(args).arg(root);
    command
}

fn binary() -> Command {
    command(HANDOVER)
}

/// Returns the child processes of a process, including zombies.
fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Waits until the supervisor logs that it runs; returns the pid of the first generation.
fn wait_in_front(server: &Server) -> u32 {
    let line = server.log().wait_for("supervising the generations");
    u32::try_from(line.json["first"].as_u64().unwrap_or(0)).expect("a pid")
}

pub(crate) fn wait_gone(server: &Server) {
    wait_until("no process is left", server, || server.alive().is_empty());
}

fn number(line: &support::process::Line, field: &str) -> u32 {
    line.json.get(field).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
}

/// Returns the command that starts a program as pid 1 of a new namespace, if this machine permits that.
fn as_pid_1() -> Option<Command> {
    let namespace = ["--pid", "--fork", "--kill-child", "--mount-proc"];
    let users: [&[&str]; 2] = [&["--user", "--map-root-user"], &[]];
    for user in users {
        let mut unshare = command("unshare");
        unshare.args(user).args(namespace).arg("--");
        let tried = Command::new("unshare")
            .args(user)
            .args(namespace)
            .args(["--", "true"])
            .stderr(Stdio::null())
            .status();
        if tried.is_ok_and(|status| status.success()) {
            return Some(unshare);
        }
    }
    skip("no pid namespaces here, so nothing can be pid 1");
    None
}

/// Returns the pid of the namespace's pid 1, as seen from outside.
fn front(server: &Server) -> u32 {
    wait_until("pid 1 is started", server, || !children(server.first_pid()).is_empty());
    children(server.first_pid())[0]
}
