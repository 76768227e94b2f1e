//! A successor that cannot see the sockets of its predecessor: another network namespace, or no sock_diag.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use support::harness::{Traffic, example, get, install, playground, skip, start_copy};
use support::process::command;

use crate::faults::{assert_next_restart, restart, wait_buried, wait_said};
use crate::sandbox::{self, Refused};

const WIDE: [&str; 6] = ["--listen", "0.0.0.0:0", "--log-format", "json", "--standby", "300ms"];

fn may_unshare() -> bool {
    let tried = command("unshare").args(["--net", "true"]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

#[test]
fn a_successor_in_another_network_namespace_takes_over_nothing() {
    if !may_unshare() {
        return skip("no network namespaces here");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("server");
    let server = start_copy(&program, &WIDE);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], server.address().port()));
    let traffic = Traffic::start(address, support::load::Clients::Fresh, 8);
    let script = format!("#!/bin/sh\nexec unshare --net {} \"$@\"\n", example("playground").display());
    let draft = dir.path().join("draft");
    std::fs::write(&draft, script).expect("writable");
    std::fs::set_permissions(&draft, PermissionsExt::from_mode(0o755)).expect("writable");
    std::fs::rename(draft, &program).expect("writable");
    let child = restart(&server, server.first_pid());
    let failed = wait_buried(&server, child);
    assert!(failed.message().starts_with("handover failed"), "{}", failed.text);
    // The playground prints the debug form of the error; the tests of errors check its display text.
    server
        .log()
        .wait("the successor says why", |line| line.text.contains("PredecessorNotSeen").then_some(()));
    assert!(get(address, "/").contains("generation=1 "));
    install(example("playground"), &program);
    assert_next_restart(&server, server.first_pid());
    traffic.stop_lossless(&server);
}

#[test]
fn a_successor_that_may_not_ask_who_listens_says_so_and_takes_over() {
    let server = sandbox::launch(playground(&[]), Refused::SockDiag);
    server.wait_serving(1);
    let traffic = Traffic::fresh(&server);
    let child = restart(&server, server.first_pid());
    wait_said(&server, child, "cannot see who listens on the port");
    wait_said(&server, child, "serving, took over");
    server.wait_retired(1);
    traffic.stop_lossless(&server);
}
