//! A server is found again after its address or its control directory has changed, by its user and by root.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::harness::{QUICK, install, skip, wait_until};
use support::process::{RUNTIME, Server, command, signal};

use super::{Said, handover, root};
use crate::HANDOVER;

fn usual(base: &Path) -> Server {
    let mut started = command(HANDOVER);
    started.args(QUICK).arg(root(base)).env(RUNTIME, base);
    Server::start(started)
}

#[test]
fn a_server_whose_first_address_changes_stays_one_server() {
    let base = tempfile::tempdir().expect("a directory");
    let config = base.path().join("handover.toml");
    let listen = |addresses: &str| {
        fs::write(&config, format!("log-format = 'json'\nstandby = '1h'\nlisten = {addresses}\n"))
            .expect("writable");
    };
    listen("'127.0.0.1:0'");
    let mut started = command(HANDOVER);
    started.arg("--config").arg(&config).env(RUNTIME, base.path());
    let server = Server::start(started);
    let before = server.address();
    let other = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    listen(&format!("['{other}', '{before}']"));
    let ask = |args: &[&str]| Said::of(handover(args).env(RUNTIME, base.path()));
    ask(&["reload"]).assert(0, &["generation 2"]);
    // Generation 1 stays in standby for an hour.
    let status = |args: &[&str]| -> Vec<Value> {
        let said = ask(&[&["status", "--json"][..], args].concat());
        assert_eq!(said.code, Some(0), "{said:?}");
        serde_json::from_str(&said.stdout).expect("JSON")
    };
    for which in [&[][..], &["--listen", &other.to_string()], &["--listen", &before.to_string()]] {
        let all = status(which);
        assert_eq!((all.len(), &all[1]["generation"]), (2, &2.into()), "{which:?}: {all:?}");
        assert_eq!(all[0]["service"], all[1]["service"]);
    }
    ask(&["stop", "--now", "--listen", &other.to_string()]).assert(0, &["generation 1", "generation 2"]);
}

#[test]
fn a_control_socket_whose_directory_was_removed_is_created_again() {
    let base = tempfile::tempdir().expect("a directory");
    let server = usual(base.path());
    let ask = |args: &[&str]| Said::of(handover(args).env(RUNTIME, base.path()));
    ask(&["status"]).assert(0, &["serving"]);
    fs::remove_dir_all(base.path().join("handover")).expect("writable");
    ask(&["status"]).assert(3, &["no server is running"]);
    wait_until("the socket is there again", &server, || ask(&["status"]).code == Some(0));
    server.log().wait_for("the control socket was gone");
    ask(&["reload"]).assert(0, &["generation 2"]);
    ask(&["stop"]).assert(0, &["no generation is left"]);
    let left = fs::read_dir(base.path().join("handover")).expect("the directory is kept").count();
    assert_eq!(left, 0);
}

#[test]
fn a_control_socket_is_created_elsewhere_when_the_directory_of_the_session_is_gone() {
    // A private /run, where the servers of root have their control directory if there is no session.
    let private = "mount -t tmpfs tmpfs /run && exec \"$@\"";
    let unshare = |program: &[&str]| {
        let mut unshare = command("unshare");
        unshare.args(["--mount", "sh", "-c", private, "sh"]).args(program);
        unshare
    };
    let works = unshare(&["true"]).stderr(std::process::Stdio::null()).status().is_ok_and(|s| s.success());
    if !works || !nix::unistd::geteuid().is_root() {
        return skip("may not mount");
    }
    let base = tempfile::tempdir().expect("a directory");
    let session = base.path().join("session");
    fs::create_dir(&session).expect("writable");
    fs::set_permissions(&session, PermissionsExt::from_mode(0o700)).expect("we own it");
    let mut started = unshare(&[HANDOVER]);
    started.args(QUICK).arg(root(base.path())).env_remove(RUNTIME).env("XDG_RUNTIME_DIR", &session);
    let server = Server::start(started);
    assert_eq!(fs::read_dir(session.join("handover")).expect("the directory exists").count(), 1);
    let pid = server.first_pid().to_string();
    let ask = |args: &[&str]| {
        let mut asked = command("nsenter");
        asked.args(["--target", &pid, "--mount", HANDOVER]).args(args).env_remove(RUNTIME);
        Said::of(asked.env("XDG_RUNTIME_DIR", &session))
    };
    ask(&["status"]).assert(0, &["serving"]);
    // The user logs out.
    fs::remove_dir_all(&session).expect("writable");
    wait_until("the server is found elsewhere", &server, || ask(&["status"]).code == Some(0));
    server.log().wait_for("/run/handover/");
    ask(&["reload"]).assert(0, &["generation 2"]);
    // The successor that was started after the logout has a control socket too.
    ask(&["status"]).assert(0, &["standby", "serving"]);
}

#[test]
fn root_operates_the_server_of_another_user_and_does_not_upgrade_it() {
    const USER: &str = "64126";
    if !nix::unistd::geteuid().is_root() {
        return skip("only root may operate the servers of other users");
    }
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("we own it");
    let program = dir.path().join("server");
    install(HANDOVER, &program);
    let mut started = command("setpriv");
    started.args(["--reuid", USER, "--regid", USER, "--clear-groups"]).arg(&program).args(QUICK);
    started.env_remove(RUNTIME).env_remove("XDG_RUNTIME_DIR");
    let server = Server::start(started);
    let address = server.address().to_string();
    let ask = |args: &[&str]| {
        let mut asked = handover(args);
        asked.args(["--listen", &address]).env_remove(RUNTIME).env_remove("XDG_RUNTIME_DIR");
        Said::of(&mut asked)
    };
    ask(&["reload"]).assert(0, &[&format!("asked generation 1, pid {}", server.first_pid())]);
    ask(&["status"]).assert(0, &["serving"]);
    ask(&["upgrade", HANDOVER]).assert(1, &[&format!("belongs to uid {USER}")]);
    ask(&["stop"]).assert(0, &["no generation is left"]);
    signal(server.first_pid(), Signal::SIGKILL);
    let _ = fs::remove_dir_all(format!("/tmp/handover-{USER}"));
}
