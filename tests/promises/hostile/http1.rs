//! Bad bytes on HTTP/1 connections: too slow, too long, too many, or not HTTP at all.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use support::harness::{get, wait_until};

use super::{Siege, connect, exchange, rest, statuses};

/// The memory limit of a generation, in MiB. A debug build with 8 honest clients takes 11 to 13 MiB at its peak.
pub(super) const CALM: u64 = 64;

/// Sends `byte` repeatedly, with pauses, until the server ends the connection. Returns the answer.
fn trickle(mut stream: TcpStream, byte: u8) -> JoinHandle<Vec<u8>> {
    stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    std::thread::spawn(move || {
        let mut answer = Vec::new();
        loop {
            let sent = stream.write_all(&[byte]);
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk) {
                Ok(0) => return answer,
                Ok(n) => answer.extend_from_slice(&chunk[..n]),
                // The read timeout is the pause between two bytes.
                Err(e) if e.kind() == ErrorKind::WouldBlock && sent.is_ok() => {}
                Err(_) => return answer,
            }
        }
    })
}

fn trickled(head: &str, byte: u8) {
    let mut siege = Siege::begin(&["--drain-timeout", "1500ms", "--idle-grace", "500ms"]);
    let slow: Vec<_> = (0..50)
        .map(|_| {
            let mut stream = connect(siege.address());
            stream.write_all(head.as_bytes()).expect("the server reads");
            trickle(stream, byte)
        })
        .collect();
    wait_until("all are accepted", &siege.server, || get(siege.address(), "/").contains("generation=1"));
    siege.hand_over();
    // The slow clients get the whole drain, and are then cut and counted.
    let retired = siege.server.log().wait_for("retired");
    assert_eq!(retired.json["cut"].as_u64(), Some(50), "{}", siege.server.log().history());
    for client in slow {
        assert_eq!(client.join().expect("it does not panic"), b"", "none of them had sent a whole request");
    }
    siege.end(CALM);
}

#[test]
fn a_head_that_comes_byte_by_byte_is_cut_at_the_end_of_the_drain() {
    trickled("GET / HTTP/1.1\r\nhost: slow\r\nx: ", b'x');
}

#[test]
fn a_body_that_comes_byte_by_byte_is_cut_at_the_end_of_the_drain() {
    // The answer of /echo begins at once, but a request is answered only when its answer is complete.
    let mut siege = Siege::begin(&["--drain-timeout", "1500ms", "--idle-grace", "500ms"]);
    let head = "POST /echo HTTP/1.1\r\nhost: slow\r\ncontent-length: 1000000\r\n\r\n";
    let slow: Vec<_> = (0..50)
        .map(|_| {
            let mut stream = connect(siege.address());
            stream.write_all(head.as_bytes()).expect("the server reads");
            // The request has to be in flight before the handover.
            assert_eq!(stream.read(&mut [0; 8]).expect("an answer"), 8);
            trickle(stream, b'x')
        })
        .collect();
    siege.hand_over();
    let retired = siege.server.log().wait_for("retired");
    let cut = (retired.json["cut"].as_u64(), retired.json["requests_cut"].as_u64());
    assert_eq!(cut, (Some(50), Some(50)), "{}", siege.server.log().history());
    for client in slow {
        client.join().expect("the thread does not panic");
    }
    siege.end(CALM);
}

/// Sends `piece` until the server ends the connection. Returns the number of bytes sent, and the answer.
fn endless(addr: SocketAddr, piece: &[u8]) -> (usize, Vec<u8>) {
    let mut stream = connect(addr);
    stream.write_all(b"GET / HTTP/1.1\r\nhost: endless\r\n").expect("the server reads");
    let mut answer = Vec::new();
    let mut sent = 0;
    while stream.write_all(piece).is_ok() {
        sent += piece.len();
        assert!(sent < 64 << 20, "the server reads for ever");
        stream.set_nonblocking(true).expect("a socket");
        let mut chunk = [0; 4096];
        // The answer is read while sending, because a client that sends on behind the end is reset eventually.
        let read = stream.read(&mut chunk);
        stream.set_nonblocking(false).expect("a socket");
        match read {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&chunk[..n]),
            Err(_) => {}
        }
    }
    answer.extend(rest(&mut stream).0);
    (sent, answer)
}

#[test]
fn a_head_without_end_is_answered_431_and_not_kept_in_memory() {
    let mut siege = Siege::begin(&[]);
    siege.attack_while_handing_over(|addr| {
        for piece in [&[b'x'; 16 * 1024][..], &b"name: value\r\n".repeat(1000)] {
            let (sent, answer) = endless(addr, piece);
            let answer = String::from_utf8_lossy(&answer);
            assert_eq!(statuses(&answer), [431], "after {sent} bytes: {answer}");
        }
    });
    siege.end(CALM);
}

#[test]
fn a_head_of_64_kib_is_answered_and_one_of_600_kib_is_not() {
    let mut siege = Siege::begin(&[]);
    siege.attack_while_handing_over(|addr| {
        let head =
            |n| format!("GET / HTTP/1.1\r\nconnection: close\r\nhost: t\r\nx: {}\r\n\r\n", "a".repeat(n));
        assert_eq!(statuses(&exchange(addr, head(64 << 10).as_bytes())), [200]);
        // hyper's limits: 408 KiB, and 100 fields.
        let mut stream = connect(addr);
        // The write fails if the server refuses the head before its end.
        let _ = stream.write_all(head(600 << 10).as_bytes());
        assert_eq!(statuses(&String::from_utf8_lossy(&rest(&mut stream).0)), [431]);
        let fields = "x: y\r\n".repeat(200);
        let many = format!("GET / HTTP/1.1\r\nhost: t\r\n{fields}\r\n");
        assert_eq!(statuses(&exchange(addr, many.as_bytes())), [431]);
        let long = format!("GET /{} HTTP/1.1\r\nhost: t\r\n\r\n", "a".repeat(70_000));
        assert_eq!(statuses(&exchange(addr, long.as_bytes())), [414]);
    });
    siege.end(CALM);
}

#[test]
fn garbage_and_a_tls_hello_are_answered_400_or_closed() {
    let mut siege = Siege::begin(&[]);
    let seeds = AtomicU64::new(0);
    siege.attack_while_handing_over(move |addr| {
        // The garbage differs each time, but is the same in each run.
        let mut random = fastrand::Rng::with_seed(seeds.fetch_add(1, Ordering::SeqCst));
        for _ in 0..50 {
            let mut garbage: Vec<u8> = (0..random.usize(1..2000)).map(|_| random.u8(..)).collect();
            // The first byte is neither a line break, which is allowed before a request, nor a letter, which may begin one.
            garbage[0] = random.u8(0x80..);
            assert_eq!(statuses(&exchange(addr, &garbage)), [400]);
        }
        // The TLS hello of a browser that was given an https:// URL.
        let mut hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
        hello.extend((0..501).map(|_| random.u8(..)));
        assert_eq!(statuses(&exchange(addr, &hello)), [400]);
        // Half of the preface of HTTP/2, then something else.
        assert_eq!(statuses(&exchange(addr, b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")), [400]);
    });
    siege.end(CALM);
}
