//! The selection of one of several servers that the same user runs.

use std::path::Path;
use std::process::Command;

use support::harness::{QUICK, get};
use support::process::{RUNTIME, Server, command};

use super::{Said, handover, root};
use crate::HANDOVER;

/// Starts a server with the default control directory, below `base`.
fn usual(base: &Path) -> Server {
    let mut started = command(HANDOVER);
    started.args(QUICK).arg(root(base)).env(RUNTIME, base);
    Server::start(started)
}

fn asked(base: &Path, args: &[&str]) -> Command {
    let mut asked = handover(args);
    asked.env(RUNTIME, base);
    asked
}

#[test]
fn two_servers_of_one_user_are_told_apart_by_their_address() {
    let base = tempfile::tempdir().expect("a directory");
    let one = usual(base.path());
    let ask = |args: &[&str]| Said::of(&mut asked(base.path(), args));
    let pid = |server: &Server| format!("pid {}", server.first_pid());
    ask(&["reload"]).assert(0, &[&format!("asked generation 1, {}", pid(&one))]);
    let two = usual(base.path());
    let flag = |server: &Server| format!("--listen {}", server.address());
    for args in [&["reload"][..], &["status"], &["stop"], &["upgrade", HANDOVER]] {
        let said = ask(args);
        said.assert(1, &["2 servers are running", &flag(&one), &flag(&two), &pid(&two)]);
    }
    let address = two.address().to_string();
    ask(&["reload", "--listen", &address]).assert(0, &[&format!("asked generation 1, {}", pid(&two))]);
    ask(&["stop", "--listen", &address]).assert(0, &["no generation is left"]);
    assert!(two.alive().is_empty());
    assert!(get(one.address(), "/").contains("200 OK"));
    ask(&["stop", "--listen", &address]).assert(3, &["no server is running on", &address]);
    // Only one server is left, so no address is needed.
    ask(&["stop"]).assert(0, &[]);
    let left = std::fs::read_dir(base.path().join("handover")).expect("the directory is kept").count();
    assert_eq!(left, 0, "the directories of both are gone");
}

#[test]
fn a_directory_to_serve_that_is_named_like_a_subcommand_is_reached_by_its_path() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("reload")).expect("writable");
    let mut started = command(HANDOVER);
    started.current_dir(dir.path()).args(QUICK).arg("./reload");
    let server = Server::start(started);
    assert!(get(server.address(), "/").contains("404"));
}

#[test]
fn a_server_without_control_serves_but_is_not_found() {
    let base = tempfile::tempdir().expect("a directory");
    let mut started = command(HANDOVER);
    started.args(QUICK).arg("--no-control").arg(root(base.path())).env(RUNTIME, base.path());
    let server = Server::start(started);
    Said::of(&mut asked(base.path(), &["status"])).assert(3, &["no server is running"]);
    assert!(!base.path().join("handover").exists());
    assert!(get(server.address(), "/").contains("200 OK"));
}

#[test]
fn wrong_usage_of_a_subcommand_says_what_would_be_right() {
    let flag_first = Said::of(&mut handover(&["--control", "/tmp/x", "reload"]));
    flag_first.assert(1, &["`handover reload` must come before its flags"]);
    Said::of(&mut handover(&["stop", "--standby", "1s"])).assert(2, &["--standby"]);
    Said::of(&mut handover(&["stop", "--control", "x", "--listen", "127.0.0.1:80"])).assert(2, &["--listen"]);
    Said::of(&mut handover(&["--control", "/tmp/x", "--no-control"])).assert(2, &["--no-control"]);
    Said::of(&mut handover(&["upgrade"])).assert(2, &["NEW_BINARY"]);
}
