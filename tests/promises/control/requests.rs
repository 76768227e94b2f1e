//! Requests to a control socket, whatever they contain and whichever user sends them, do the server no harm.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::harness::{Traffic, install, skip};
use support::process::{PATIENCE, command, signal};

use super::{Operated, Said};
use crate::HANDOVER;

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Reads until the server closes. A server that closes before it has read the whole request causes an error behind the
/// answer, which is ignored.
fn rest(mut stream: UnixStream) -> String {
    let (mut all, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => all.extend_from_slice(&chunk[..n]),
            Err(error) => {
                assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "not closed: {all:?}");
                break;
            }
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

fn exchange(it: &Operated, bytes: &[u8]) -> String {
    let mut stream = connect(&it.socket());
    let _ = stream.write_all(bytes);
    rest(stream)
}

#[test]
fn malformed_and_oversized_requests_are_refused_and_harmless() {
    let it = Operated::start(&[]);
    let traffic = Traffic::fresh(&it.server);
    let head = format!("GET /status HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    let body =
        format!("POST /stop HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n{}", "z".repeat(100_000));
    let chunks = format!(
        "POST /stop HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2000\r\n{}\r\n0\r\n\r\n",
        "z".repeat(0x2000)
    );
    for (sent, answer) in [
        (&*head, "HTTP/1.1 431"),
        (&body, "HTTP/1.1 413"),
        (&chunks, "HTTP/1.1 413"),
        ("nonsense\r\n\r\n", "HTTP/1.1 400"),
        ("\0\x01\x02\u{ff}\r\n\r\n", "HTTP/1.1 400"),
        ("GET /status HTTP/1.1\r\ncontent-length: x\r\n\r\n", "HTTP/1.1 400"),
        ("GET /secrets HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP/1.1 404"),
        ("GET /stop HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP/1.1 405"),
        ("POST /status HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP/1.1 405"),
        ("POST /upgrade HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP/1.1 400"),
        ("POST /upgrade?file=../x HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP/1.1 400"),
        ("POST /upgrade?file=missing HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP/1.1 400"),
        ("GET /version HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc", "HTTP/1.1 200"),
    ] {
        let got = exchange(&it, sent.as_bytes());
        assert!(
            got.starts_with(answer),
            "{answer} expected to {:?}: {got:?}",
            sent.chars().take(80).collect::<String>()
        );
    }
    it.ask(&["reload", "--wait-drained"]).assert(0, &[]);
    traffic.stop_lossless(&it.server);
}

#[test]
fn silent_clients_delay_neither_a_handover_nor_the_exit_and_the_next_client_gets_503() {
    let it = Operated::start(&["--idle-grace", "100ms"]);
    let traffic = Traffic::fresh(&it.server);
    // Half of them send nothing, and half begin a request.
    let silent: Vec<_> = (0..64)
        .map(|n| {
            let mut stream = connect(&it.socket());
            stream.write_all(if n % 2 == 0 { b"" } else { b"GET /sta" }).expect("the server listens");
            stream
        })
        .collect();
    let refused = exchange(&it, b"GET /status HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    signal(it.server.first_pid(), Signal::SIGHUP);
    it.server.wait_serving(2);
    let began = Instant::now();
    it.server.wait_retired(1);
    support::harness::wait_until("the first generation has exited", &it.server, || {
        !support::harness::is_alive(it.server.first_pid())
    });
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    traffic.stop_lossless(&it.server);
    drop(silent);
}

#[test]
fn silent_clients_are_closed_after_a_while_so_that_others_can_ask() {
    let it = Operated::start(&[]);
    let silent: Vec<_> = (0..64).map(|_| connect(&it.socket())).collect();
    for stream in silent {
        rest(stream);
    }
    it.ask(&["status"]).assert(0, &["serving"]);
}

#[test]
fn the_last_line_reaches_everyone_who_waits_for_the_end_of_a_generation() {
    let it = Operated::start(&[]);
    // Most of these requests join the first reload. One that came after the flip would be refused, so the flip waits for
    // `go`.
    let go = it.path("go");
    it.next_is(&format!("while [ ! -e {} ]; do sleep 0.02; done; exec {HANDOVER} \"$@\"", go.display()));
    let lines = "host: x\r\naccept: application/x-ndjson";
    let asking: Vec<_> = (0..60)
        .map(|_| {
            let mut stream = connect(&it.socket());
            let asked = format!("POST /reload?wait=drained HTTP/1.0\r\n{lines}\r\n\r\n");
            stream.write_all(asked.as_bytes()).expect("the server listens");
            // The head of the answer shows that this client is waiting now.
            stream.read_exact(&mut [0; 12]).expect("an answer");
            stream
        })
        .collect();
    std::fs::write(go, "").expect("writable");
    for stream in asking {
        let answer = rest(stream);
        assert!(answer.contains("\"step\":\"drained\""), "{answer}");
    }
}

#[test]
fn curl_works_as_a_client() {
    let it = Operated::start(&[]);
    let curl = |args: &[&str]| {
        let mut curl = command("curl");
        curl.args(["-sS", "--max-time", "60", "--unix-socket"]).arg(it.socket()).args(args);
        Said::of(&mut curl)
    };
    if !command("curl").arg("--version").status().is_ok_and(|status| status.success()) {
        return skip("curl is not installed");
    }
    curl(&["http://x/version"]).assert(0, &["\"name\": \"handover\"", "\"version\""]);
    it.next_is("echo no luck >&2; exit 5");
    let failed = curl(&["-w", "%{http_code}", "-X", "POST", "http://x/reload"]);
    failed.assert(0, &["exit status: 5", "no luck", "\"outcome\": \"failed\"", "500"]);
    install(HANDOVER, &it.path("server"));
    let lines = curl(&["-X", "POST", "-H", "accept: application/x-ndjson", "http://x/reload?wait=drained"]);
    lines.assert(0, &["\"step\":\"asked\"", "\"step\":\"took over\"", "\"step\":\"drained\""]);
}

#[test]
fn another_user_is_refused_even_with_access_to_the_socket() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can ask as another user");
    }
    let it = Operated::start(&[]);
    for path in [it.dir.path(), &it.control(), &it.socket(), &it.path("server")] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).expect("we own it");
    }
    let mut asked = command("setpriv");
    asked.args(["--reuid", "65534", "--clear-groups", "curl", "-sS", "--max-time", "20", "--unix-socket"]);
    let said = Said::of(asked.arg(it.socket()).arg("http://x/status"));
    assert!(said.stdout.contains("only the user of this server and root may ask"), "{said:?}");
    it.ask(&["status"]).assert(0, &["serving"]);
}

#[test]
fn a_socket_is_there_from_before_a_generation_serves() {
    let it = Operated::start(&[]);
    // Once the log says that a generation serves, its control socket exists.
    for generation in 2..6 {
        let pid = it.server.wait_serving(generation - 1);
        it.server.log().wait_for("serving");
        assert!(it.control().join(format!("{pid}.sock")).exists());
        signal(pid, Signal::SIGHUP);
        it.server.wait_serving(generation);
        it.server.wait_state(generation - 1, "draining");
    }
}
