//! Clients that half-close: some have gone, and others only say that their request is the last.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::harness::{Client, QUICK, get, start, wait_until};
use support::process::{PATIENCE, Server, command, signal};

use crate::HANDOVER;

/// The requests, and the expected body of each answer.
fn exchanges() -> Vec<(String, String)> {
    let of = |n: usize| "x".repeat(n);
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: test\r\n\r\n");
    let chunked =
        "POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    vec![
        (get("/bytes?n=100"), of(100)),
        (get("/bytes?n=8388608"), of(8 << 20)),
        (get("/slow?ms=300"), String::new()),
        (
            "POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello".to_owned(),
            "hello".to_owned(),
        ),
        (
            format!("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 300000\r\n\r\n{}", of(300_000)),
            of(300_000),
        ),
        (chunked.to_owned(), "5\r\nhello\r\n0\r\n\r\n".to_owned()),
        ("GET /bytes?n=100 HTTP/1.0\r\n\r\n".to_owned(), of(100)),
        (get("/stream?n=3&ms=100"), String::new()),
    ]
}

/// Sends a request, half-closes the connection, and reads the whole answer.
fn ask_and_end(addr: SocketAddr, request: &str) -> String {
    let mut client = Client::connect(addr);
    let mut writer = client.0.try_clone().expect("a descriptor");
    let request = request.to_owned();
    // An echo arrives while the request is still being written.
    let asks = std::thread::spawn(move || {
        writer.write_all(request.as_bytes()).expect("the connection is open");
        writer.shutdown(Shutdown::Write).expect("the connection is open");
    });
    let mut all = String::new();
    let end = client.0.read_to_string(&mut all);
    asks.join().expect("the thread does not panic");
    assert!(end.is_ok(), "{end:?} after {} bytes", all.len());
    all
}

fn assert_complete(answer: &str, body: &str, request: &str) {
    let head = request.lines().next().unwrap_or_default();
    let (said, got) =
        answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{head}: no head in {answer:?}"));
    assert!(said.starts_with("HTTP/1.1 200") || said.starts_with("HTTP/1.0 200"), "{head}: {said}");
    if said.contains("transfer-encoding: chunked") {
        assert!(got.ends_with("0\r\n\r\n"), "{head}: {} bytes", got.len());
    } else if body.is_empty() {
        assert!(got.starts_with("generation="), "{head}: {got}");
    } else {
        assert!(got == body, "{head}: {} bytes of {}", got.len(), body.len());
    }
}

#[test]
fn a_client_that_half_closes_after_its_request_gets_its_whole_answer() {
    let server = start(&[]);
    for (request, body) in exchanges() {
        for _ in 0..10 {
            assert_complete(&ask_and_end(server.address(), &request), &body, &request);
        }
    }
}

#[test]
fn a_lame_duck_answers_a_client_that_half_closes_after_its_request_too() {
    let server = start(&["--idle-grace", "20s"]);
    let mut waiting: Vec<_> =
        exchanges().into_iter().map(|exchange| (Client::connect(server.address()), exchange)).collect();
    get(server.address(), "/");
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_state(1, "draining");
    for (client, (request, body)) in &mut waiting {
        let mut writer = client.0.try_clone().expect("a descriptor");
        let (asked, mut answer) = (request.clone(), String::new());
        let asks = std::thread::spawn(move || {
            writer.write_all(asked.as_bytes()).expect("the connection is open");
            writer.shutdown(Shutdown::Write).expect("the connection is open");
        });
        client.0.read_to_string(&mut answer).expect("closed properly");
        asks.join().expect("the thread does not panic");
        assert_complete(&answer, body, request);
        assert!(
            answer.to_ascii_lowercase().contains("connection: close"),
            "{}",
            &answer[..answer.len().min(300)]
        );
    }
    server.wait_retired(1);
    assert_eq!(server.log().wait_for("retired").json["cut"], 0);
}

#[test]
fn files_are_served_whole_to_a_client_that_half_closes_after_its_request() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = [("small", 100), ("large", 8 << 20)];
    for (name, size) in files {
        std::fs::write(dir.path().join(name), "x".repeat(size)).expect("writable");
    }
    let mut served = command(HANDOVER);
    served.args(QUICK).arg(dir.path());
    let server = Server::start(served);
    for (name, size) in files {
        let request = format!("GET /{name} HTTP/1.1\r\nhost: test\r\n\r\n");
        for _ in 0..50 {
            assert_complete(&ask_and_end(server.address(), &request), &"x".repeat(size), &request);
        }
    }
}

/// The number of open descriptors of a process.
fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

#[test]
fn handlers_of_a_thousand_clients_that_left_are_gone_within_the_timeout() {
    let timeout = Duration::from_secs(2);
    for target in ["/events?ms=3600000", "/slow?ms=3600000"] {
        let server = start(&["--half-close-timeout", "2s"]);
        get(server.address(), "/");
        let clients: Vec<_> = (0..1000)
            .map(|_| {
                let mut client = Client::connect(server.address());
                client.send(target);
                client
            })
            .collect();
        wait_until("all are connected", &server, || descriptors(server.first_pid()) > 1000);
        // Connections are accepted in order, so each handler runs once this one is answered.
        get(server.address(), "/");
        let left = Instant::now();
        drop(clients);
        wait_until("all are gone", &server, || descriptors(server.first_pid()) < 100);
        let took = left.elapsed();
        // A busy machine needs some time to end a thousand connections.
        assert!(took < timeout + Duration::from_secs(10), "{target}: {took:?}");
    }
}

#[test]
fn the_reader_of_an_upload_learns_at_once_that_its_client_has_left() {
    let server = start(&[]);
    let heads = ["content-length: 1000\r\n\r\nhello", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"];
    for head in heads {
        let mut client = Client::connect(server.address());
        client.write(format!("POST /echo HTTP/1.1\r\nhost: test\r\n{head}"));
        // The beginning of the answer shows that the handler runs.
        client.0.read_exact(&mut [0; 15]).expect("the beginning of an answer");
        let began = Instant::now();
        client.0.shutdown(Shutdown::Write).expect("the connection is open");
        let _ = client.0.read_to_end(&mut Vec::new());
        assert!(began.elapsed() < Duration::from_secs(1), "{head:?}: {:?}", began.elapsed());
    }
}

#[test]
fn a_timeout_of_zero_drops_the_handler_at_once_as_hyper_does() {
    let server = start(&["--half-close-timeout", "0s"]);
    let mut client = Client::connect(server.address());
    client.send("/slow?ms=60000");
    get(server.address(), "/");
    sleep(Duration::from_millis(100));
    let began = Instant::now();
    client.0.shutdown(Shutdown::Write).expect("the connection is open");
    client.wait_closed();
    assert!(began.elapsed() < PATIENCE / 4, "{:?}", began.elapsed());
}
