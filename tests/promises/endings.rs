//! The end of connections: an answer that the client has not read yet is not destroyed, and a cut response does not look
//! complete.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::harness::{Client, QUICK, get, start};
use support::process::{PATIENCE, Server, command, signal};

use crate::HANDOVER;
use crate::websocket::{CLOSE, TEXT, WebSocket};

fn upload(addr: SocketAddr, size: usize, framing: &str) -> std::io::Result<String> {
    let mut client = Client::connect(addr);
    let body = vec![b'x'; size];
    let (head, body) = if framing == "chunked" {
        let chunk = format!("{size:x}\r\n").into_bytes();
        ("transfer-encoding: chunked".to_owned(), [&chunk[..], &body, b"\r\n0\r\n\r\n"].concat())
    } else {
        (format!("content-length: {size}"), body)
    };
    client.write(format!("POST /file HTTP/1.1\r\nhost: test\r\n{head}\r\n\r\n"));
    // The whole body is sent before any of the answer is read.
    client.0.write_all(&body)?;
    let mut answer = String::new();
    client.0.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn an_answer_that_comes_before_the_end_of_an_upload_is_not_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("file"), "content").expect("writable");
    let mut served = command(HANDOVER);
    served.args(QUICK).arg(dir.path());
    let server = Server::start(served);
    for framing in ["length", "chunked"] {
        for size in [100_000, 1_000_000, 10_000_000] {
            for _ in 0..10 {
                let answer = upload(server.address(), size, framing);
                assert!(
                    answer.as_ref().is_ok_and(|answer| answer.starts_with("HTTP/1.1 405")),
                    "{framing}, {size} bytes: {answer:?}"
                );
            }
        }
    }
}

#[test]
fn a_response_without_length_that_is_cut_does_not_look_complete() {
    type End = (&'static str, &'static [&'static str], fn(&Server));
    let ends: [End; 4] = [
        ("the stop deadline", &["--stop-timeout", "500ms"], |server| {
            signal(server.first_pid(), Signal::SIGTERM);
        }),
        ("the drain deadline", &["--drain-timeout", "500ms"], |server| {
            signal(server.first_pid(), Signal::SIGHUP);
        }),
        ("a second stop", &[], |server| {
            signal(server.first_pid(), Signal::SIGTERM);
            server.wait_state(1, "draining");
            signal(server.first_pid(), Signal::SIGTERM);
        }),
        ("a kill", &[], |server| {
            signal(server.first_pid(), Signal::SIGKILL);
        }),
    ];
    for (what, args, end) in ends {
        let server = start(args);
        let mut client = Client::connect(server.address());
        client.write("GET /stream?n=1000&ms=20 HTTP/1.0\r\n\r\n");
        client.0.read_exact(&mut [0; 200]).expect("the beginning of an answer");
        end(&server);
        let read = client.0.read_to_end(&mut Vec::new());
        assert_eq!(read.expect_err(what).kind(), ErrorKind::ConnectionReset, "{what}");
    }
}

#[test]
fn a_response_without_length_that_is_complete_ends_properly() {
    let server = start(&[]);
    for _ in 0..20 {
        let mut client = Client::connect(server.address());
        client.write("GET /stream?n=5&ms=1 HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
        let all = client.rest();
        assert!(all.starts_with("HTTP/1.0 200") && !all.contains("transfer-encoding"), "{all}");
    }
}

#[test]
fn a_websocket_whose_client_goes_on_sending_gets_its_goodbye() {
    let server = start(&[]);
    let mut client = WebSocket::connect(server.address());
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_state(1, "standby");
    // The client neither reads nor answers the goodbye. After 5 s the server drops the connection.
    let until = Instant::now() + Duration::from_secs(7);
    while Instant::now() < until {
        client.send(TEXT, &[b'x'; 100]);
        std::thread::sleep(Duration::from_millis(20));
    }
    // A message that arrived just before the server learnt of its retirement is echoed first.
    let (mut kind, mut said) = client.receive();
    while kind == TEXT {
        (kind, said) = client.receive();
    }
    assert_eq!((kind, &said[..2]), (CLOSE, &1001_u16.to_be_bytes()[..]));
}

#[test]
fn a_client_of_http_1_0_with_keep_alive_is_told_to_close() {
    let server = start(&[]);
    let request = "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
    let mut client = Client::connect(server.address());
    client.write(request);
    let answer = client.answer();
    assert!(answer.contains("connection: keep-alive"), "{answer}");
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_state(1, "standby");
    client.write(request);
    let answer = client.rest();
    assert!(answer.contains("connection: close\r\n") && answer.starts_with("HTTP/1.0 200"), "{answer}");
}

#[test]
fn requests_that_arrive_while_the_process_is_stopped_are_answered() {
    let mut server = start(&["--idle-grace", "1s", "--standby", "200ms"]);
    let mut idle: Vec<_> = (0..30).map(|_| Client::connect(server.address())).collect();
    for client in &mut idle {
        client.get("/");
    }
    get(server.address(), "/");
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_state(1, "standby");
    signal(server.first_pid(), Signal::SIGSTOP);
    for client in &mut idle {
        client.send("/");
    }
    std::thread::sleep(Duration::from_secs(2));
    signal(server.first_pid(), Signal::SIGCONT);
    for mut client in idle {
        client.0.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        assert!(client.answer().contains("generation=1 "));
    }
    assert!(server.first_exit().success());
}

#[test]
fn a_deadline_that_passes_while_the_process_is_stopped_cuts_no_request_that_has_arrived() {
    let mut server = start(&["--stop-timeout", "1s", "--stop-idle-grace", "1h"]);
    let mut client = Client::connect(server.address());
    client.get("/");
    signal(server.first_pid(), Signal::SIGTERM);
    server.wait_state(1, "draining");
    signal(server.first_pid(), Signal::SIGSTOP);
    client.send("/");
    std::thread::sleep(Duration::from_secs(3));
    signal(server.first_pid(), Signal::SIGCONT);
    assert!(client.rest().contains("connection: close"));
    assert!(server.first_exit().success());
    assert_eq!(server.log().wait_for("stopped").json["cut"], 0);
}
