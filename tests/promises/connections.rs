//! Connections while their generation retires or stops.

use std::io::Read;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::harness::{Client, QUICK, get, leave_descriptors, start, wait_until};
use support::process::{Server, command, signal};

use crate::websocket::WebSocket;

#[test]
fn responses_say_close_from_the_flip_on() {
    let server = start(&[]);
    let mut client = Client::connect(server.address());
    assert!(!client.get("/").contains("connection: close"));
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_state(1, "standby");
    let answer = client.get("/");
    assert!(answer.contains("generation=1 ") && answer.contains("connection: close"), "{answer}");
    client.wait_closed();
}

#[test]
fn an_idle_connection_is_kept_for_its_grace_and_closed_properly() {
    let server = start(&["--idle-grace", "1s"]);
    let mut idle = Client::connect(server.address());
    idle.get("/");
    let silent = accepted(server.address(), "");
    let began = Instant::now();
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_state(1, "standby");
    let closed = [idle, silent].map(|mut client| {
        std::thread::spawn(move || {
            client.wait_closed();
            began.elapsed()
        })
    });
    for closed in closed {
        let after = closed.join().expect("the thread does not panic");
        assert!(after >= Duration::from_secs(1), "closed after {after:?}");
    }
    server.log().wait_for("retired");
}

#[test]
fn a_request_sent_within_the_grace_is_answered() {
    let server = start(&["--idle-grace", "2s"]);
    let mut client = Client::connect(server.address());
    client.get("/");
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_state(1, "draining");
    let answer = client.get("/");
    assert!(answer.contains("generation=1 ") && answer.contains("connection: close"), "{answer}");
}

/// Begins an exchange that the client may abandon at any time.
type Begin = fn(SocketAddr) -> Client;

fn begun(addr: SocketAddr, request: &str) -> Client {
    let mut client = accepted(addr, request);
    client.0.read_exact(&mut [0; 60]).expect("the beginning of an answer");
    client
}

fn accepted(addr: SocketAddr, request: &str) -> Client {
    let mut client = Client::connect(addr);
    client.write(request);
    // Connections are accepted in order, so the one above is accepted before this one is answered.
    get(addr, "/");
    client
}

