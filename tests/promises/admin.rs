//! The admin address: the control interface over TCP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use support::harness::{Traffic, get, install};
use support::load::Clients;
use support::process::{PATIENCE, Server, command};

use crate::HANDOVER;

mod metrics;
mod upgrade;

const TOKEN: &str = "0123456789abcdef";

/// A server with an admin address on loopback.
struct Administered {
    server: Server,
    program: PathBuf,
    dir: tempfile::TempDir,
}

impl Administered {
    fn start(args: &[&str]) -> Administered {
        let dir = tempfile::tempdir().expect("a directory");
        let program = dir.path().join("server");
        install(HANDOVER, &program);
        // The load generator expects an answer of this form.
        std::fs::write(dir.path().join("index.html"), "generation=0 of a file\n").expect("writable");
        let mut command = command(&program);
        command.arg(dir.path());
        command.args(["--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--log-format=json", "--standby=300ms"]);
        command.args(args).arg("--control").arg(dir.path().join("control"));
        Administered { server: Server::start(command), program, dir }
    }

    fn site(&self) -> SocketAddr {
        self.server.addresses(1)[0]
    }

    fn admin(&self) -> SocketAddr {
        self.server.addresses(1)[1]
    }

    fn ask(&self, method: &str, path: &str) -> (u16, String) {
        ask(self.admin(), method, path, "")
    }
}

/// Sends one request with additional headers. Returns the status and the body.
pub(crate) fn ask(addr: SocketAddr, method: &str, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let host = if headers.contains("host:") { "" } else { "host: localhost\r\n" };
    let request = format!("{method} {path} HTTP/1.1\r\n{host}connection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("the other side reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server answers and closes");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The error line of the binary for flags that it refuses.
fn refusal(args: &[&str]) -> String {
    let mut refused = command(HANDOVER);
    refused.args(["--listen=127.0.0.1:0", "--no-control"]).args(args).stderr(Stdio::piped());
    let output = refused.output().expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

fn token_file(dir: &Path, text: &str, mode: u32) -> PathBuf {
    let path = dir.join("token");
    std::fs::write(&path, text).expect("writable");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("we own it");
    path
}

#[test]
fn a_reload_over_tcp_is_answered_although_the_process_that_answers_is_replaced() {
    let service = Administered::start(&[]);
    let traffic = Traffic::start(service.site(), Clients::Fresh, 8);
    for _ in 0..5 {
        let before = json(&service.ask("GET", "/version").1)["pid"].as_u64();
        let (status, body) = service.ask("POST", "/reload");
        assert_eq!(status, 200, "{body}");
        let successor = json(&body)["successor"].as_u64();
        assert_ne!(before, successor);
        assert_eq!(json(&service.ask("GET", "/version").1)["pid"].as_u64(), successor);
        assert_eq!(json(&service.ask("GET", "/status").1)["last_handover"]["outcome"], "took over");
    }
    traffic.stop_lossless(&service.server);
}

#[test]
fn a_reload_that_fails_is_answered_with_what_the_successor_said() {
    let service = Administered::start(&[]);
    let draft = service.dir.path().join("draft");
    std::fs::write(&draft, "#!/bin/sh\necho no database >&2\nexit 7\n").expect("writable");
    std::fs::set_permissions(&draft, PermissionsExt::from_mode(0o755)).expect("we own it");
    std::fs::rename(&draft, &service.program).expect("writable");
    let (status, body) = service.ask("POST", "/reload");
    let said = json(&body);
    assert_eq!(
        (status, &said["status"], &said["stderr"][0]),
        (500, &"exit status: 7".into(), &"no database".into())
    );
    let (_, body) = service.ask("GET", "/status");
    assert_eq!(json(&body)["last_handover"]["outcome"], "failed", "{body}");
    install(HANDOVER, &service.program);
    assert_eq!(service.ask("POST", "/reload").0, 200);
}

#[test]
fn a_server_with_a_token_refuses_requests_without_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = token_file(dir.path(), &format!("{TOKEN}\n"), 0o600);
    let service = Administered::start(&["--admin-token-file", file.to_str().expect("UTF-8")]);
    for path in ["/version", "/status", "/metrics", "/nothing"] {
        for wrong in [
            "",
            "authorization: Bearer 0123456789abcdeX\r\n",
            "authorization: Bearer \r\n",
            "authorization: x\r\n",
        ] {
            assert_eq!(ask(service.admin(), "GET", path, wrong).0, 401, "{path} {wrong}");
        }
    }
    assert_eq!(ask(service.admin(), "POST", "/reload", "").0, 401);
    let right = format!("authorization: bearer {TOKEN}\r\n");
    assert_eq!(ask(service.admin(), "GET", "/version", &right).0, 200);
    assert_eq!(ask(service.admin(), "POST", "/reload", &right).0, 200);
    // The site needs no token, and the admin paths do not exist on it.
    assert!(get(service.site(), "/status").contains("404 Not Found"));
}

#[test]
fn a_page_in_a_browser_cannot_use_an_admin_address_without_a_token() {
    let service = Administered::start(&[]);
    let ask = |headers: &str| ask(service.admin(), "POST", "/reload", headers).0;
    assert_eq!(ask("origin: http://example.com\r\n"), 403);
    assert_eq!(ask("host: example.com\r\n"), 403);
    assert_eq!(ask("host: 127.0.0.1.example.com:80\r\n"), 403);
    assert_eq!(ask("host: [::1]:9000\r\n"), 200);
}

#[test]
fn each_mistake_in_the_admin_settings_is_one_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |text: &str, mode| token_file(dir.path(), text, mode).to_str().expect("UTF-8").to_owned();
    let with = |path: &str| refusal(&["--admin=0.0.0.0:0", "--admin-token-file", path]);
    assert!(refusal(&["--admin=0.0.0.0:0"]).contains("name a token with --admin-token-file"));
    assert!(with(&file(TOKEN, 0o644)).contains("others may read or write it (mode 644); chmod 600 it"));
    assert!(with(&file("short", 0o600)).contains("its token has 5 bytes; take at least 16"));
    assert!(with("/nowhere/token").contains("there is no such file"));
    assert!(with("/").contains("it is no regular file"));
    assert!(refusal(&["--admin-token-file=token"]).contains("name one with --admin"));
    // The address may come from the config and the token file from a flag.
    let config = dir.path().join("config.toml");
    std::fs::write(&config, "admin = '0.0.0.0:0'\n").expect("writable");
    let config = config.to_str().expect("UTF-8");
    assert!(
        refusal(&["--config", config, "--admin-token-file=/nowhere/token"]).contains("there is no such file")
    );
}

#[test]
fn unknown_requests_to_the_admin_address_are_refused_and_harmless() {
    let service = Administered::start(&[]);
    assert_eq!(service.ask("GET", "/").0, 404);
    assert_eq!(service.ask("POST", "/stop").0, 404);
    assert_eq!(service.ask("GET", "/reload").0, 405);
    assert_eq!(service.ask("DELETE", "/status").0, 405);
    assert_eq!(ask(service.admin(), "GET", "/status", &format!("x: {}\r\n", "y".repeat(300_000))).0, 200);
    assert_eq!(service.ask("GET", "/version").0, 200);
}

/// Runs a program with this input. Returns whether it succeeded, and its stdout and stderr.
fn feed(program: &str, args: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program is installed");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("the other side reads");
    let output = child.wait_with_output().expect("a child");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}
