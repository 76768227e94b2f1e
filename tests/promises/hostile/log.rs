//! Log lines cannot be forged: whatever a client, a path or the environment contains, a line of the log is one event, and
//! nothing in it moves a terminal's cursor.

use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use support::harness::{QUICK, example, install};
use support::process::{Server, command, signal};

use super::exchange;
use crate::HANDOVER;

/// A name that ends one line, begins another, and paints it red.
const FORGED: &str = "x\n2026-01-01T00:00:00.000000Z ERROR forged\r\x1b[31m\x07\t";

/// The events in `log`. Panics unless each line is one event.
fn events(log: &str) -> Vec<&str> {
    let lines: Vec<_> = log.split_terminator('\n').collect();
    for line in &lines {
        let stamped = line.get(..28).is_some_and(|stamp| {
            let digits = stamp.bytes().filter(u8::is_ascii_digit).count();
            digits == 20 && stamp.ends_with("Z ")
        });
        assert!(
            stamped && !line.get(28..).is_some_and(|rest| rest.starts_with("ERROR forged")),
            "{line:?} in\n{log}"
        );
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    lines
}

/// The stderr of a server that cannot start.
fn failure(command: &mut Command) -> String {
    let output = command.stderr(Stdio::piped()).output().expect("the program starts");
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).expect("the log is UTF-8")
}

#[test]
fn a_name_in_an_error_adds_no_log_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join(FORGED).join("missing");
    let text = || {
        let mut text = command(HANDOVER);
        text.args(["--listen", "127.0.0.1:0"]);
        text
    };
    let root = failure(text().arg(&missing));
    assert_eq!(events(&root).len(), 1, "{root}");
    assert!(root.contains(r"x\n2026-") && root.contains(r"\r\x1b[31m\x07\t/missing"), "{root}");
    let pid_file = failure(text().arg("--pid-file").arg(&missing));
    assert_eq!(events(&pid_file).len(), 1, "{pid_file}");
    // A name that is not UTF-8 adds no line either.
    let latin = std::ffi::OsString::from_vec(b"/no/\xe4\n\x9b31m".to_vec());
    assert_eq!(events(&failure(text().arg(latin))).len(), 1);
}

#[test]
fn the_name_of_the_process_that_has_the_port_adds_no_log_line() {
    let dir = tempfile::tempdir().expect("a directory");
    // The kernel keeps 15 bytes of a process name.
    let program = dir.path().join("x\nERROR \x1b[31m");
    install(example("playground"), &program);
    let mut holder = command(&program);
    holder.args(QUICK);
    let holder = Server::start(holder);
    let error = failure(command(HANDOVER).args(["--listen", &holder.address().to_string()]));
    assert_eq!(events(&error).len(), 1, "{error}");
    assert!(error.contains(r"x\nERROR \x1b[31m (pid"), "{error}");
}

#[test]
fn no_request_and_no_environment_adds_a_log_line_even_when_everything_is_logged() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join(FORGED);
    std::fs::create_dir(&root).expect("writable");
    let program = dir.path().join(format!("server{FORGED}"));
    install(HANDOVER, &program);
    let mut started = command(&program);
    started.args(QUICK).args(["--log-format", "text", "-vv"]).arg(&root);
    for name in handover::ENVIRONMENT {
        started.env(name, FORGED);
    }
    let server = Server::launch(started);
    let field = |text: &str, name: &str| {
        let value = text.split_once(&format!(" {name}="))?.1;
        Some(value.split(' ').next()?.trim_matches('"').to_owned())
    };
    let serving = |generation: u32| {
        server.log().wait(&format!("generation {generation} serves"), |line| {
            let is_it = line.text.contains("INFO serving")
                && line.text.contains(&format!("generation={generation} "));
            is_it
                .then(|| (field(&line.text, "pid")?.parse::<u32>().ok(), field(&line.text, "listen")).into())
                .flatten()
        })
    };
    let (pid, listen): (Option<u32>, Option<String>) = serving(1);
    let addr = listen.and_then(|addr| addr.parse().ok()).expect("an address");
    let attack = || {
        for request in [
            "GET /a%0a2026-01-01T00:00:00.000000Z%20ERROR%20forged HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n",
            "GET /%1b%5b31m%07%0d HTTP/1.1\r\nhost: \u{9b}31m\r\nconnection: close\r\nx: \u{85}\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: t\r\nx: \x1b[31m\r\n\r\n",
            "\x1b[31m\n2026-01-01T00:00:00.000000Z ERROR forged\n\n",
        ] {
            exchange(addr, request.as_bytes());
        }
    };
    attack();
    // The error that the program cannot be started contains the program's name.
    std::fs::rename(&program, dir.path().join("elsewhere")).expect("writable");
    signal(pid.expect("a pid"), Signal::SIGHUP);
    server.log().wait("the start has failed", |line| line.text.contains("cannot start").then_some(()));
    attack();
    install(HANDOVER, &program);
    signal(pid.expect("a pid"), Signal::SIGHUP);
    let (successor, _) = serving(2);
    attack();
    signal(successor.expect("a pid"), Signal::SIGTERM);
    server.log().wait("the server has stopped", |line| line.text.contains("INFO stopped").then_some(()));
    let lines: String = server.log().lines().iter().map(|line| format!("{}\n", line.text)).collect();
    assert!(events(&lines).len() > 8, "{lines}");
}
