//! The end of TLS connections when their generation retires. `wait_closed` checks for close_notify: rustls reports an end
//! without it as an error.

use std::io::Write;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::harness::hand_over;
use support::process::signal;

use super::Bed;
use crate::lasting::assert_answered_after_the_grace;

#[test]
fn an_idle_connection_is_kept_for_its_grace_and_closed_with_close_notify() {
    let bed = Bed::make();
    let mut server = bed.start(&["--idle-grace", "1s"]);
    let mut asked = bed.connect(server.address());
    asked.get("/");
    let silent = bed.connect(server.address());
    let began = Instant::now();
    signal(server.first_pid(), Signal::SIGHUP);
    for mut client in [asked, silent] {
        client.wait_closed();
        assert!(began.elapsed() >= Duration::from_secs(1), "closed after {:?}", began.elapsed());
        // FIN must follow close_notify, even though the client stays open; otherwise this read would time out.
        client.0.sock.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        assert!(matches!(std::io::Read::read(&mut client.0.sock, &mut [0; 1]), Ok(0)));
    }
    assert!(server.first_exit().success());
}

#[test]
fn a_request_in_the_socket_buffer_when_the_grace_ends_is_answered() {
    let bed = Bed::make();
    let server = bed.start(&["--idle-grace", "1s"]);
    let mut client = bed.connect(server.address());
    client.get("/");
    assert_answered_after_the_grace(&server, &mut client);
}

#[test]
fn a_request_of_which_half_a_record_has_arrived_when_the_grace_ends_is_answered() {
    let bed = Bed::make();
    let server = bed.start(&["--idle-grace", "1s"]);
    for cut in [1, 4, 5, 30] {
        let mut client = bed.connect(server.address());
        client.get("/");
        client.0.conn.writer().write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").expect("buffered");
        let mut record = Vec::new();
        client.0.conn.write_tls(&mut record).expect("in memory");
        let (begun, rest) = record.split_at(cut);
        client.0.sock.write_all(begun).expect("the connection is open");
        if cut == 1 {
            hand_over(&server, 1, server.first_pid());
        }
        std::thread::sleep(Duration::from_millis(1500));
        client.0.sock.write_all(rest).expect("the connection is open");
        let answer = client.answer();
        assert!(answer.contains("connection: close") || cut > 1, "{answer}");
        if cut == 1 {
            client.wait_closed();
        }
    }
}

#[test]
fn a_large_response_to_a_slow_reader_arrives_whole_though_the_grace_is_over() {
    let bed = Bed::make();
    let server = bed.start(&["--idle-grace", "300ms"]);
    let mut client = bed.connect(server.address());
    client.get("/");
    client.send("/bytes?n=20000000");
    // The response fills every buffer on its way until the client reads.
    hand_over(&server, 1, server.first_pid());
    std::thread::sleep(Duration::from_millis(500));
    let answer = client.rest();
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert_eq!(body.len(), 20_000_000);
}

#[test]
fn a_client_that_says_close_notify_behind_its_request_gets_all_of_its_answer() {
    let bed = Bed::make();
    let server = bed.start(&[]);
    for sends_fin in [false, true] {
        let mut client = bed.connect(server.address());
        client.send("/bytes?n=4194304");
        client.0.conn.send_close_notify();
        client.0.flush().expect("the connection is open");
        if sends_fin {
            client.0.sock.shutdown(std::net::Shutdown::Write).expect("the connection is open");
        }
        let all = client.rest();
        let (_, body) = all.split_once("\r\n\r\n").expect("a head");
        assert_eq!(body.len(), 4 << 20, "FIN too: {sends_fin}");
    }
}
