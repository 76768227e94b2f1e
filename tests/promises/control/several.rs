//! Servers that share a control directory, an address or a pid file: no server is stopped by mistake, and the second one
//! logs a warning.

use std::net::SocketAddr;
use std::path::Path;

use support::harness::{QUICK, get, is_alive, skip, wait_until};
use support::process::{RUNTIME, Server, command};

use super::{Said, handover, root};
use crate::HANDOVER;
use crate::admin::ask as ask_admin;

/// Starts a server with an admin address and a control directory that it shares with another server.
fn sharing(control: &Path, base: &Path) -> Server {
    let mut started = command(HANDOVER);
    started.args(QUICK).args(["--admin", "127.0.0.1:0", "--control"]).arg(control).arg(root(base));
    Server::start(started)
}

fn requests(server: &Server) -> u64 {
    let (_, text) = ask_admin(server.addresses(1)[1], "GET", "/metrics", "");
    let lines = text.lines().filter(|line| line.starts_with("handover_requests_total"));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

#[test]
fn two_servers_in_one_control_directory_are_never_stopped_together_and_count_separately() {
    let base = tempfile::tempdir().expect("a directory");
    let control = base.path().join("control");
    let (one, two) = (sharing(&control, base.path()), sharing(&control, base.path()));
    let warning = two.log().wait_for("is the control directory of another server, too");
    assert_eq!(warning.json["level"], "WARN");
    assert_eq!(warning.json["other"], one.first_pid(), "{}", warning.text);
    let ask = |args: &[&str]| Said::of(handover(args).arg("--control").arg(&control));
    for args in [&["stop"][..], &["stop", "--now"], &["reload"], &["reopen"]] {
        let said = ask(args);
        said.assert(1, &["control directory of several servers", &two.first_pid().to_string()]);
        assert!(is_alive(one.first_pid()) && is_alive(two.first_pid()), "{said:?}");
    }
    (0..3).for_each(|_| assert!(get(one.address(), "/").contains("200 OK")));
    assert!(get(two.address(), "/").contains("200 OK"));
    wait_until("each counts its own requests", &one, || (requests(&one), requests(&two)) == (3, 1));
    drop(one);
    ask(&["stop"]).assert(0, &[&format!("pid {}", two.first_pid()), "no generation is left"]);
}

#[test]
fn a_server_that_is_stopping_does_not_count_as_another_server() {
    let base = tempfile::tempdir().expect("a directory");
    let control = base.path().join("control");
    let one = sharing(&control, base.path());
    let mut slow = support::harness::Client::connect(one.address());
    slow.get("/");
    let told = ["stop", "--control"];
    let mut stop = handover(&told).arg(&control).spawn().expect("the program starts");
    one.wait_state(1, "draining");
    let two = sharing(&control, base.path());
    Said::of(handover(&["reload", "--control"]).arg(&control))
        .assert(0, &[&format!("pid {}", two.first_pid())]);
    assert!(!two.log().history().contains("another server"), "{}", two.log().history());
    drop(slow);
    let _ = stop.kill();
    let _ = stop.wait();
}

#[test]
fn the_same_address_in_two_network_namespaces_is_two_servers() {
    let isolated = || {
        let mut unshare = command("unshare");
        unshare.args(["--net", "sh", "-c", "ip link set lo up || exit 77; exec \"$@\"", "sh"]);
        unshare
    };
    if !isolated().arg("true").stderr(std::process::Stdio::null()).status().is_ok_and(|s| s.success()) {
        return skip("no network namespace");
    }
    let base = tempfile::tempdir().expect("a directory");
    let mut started = command(HANDOVER);
    started.args(QUICK).arg(root(base.path())).env(RUNTIME, base.path());
    let one = Server::start(started);
    let address: SocketAddr = one.address();
    let mut started = isolated();
    started.arg(HANDOVER).args(QUICK).args(["--listen", &address.to_string()]);
    started.arg(root(base.path())).env(RUNTIME, base.path());
    let two = Server::start(started);
    let ask = |args: &[&str]| Said::of(handover(args).env(RUNTIME, base.path()));
    ask(&["status"]).assert(1, &["2 servers are running", &base.path().display().to_string()]);
    let address = address.to_string();
    ask(&["reload", "--listen", &address])
        .assert(0, &[&format!("asked generation 1, pid {}", one.first_pid())]);
    ask(&["stop", "--listen", &address]).assert(0, &["no generation is left"]);
    assert!(is_alive(two.first_pid()));
    // The second server is found from inside its namespace as well, and then from outside.
    let mut inside = command("nsenter");
    let pid = two.first_pid().to_string();
    inside
        .args(["--target", &pid, "--net", HANDOVER, "reload", "--listen", &address])
        .env(RUNTIME, base.path());
    Said::of(&mut inside).assert(0, &[&format!("asked generation 1, pid {pid}")]);
    ask(&["stop", "--listen", &address]).assert(0, &["generation 2", "no generation is left"]);
}

#[test]
fn two_servers_with_one_pid_file_log_a_warning() {
    let base = tempfile::tempdir().expect("a directory");
    let file = base.path().join("pid");
    let start = || {
        let mut started = command(HANDOVER);
        started.args(QUICK).arg("--pid-file").arg(&file).arg(root(base.path()));
        Server::start(started)
    };
    let (one, two) = (start(), start());
    let warned = |server: &Server, other: u32| {
        let warning = server.log().wait_for("another server keeps its pid in the same pid file");
        assert_eq!(warning.json["other"], other, "{}", warning.text);
    };
    warned(&two, one.first_pid());
    // The first server notices when it hands over.
    let second = support::harness::hand_over(&one, 1, one.first_pid());
    warned(&one, two.first_pid());
    assert_ne!(second, one.first_pid());
    assert_eq!(two.log().lines().iter().filter(|l| l.message().contains("same pid file")).count(), 1);
}