#[test]
fn a_drain_ends_as_soon_as_its_last_client_leaves_whatever_it_was_doing() {
    let clients: [(&str, Begin); 9] = [
        ("nothing", |addr| accepted(addr, "")),
        ("half a head", |addr| accepted(addr, "GET / HTTP/1.1\r\nhost: te")),
        ("between two requests", |addr| begun(addr, "GET / HTTP/1.1\r\nhost: test\r\n\r\n")),
        ("waiting for an answer", |addr| accepted(addr, "GET /slow?ms=60000 HTTP/1.1\r\nhost: test\r\n\r\n")),
        ("in the middle of a download", |addr| {
            begun(addr, "GET /bytes?n=100000000 HTTP/1.1\r\nhost: test\r\n\r\n")
        }),
        ("in the middle of an upload", |addr| {
            begun(addr, "POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\nand so")
        }),
        ("reading events", |addr| begun(addr, "GET /events HTTP/1.1\r\nhost: test\r\n\r\n")),
        ("in HTTP/2", |addr| accepted(addr, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")),
        ("in a WebSocket", |addr| WebSocket::connect(addr).0),
    ];
    for (what, begin) in clients {
        // A client that waits for an answer may only have half-closed, so a short half-close timeout is needed.
        let mut server = start(&["--idle-grace", "1h", "--half-close-timeout", "200ms"]);
        let client = begin(server.address());
        signal(server.first_pid(), Signal::SIGHUP);
        server.wait_state(1, "draining");
        drop(client);
        let gone = Instant::now();
        assert!(server.first_exit().success());
        assert!(gone.elapsed() < Duration::from_secs(1), "{what}: it took {:?}", gone.elapsed());
        assert_eq!(server.log().wait_for("retired").json["cut"], 0, "{what}");
    }
}

#[test]
fn connections_left_at_the_drain_deadline_are_cut_and_counted() {
    let mut server = start(&["--drain-timeout", "3s"]);
    let _ignores_the_goodbye = WebSocket::connect(server.address());
    let mut stops_reading = Client::connect(server.address());
    stops_reading.send(&format!("/bytes?n={}", 64 << 20));
    let mut waits = Client::connect(server.address());
    waits.send("/slow?ms=60000");
    let before_flip = Instant::now();
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_state(1, "standby");
    let after_flip = Instant::now();
    assert!(server.first_exit().success());
    let (at_most, at_least) = (before_flip.elapsed(), after_flip.elapsed());
    assert!(at_most >= Duration::from_secs(3), "cut after {at_most:?}");
    // The end of a connection that is cut may take a moment to be noticed.
    assert!(at_least < Duration::from_secs(4), "cut after {at_least:?}");
    let retired = server.log().wait_for("retired");
    assert_eq!(
        (&retired.json["cut"], &retired.json["requests_cut"]),
        (&3.into(), &2.into()),
        "{}",
        retired.text
    );
}

#[test]
fn a_stop_waits_for_requests_under_way_and_a_second_one_does_not() {
    let mut server = start(&[]);
    let mut client = Client::connect(server.address());
    client.send("/slow?ms=700");
    wait_until("the request has arrived", &server, || get(server.address(), "/").contains("generation=1"));
    signal(server.first_pid(), Signal::SIGTERM);
    assert!(client.answer().contains("connection: close"));
    assert!(server.first_exit().success());

    let mut server = start(&[]);
    let mut client = Client::connect(server.address());
    client.send("/slow?ms=60000");
    wait_until("the request has arrived", &server, || get(server.address(), "/").contains("generation=1"));
    signal(server.first_pid(), Signal::SIGINT);
    server.wait_state(1, "draining");
    signal(server.first_pid(), Signal::SIGINT);
    assert!(server.first_exit().success());
    // Requests are counted here, because the connection of the probe above may still be open.
    assert_eq!(server.log().wait_for("stopped").json["requests_cut"], 1);
}

#[test]
fn running_out_of_descriptors_delays_connections_and_loses_none() {
    let server = start(&["--max-connections", "1000"]);
    let pid = server.first_pid();
    leave_descriptors(pid, 10);
    let idle: Vec<_> = (0..40).map(|_| Client::connect(server.address())).collect();
    server.log().wait_for("cannot accept");
    let mut waiting = Client::connect(server.address());
    waiting.send("/");
    let before = cpu_time(pid);
    std::thread::sleep(Duration::from_secs(1));
    let used = cpu_time(pid) - before;
    assert!(waiting.answer().contains("generation=1"), "the idle connections make room");
    assert!(used < Duration::from_millis(300), "waiting used {used:?} of CPU time in a second");
    let said = server.log().lines().iter().filter(|line| line.message().contains("cannot accept")).count();
    assert_eq!(said, 1, "logged once");
    drop(idle);
}

fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("proc_pid_stat(5)").1.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

#[test]
fn the_directory_is_served_with_ranges_and_conditional_requests() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("index.html"), "0123456789").expect("writable");
    let mut served = command(crate::HANDOVER);
    served.args(QUICK).arg(dir.path());
    let server = Server::start(served);
    let get = |headers: &str| {
        let mut client = Client::connect(server.address());
        client.write(format!("GET / HTTP/1.1\r\nhost: test\r\n{headers}\r\n"));
        client.answer()
    };
    let whole = get("");
    assert!(whole.starts_with("HTTP/1.1 200") && whole.ends_with("0123456789"), "{whole}");
    let part = get("range: bytes=2-4\r\n");
    assert!(part.starts_with("HTTP/1.1 206") && part.ends_with("\r\n\r\n234"), "{part}");
    let missing = {
        let mut client = Client::connect(server.address());
        client.get("/no/such/file")
    };
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    let modified = whole.lines().find_map(|line| line.strip_prefix("last-modified: ")).expect("a date");
    assert!(get(&format!("if-modified-since: {modified}\r\n")).starts_with("HTTP/1.1 304"));
}

#[test]
fn a_response_of_any_size_arrives_whole() {
    let server = start(&[]);
    let mut client = Client::connect(server.address());
    // Sizes around the limit up to which head and body are sent from one buffer, and one far above it.
    for n in (0..1100).chain([100_000]) {
        let answer = client.get(&format!("/bytes?n={n}"));
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert_eq!(body, "x".repeat(n));
    }
}
