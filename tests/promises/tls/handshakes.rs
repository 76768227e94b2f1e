//! Handshakes that are slow, never end, or are not TLS at all.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::harness::{Client, get, hand_over, start};
use support::process::{PATIENCE, signal};

use super::{Bed, TlsClient, begin, connect, forgetful};

/// Connects and sends only the ClientHello.
fn hello(bed: &Bed, addr: std::net::SocketAddr) -> TlsClient {
    let mut client = begin(addr, &forgetful(bed.pair.config(&[])));
    client.0.conn.write_tls(&mut client.0.sock).expect("the connection is open");
    client
}

/// Opens a connection that stays silent, and waits until it is accepted: connections are accepted in order, so it is once a
/// later one is answered.
fn silent(bed: &Bed, addr: std::net::SocketAddr) -> TcpStream {
    let silent = TcpStream::connect(addr).expect("the server listens");
    silent.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    bed.connect(addr).get("/");
    silent
}

#[test]
fn a_handshake_that_began_before_the_flip_is_finished_and_its_request_answered() {
    let bed = Bed::make();
    let server = bed.start(&["--idle-grace", "500ms"]);
    let mut nothing = begin(server.address(), &forgetful(bed.pair.config(&[])));
    let mut half = hello(&bed, server.address());
    bed.connect(server.address()).get("/");
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_state(1, "draining");
    // A connection in its handshake is not idle; the idle grace begins after the handshake.
    std::thread::sleep(Duration::from_millis(1200));
    for client in [&mut nothing, &mut half] {
        client.0.conn.complete_io(&mut client.0.sock).expect("a handshake");
        std::thread::sleep(Duration::from_millis(200));
        let answer = client.get("/");
        assert!(answer.contains("generation=1 ") && answer.contains("connection: close"), "{answer}");
        client.wait_closed();
    }
}

#[test]
fn a_request_that_comes_with_the_end_of_the_handshake_is_answered_by_a_lame_duck() {
    let bed = Bed::make();
    let server = bed.start(&[]);
    let mut client = hello(&bed, server.address());
    bed.connect(server.address()).get("/");
    hand_over(&server, 1, server.first_pid());
    while client.0.conn.is_handshaking() {
        client.0.conn.read_tls(&mut client.0.sock).expect("the server's part");
        client.0.conn.process_new_packets().expect("TLS");
    }
    client.0.conn.writer().write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").expect("buffered");
    let mut both = Vec::new();
    while client.0.conn.wants_write() {
        client.0.conn.write_tls(&mut both).expect("in memory");
    }
    client.0.sock.write_all(&both).expect("the connection is open");
    assert!(client.answer().contains("generation=1 "));
}

#[test]
fn handshakes_that_go_on_while_the_process_is_stopped_are_finished() {
    let bed = Bed::make();
    let server = bed.start(&["--tls-handshake-timeout", "3s"]);
    let mut clients: Vec<_> =
        (0..20).map(|_| begin(server.address(), &forgetful(bed.pair.config(&[])))).collect();
    bed.connect(server.address()).get("/");
    signal(server.first_pid(), Signal::SIGSTOP);
    for client in &mut clients {
        client.0.conn.write_tls(&mut client.0.sock).expect("the connection is open");
    }
    std::thread::sleep(Duration::from_millis(4500));
    signal(server.first_pid(), Signal::SIGCONT);
    for mut client in clients {
        client.0.conn.complete_io(&mut client.0.sock).expect("a handshake");
        assert!(client.get("/").contains("generation=1 "));
    }
}

#[test]
fn a_handshake_that_never_ends_is_cut_at_its_timeout() {
    let bed = Bed::make();
    let server = bed.start(&["--tls-handshake-timeout", "1s"]);
    let began = Instant::now();
    let mut silent = TcpStream::connect(server.address()).expect("the server listens");
    silent.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    assert!(matches!(silent.read(&mut [0; 1]), Ok(0)), "closed without a byte");
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_handshake_that_never_ends_keeps_a_retired_generation_no_longer_than_its_timeout() {
    let bed = Bed::make();
    let mut server = bed.start(&["--tls-handshake-timeout", "2s", "--idle-grace", "1h"]);
    let _silent = silent(&bed, server.address());
    let _half = hello(&bed, server.address());
    let began = Instant::now();
    signal(server.first_pid(), Signal::SIGHUP);
    assert!(server.first_exit().success());
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1200), "the handshake was cut early: {took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(server.log().wait_for("retired").json["cut"], 0);
}

#[test]
fn a_handshake_that_never_ends_is_cut_at_the_drain_deadline_and_counted() {
    let bed = Bed::make();
    let mut server = bed.start(&["--tls-handshake-timeout", "1h", "--drain-timeout", "1s"]);
    let _half = hello(&bed, server.address());
    let _silent = silent(&bed, server.address());
    let began = Instant::now();
    signal(server.first_pid(), Signal::SIGHUP);
    assert!(server.first_exit().success());
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let retired = server.log().wait_for("retired");
    assert_eq!(
        (&retired.json["cut"], &retired.json["requests_cut"]),
        (&2.into(), &0.into()),
        "{}",
        retired.text
    );
}

#[test]
fn a_client_that_vanishes_within_the_handshake_ends_the_drain_with_it() {
    let bed = Bed::make();
    let mut server = bed.start(&["--tls-handshake-timeout", "1h"]);
    let half = hello(&bed, server.address());
    bed.connect(server.address()).get("/");
    hand_over(&server, 1, server.first_pid());
    drop(half);
    assert!(server.first_exit().success());
}

#[test]
fn plain_http_to_a_tls_port_and_tls_to_a_plain_port_end_at_once_and_harm_no_other() {
    let bed = Bed::make();
    let server = bed.start(&[]);
    let mut plain = Client::connect(server.address());
    plain.send("/");
    let mut answer = Vec::new();
    let _ = plain.0.read_to_end(&mut answer);
    assert_eq!(answer.first(), Some(&21), "an alert, and not {:?}", String::from_utf8_lossy(&answer));
    assert!(bed.connect(server.address()).get("/").contains("generation=1 "));

    let server = start(&[]);
    let mut client = hello(&bed, server.address());
    client.0.conn.complete_io(&mut client.0.sock).expect_err("the port is plain");
    assert!(get(server.address(), "/").contains("generation=1 "));
}

#[test]
fn a_client_that_can_agree_on_no_protocol_is_told_so() {
    let bed = Bed::make();
    let server = bed.start(&[]);
    let mut client = begin(server.address(), &Arc::new(bed.pair.config(&["acme-tls/1"])));
    let error = client.0.conn.complete_io(&mut client.0.sock).expect_err("no protocol in common");
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    assert!(bed.connect(server.address()).get("/").contains("generation=1 "));
}

#[test]
fn a_client_that_agreed_on_http2_and_speaks_something_else_gets_no_http1() {
    let bed = Bed::make();
    let server = bed.start(&[]);
    let mut client = connect(server.address(), &Arc::new(bed.pair.config(&["h2"])));
    client.send("/");
    let mut answer = [0; 9];
    client.0.read_exact(&mut answer).expect("a frame");
    assert_ne!(&answer[..5], b"HTTP/", "HTTP/1 in spite of ALPN h2");
    let mut client = connect(server.address(), &Arc::new(bed.pair.config(&["http/1.1"])));
    assert!(client.get("/").contains("generation=1 "));
}
