//! Each mistake is answered with one clear line and an exit status, and a running server keeps serving.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;
use support::harness::{QUICK, Traffic, get, install, skip, start};
use support::process::{Server, command, signal};

use crate::HANDOVER;

fn run(args: &[&str]) -> (Option<i32>, String) {
    finish(command(HANDOVER).args(args))
}

fn finish(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.stderr(Stdio::piped()).output().expect("the program starts");
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

/// Asserts exit status 1 and a single line of stderr that contains each of `words`.
fn assert_one_line((code, stderr): (Option<i32>, String), words: &[&str]) {
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{word:?} is missing: {stderr}");
    }
}

#[test]
fn a_second_start_names_the_process_on_the_port_and_harms_nothing() {
    let server = start(&[]);
    let traffic = Traffic::fresh(&server);
    let (addr, pid) = (server.address().to_string(), server.first_pid().to_string());
    for _ in 0..10 {
        let second = run(&["--listen", &addr]);
        assert_one_line(
            second,
            &[&addr, "in use", "playground", &format!("pid {pid}"), &format!("kill -HUP {pid}")],
        );
    }
    let wildcard = run(&["--listen", &format!("0.0.0.0:{}", server.address().port())]);
    assert_one_line(wildcard, &["in use", &format!("pid {pid}")]);
    let report = traffic.stop_lossless(&server);
    assert!(report.samples.iter().all(|s| s.generation == 1));
}

#[test]
fn an_address_of_another_machine_is_named() {
    assert_one_line(
        run(&["--listen", "192.0.2.1:8080"]),
        &["192.0.2.1:8080", "no interface of this machine"],
    );
}

#[test]
fn a_port_below_1024_without_the_capability_is_explained() {
    let dir = tempfile::tempdir().expect("a directory");
    let copy = dir.path().join("handover");
    install(HANDOVER, &copy);
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
    let mut server = command(copy);
    if nix::unistd::geteuid().is_root() {
        server.uid(65534).gid(65534);
    }
    let allowed = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if allowed.is_ok_and(|port| port.trim() != "1024") {
        return skip("this machine lets everyone bind low ports");
    }
    assert_one_line(
        finish(server.args(["--listen", "127.0.0.1:81"])),
        &["127.0.0.1:81", "CAP_NET_BIND_SERVICE"],
    );
}

#[test]
fn a_root_that_is_missing_or_no_directory_is_named() {
    assert_one_line(run(&["--listen", "127.0.0.1:0", "/no/such/place"]), &["/no/such/place", "No such file"]);
    assert_one_line(run(&["--listen", "127.0.0.1:0", "/dev/null"]), &["/dev/null", "Not a directory"]);
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_would_be_right() {
    for (args, word) in [
        (&["--unheard-of"][..], "--unheard-of"),
        (&["--standby", "5"], "unit"),
        (&["--standby", "soon"], "--standby"),
        (&["--listen", "localhost"], "127.0.0.1:8080"),
        (&["--listen", "127.0.0.1:99999"], "127.0.0.1:8080"),
        (&["--backlog", "-1"], "--backlog"),
        (&["--log-format", "xml"], "json"),
    ] {
        let (code, stderr) = run(args);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(word), "{word:?} is missing: {stderr}");
    }
}

#[test]
fn a_time_above_a_year_is_refused_for_every_flag() {
    let help = command(HANDOVER).arg("--help").stdout(Stdio::piped()).output().expect("it starts").stdout;
    let help = String::from_utf8(help).expect("UTF-8");
    let flags = help.lines().filter(|line| line.contains("<TIME>"));
    let flags: Vec<_> = flags.filter_map(|line| line.trim_start().split(' ').next()).collect();
    assert!(flags.len() > 9, "{flags:?}");
    for flag in flags {
        for time in ["18446744073709551615s", "580000000000y", "366d"] {
            for check in [&["--check"][..], &["--listen", "127.0.0.1:0"]] {
                let (code, stderr) = run(&[check, &[flag, time]].concat());
                assert_eq!(code, Some(2), "{flag} {time}: {stderr}");
                assert!(stderr.contains(flag), "{flag} {time}: {stderr}");
            }
        }
        assert_eq!(run(&["--check", flag, "365d"]).0, Some(0), "{flag}");
    }
}

#[test]
fn a_pid_file_that_cannot_be_written_is_found_before_anything_is_bound() {
    let server = start(&[]);
    let addr = server.address().to_string();
    // The port is taken, so an error about the pid file shows that nothing was bound yet.
    let file = run(&["--listen", &addr, "--pid-file", "/no/such/place/handover.pid"]);
    assert_one_line(file, &["/no/such/place/handover.pid", "pid file"]);
    assert_one_line(run(&["--listen", &addr, "--pid-file", "/tmp"]), &["/tmp", "pid file"]);
}

#[test]
fn a_second_server_leaves_the_pid_file_of_the_first_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("pid");
    let file = file.to_str().expect("UTF-8");
    let server = start(&["--pid-file", file]);
    let (code, _) = run(&["--listen", &server.address().to_string(), "--pid-file", file]);
    assert_eq!(code, Some(1));
    assert_eq!(std::fs::read_to_string(file).expect("it is there").trim(), server.first_pid().to_string());
}

#[test]
fn a_successor_of_another_user_is_refused_and_explained() {
    use std::os::unix::fs::{PermissionsExt, chown};
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can make a program that runs as another user");
    }
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("we own it");
    let program = dir.path().join("server");
    install(HANDOVER, &program);
    let mut started = command(&program);
    started.args(QUICK);
    let server = Server::start(started);
    chown(&program, Some(65534), Some(65534)).expect("root may");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).expect("root may");
    signal(server.first_pid(), Signal::SIGHUP);
    server.log().wait_for("same user");
    server.wait_state(1, "serving");
    assert!(get(server.address(), "/").contains("generation 1"));
}

#[test]
fn a_server_that_cannot_steer_connections_warns_once_and_serves() {
    // A seccomp filter that refuses SO_ATTACH_REUSEPORT_CBPF, as a sandbox would.
    let sandbox = r#"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
ins = lambda code, jt, jf, k: struct.pack("HBBI", code, jt, jf, k)
prog = b"".join([ins(0x20, 0, 0, 0), ins(0x15, 0, 5, 54), ins(0x20, 0, 0, 24), ins(0x15, 0, 3, 1),
                 ins(0x20, 0, 0, 32), ins(0x15, 0, 1, 51), ins(0x06, 0, 0, 0x00050001), ins(0x06, 0, 0, 0x7fff0000)])
buf = ctypes.create_string_buffer(prog)
fprog = struct.pack("HxxxxxxQ", len(prog) // 8, ctypes.addressof(buf))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, fprog, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"#;
    let runs = Command::new("python3").arg("-c").arg("").status().is_ok_and(|status| status.success());
    if !runs || !cfg!(target_arch = "x86_64") {
        return skip("needs python3 on x86_64 for a sandbox");
    }
    let mut started = command("python3");
    started.args(["-c", sandbox]).arg(support::harness::example("playground")).args(QUICK);
    let server = Server::start(started);
    let warning = server.log().wait_for("cannot be steered");
    assert_eq!(warning.json["level"], "WARN");
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_serving(2);
    server.wait_state(1, "draining");
    server.log().wait_for("retired");
    assert!(get(server.address(), "/").contains("generation=2 "));
    let said = |generation| {
        let lines = server.log().lines();
        lines
            .iter()
            .filter(|l| l.message().contains("cannot be steered") && l.generation() == generation)
            .count()
    };
    assert_eq!((said(1), said(2)), (1, 1), "{}", server.log().history());
}
