//! Foreign listeners on the port, forged environments, and processes between the generations.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use socket2::{Domain, Socket, Type};
use support::harness::{QUICK, Traffic, example, get, install, skip, start, start_copy};
use support::process::{Server, command};

use crate::faults::{assert_next_restart, restart, wait_buried, wait_is, wait_said};

/// Opens a foreign listener: a socket of this process in the port group of `addr`. It accepts nothing, so connections that
/// reach it wait in vain.
pub(crate) fn join(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&addr.into())?;
    socket.listen(16)?;
    Ok(socket.into())
}

#[test]
fn a_third_member_of_the_group_is_named_and_stops_the_handover_before_the_flip() {
    let server = start(&[]);
    let traffic = Traffic::fresh(&server);
    let stranger = join(server.address()).expect("the same user may join");
    let child = restart(&server, server.first_pid());
    let failed = wait_buried(&server, child);
    assert!(failed.message().starts_with("handover failed"), "{}", failed.text);
    // The playground prints the `Debug` form of its error; the readable text is tested beside the error type.
    server.log().wait("the foreign listener is named", |line| {
        (line.text.contains("ForeignListener") && line.text.contains(&format!("pid {}", std::process::id())))
            .then_some(())
    });
    assert!(get(server.address(), "/").contains("generation=1 "));
    drop(stranger);
    assert_next_restart(&server, server.first_pid());
    traffic.stop_lossless(&server);
}

#[test]
fn a_third_member_that_joins_in_standby_gets_nothing_when_the_old_generation_leaves() {
    let server = start(&["--standby", "1s"]);
    let traffic = Traffic::fresh(&server);
    let second = restart(&server, server.first_pid());
    wait_is(&server, server.first_pid(), "standby");
    let stranger = join(server.address()).expect("the same user may join");
    server.wait_retired(1);
    let refused = restart(&server, second);
    wait_buried(&server, refused);
    for _ in 0..20 {
        assert!(get(server.address(), "/").contains("generation=2 "));
    }
    drop(stranger);
    let third = assert_next_restart(&server, second);
    assert!(get(server.address(), "/").contains(&format!("pid={third}")));
    traffic.stop_lossless(&server);
}

#[test]
fn another_user_cannot_join_the_port_and_harms_nothing() {
    const USER: &str = "64124";
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can start a server as another user");
    }
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("we own it");
    let program = dir.path().join("server");
    install(example("playground"), &program);
    let mut started = command("setpriv");
    started.args(["--reuid", USER, "--regid", USER, "--clear-groups"]).arg(&program).args(QUICK);
    let server = Server::start(started);
    let traffic = Traffic::fresh(&server);
    let refused = join(server.address()).expect_err("root is another user, too");
    assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse);
    assert_next_restart(&server, server.first_pid());
    traffic.stop_lossless(&server);
}

#[test]
fn a_forged_environment_makes_no_successor() {
    let server = start(&[]);
    let traffic = Traffic::fresh(&server);
    let (addr, pid) = (server.address().to_string(), server.first_pid());
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let fields = stat.rsplit_once(')').expect("proc_pid_stat(5)").1;
    let began = fields.split_whitespace().nth(19).expect("22 fields");
    for parent in [pid.to_string(), format!("{pid}@{began}"), "1".into(), "0".into(), u32::MAX.to_string()] {
        let mut forged = command(crate::HANDOVER);
        forged.args(["--listen", &addr]).stderr(Stdio::piped());
        forged.env("HANDOVER_PARENT", &parent).env("HANDOVER_GENERATION", "1").env("HANDOVER_LISTEN", &addr);
        let output = forged.output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{parent}: {said}");
        assert!(said.contains("address in use") && said.contains(&format!("pid {pid}")), "{parent}: {said}");
    }
    wait_said(&server, pid, "serving");
    assert_next_restart(&server, pid);
    let report = traffic.stop_lossless(&server);
    assert!(report.first_answers().keys().eq([&1, &2]), "{}", server.log().history());
}

#[test]
fn a_grandchild_that_inherits_the_variables_of_a_living_parent_takes_nothing_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("server");
    let server = start_copy(&program, &QUICK);
    let traffic = Traffic::fresh(&server);
    let (addr, child) = (server.address(), example("playground"));
    // The script does not replace itself by `exec`, so the server is the grandchild of the old generation.
    let script = format!("#!/bin/sh\n{} --listen {addr} --log-format json\nexit $?\n", child.display());
    let draft = dir.path().join("draft");
    std::fs::write(&draft, script).expect("writable");
    std::fs::set_permissions(&draft, PermissionsExt::from_mode(0o755)).expect("we own it");
    std::fs::rename(draft, &program).expect("writable");
    let wrapper = restart(&server, server.first_pid());
    let failed = wait_buried(&server, wrapper);
    assert_eq!(failed.json["status"], "exit status: 1", "{}", failed.text);
    server.log().wait("the port is in use", |line| line.text.contains("InUse").then_some(()));
    install(child, &program);
    assert_next_restart(&server, server.first_pid());
    let report = traffic.stop_lossless(&server);
    assert!(report.first_answers().keys().eq([&1, &2]), "{}", server.log().history());
}

#[test]
fn a_foreign_listener_that_joins_is_named_within_seconds_and_no_generation_is_taken_for_one() {
    let server = start(&["--standby", "5s"]);
    let stranger = join(server.address()).expect("the same user may join");
    let me = std::process::id();
    let warning = server.log().wait_for("is none of this server's processes");
    assert_eq!((&warning.json["level"], &warning.json["foreign"]), (&"WARN".into(), &me.into()));
    drop(stranger);
    server.log().wait_for("no other process listens on");
    // Both generations listen for more than two intervals of the check.
    let second = restart(&server, server.first_pid());
    wait_said(&server, second, "serving, took over");
    server.wait_retired(1);
    let named =
        |line: &&support::process::Line| line.message().contains("is none of this server's processes");
    assert_eq!(server.log().lines().iter().filter(named).count(), 1, "{}", server.log().history());
}
