//! Long-lived exchanges, probes, and the connection limit.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::harness::{Client, QUICK, get, hand_over, start, wait_until};
use support::process::{Server, command, signal};

use crate::HANDOVER;
use crate::websocket::{CLOSE, TEXT, WebSocket};

#[test]
fn a_stream_of_events_ends_itself_when_its_generation_retires() {
    // The head of the response was sent before the handover, without `connection: close`, so the connection is closed
    // after its idle grace.
    let mut server = start(&["--idle-grace", "500ms"]);
    let mut client = Client::connect(server.address());
    client.send("/events?ms=20");
    wait_until("the request has arrived", &server, || get(server.address(), "/").contains("generation=1"));
    signal(server.first_pid(), Signal::SIGHUP);
    let all = client.rest();
    assert!(all.contains("data: 0\n\n") && all.contains("data: bye") && all.ends_with("0\r\n\r\n"), "{all}");
    assert!(server.first_exit().success());
    assert_eq!(server.log().wait_for("retired").json["cut"], 0);
}

#[test]
fn a_websocket_is_told_goodbye_and_counts_until_it_has_left() {
    let mut server = start(&["--idle-grace", "100ms"]);
    let mut client = WebSocket::connect(server.address());
    client.send(TEXT, b"hello");
    assert_eq!(client.receive(), (TEXT, b"hello".to_vec()));
    signal(server.first_pid(), Signal::SIGHUP);
    let (kind, goodbye) = client.receive();
    assert_eq!((kind, &goodbye[..2]), (CLOSE, &1001_u16.to_be_bytes()[..]));
    server.wait_state(1, "draining");
    drop(client);
    assert!(server.first_exit().success());
    let retired = server.log().wait_for("retired");
    assert_eq!((&retired.json["finished"], &retired.json["cut"]), (&1.into(), &0.into()), "{}", retired.text);
}

#[test]
fn a_request_in_the_socket_buffer_when_the_grace_ends_is_answered() {
    let server = start(&["--idle-grace", "1s"]);
    let mut client = Client::connect(server.address());
    client.get("/");
    assert_answered_after_the_grace(&server, &mut client);
}

/// Sends a request to an old generation that is suspended until the idle grace of one second is over, and asserts that the
/// request is answered.
pub(crate) fn assert_answered_after_the_grace<S: Read + Write>(server: &Server, client: &mut Client<S>) {
    hand_over(server, 1, server.first_pid());
    signal(server.first_pid(), Signal::SIGSTOP);
    client.send("/");
    std::thread::sleep(Duration::from_millis(1500));
    signal(server.first_pid(), Signal::SIGCONT);
    let answer = client.answer();
    assert!(answer.contains("generation=1 ") && answer.contains("connection: close"), "{answer}");
    client.wait_closed();
}

fn probed(args: &[&str]) -> Server {
    let mut probed = command(HANDOVER);
    probed.args(QUICK).arg("--probes").args(args);
    Server::start(probed)
}

#[test]
fn a_stop_goes_on_accepting_for_its_delay_while_the_readiness_probe_says_503() {
    let mut server = probed(&["--stop-delay", "1s"]);
    let address = server.address();
    assert!(
        get(address, "/readyz").starts_with("HTTP/1.1 200")
            && get(address, "/healthz").starts_with("HTTP/1.1 200")
    );
    let asked = Instant::now();
    signal(server.first_pid(), Signal::SIGTERM);
    server.wait_state(1, "lingering");
    let ready = get(address, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("connection: close"), "{ready}");
    assert!(get(address, "/healthz").starts_with("HTTP/1.1 200"));
    assert!(get(address, "/").contains("generation 1"));
    assert!(server.first_exit().success());
    assert!(asked.elapsed() >= Duration::from_secs(1), "{:?}", asked.elapsed());
}

#[test]
fn a_generation_that_retires_is_ready_all_the_same() {
    let server = probed(&[]);
    let mut balancer = Client::connect(server.address());
    balancer.get("/readyz");
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_state(1, "draining");
    let answer = balancer.get("/readyz");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
}

#[test]
fn without_the_flag_the_paths_of_the_probes_belong_to_the_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("readyz"), "a file\n").expect("writable");
    let mut served = command(HANDOVER);
    served.args(QUICK).arg(dir.path());
    let server = Server::start(served);
    assert!(get(server.address(), "/readyz").ends_with("a file\n"));
    assert!(get(server.address(), "/healthz").starts_with("HTTP/1.1 404"));
}

#[test]
fn above_the_limit_connections_wait_and_a_handover_leaves_none_of_them_behind() {
    let mut server = start(&["--max-connections", "5", "--idle-grace", "10s"]);
    let mut first: Vec<_> = (0..5).map(|_| Client::connect(server.address())).collect();
    first.iter_mut().for_each(|client| drop(client.get("/")));
    let mut waiting: Vec<_> = (0..5).map(|_| Client::connect(server.address())).collect();
    waiting.iter_mut().for_each(|client| client.send("/"));
    server.log().wait_for("as many connections as allowed");
    drop(first.pop());
    let answer = waiting[0].answer();
    assert!(answer.contains("generation=1 ") && !answer.contains("close"), "one slot was freed: {answer}");
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_serving(2);
    for client in &mut waiting[1..] {
        let answer = client.answer();
        assert!(answer.contains("generation=1 ") && answer.contains("connection: close"), "{answer}");
    }
    drop((first, waiting));
    assert!(server.first_exit().success());
    assert_eq!(server.log().wait_for("retired").json["cut"], 0);
}
