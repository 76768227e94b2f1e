//! The timeouts must not hurt slow clients that make progress, or clients that wait for the server.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};
use support::frames::{
    ACK, DATA, END_STREAM, Frame, GOAWAY, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame,
};
use support::harness::{Client, start};
use support::process::{PATIENCE, Server};
use support::siege::attacks::hello;
use support::siege::floods::request;

use crate::websocket::{TEXT, WebSocket};

/// Longer than several timeouts.
const LONG: Duration = Duration::from_secs(4);
const STEP: Duration = Duration::from_millis(200);

fn strict() -> Server {
    start(&[
        "--header-timeout=1s",
        "--keep-alive-timeout=1s",
        "--send-timeout=1s",
        "--body-timeout=1s",
        "--http2-ping-interval=1s",
    ])
}

#[test]
fn a_long_poll_is_answered() {
    let server = strict();
    let mut client = Client::connect(server.address());
    assert!(client.get("/slow?ms=4000").contains("generation=1 "));
}

#[test]
fn a_response_that_comes_slowly_from_its_handler_is_complete() {
    let server = strict();
    let mut client = Client::connect(server.address());
    client.write("GET /stream?n=3&ms=2000 HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n");
    let all = client.rest();
    assert!(all.contains("0 to go\n") && all.ends_with("\r\n0\r\n\r\n"), "{all}");
}

#[test]
fn a_quiet_websocket_stays_open() {
    let server = strict();
    let mut socket = WebSocket::connect(server.address());
    sleep(LONG);
    socket.send(TEXT, b"still there?");
    assert_eq!(socket.receive(), (TEXT, b"still there?".to_vec()));
}

#[test]
fn a_kept_connection_with_requests_in_time_stays_open() {
    let server = strict();
    let mut client = Client::connect(server.address());
    let until = Instant::now() + LONG;
    while Instant::now() < until {
        assert!(client.get("/").contains("generation=1 "));
        sleep(Duration::from_millis(500));
    }
}

#[test]
fn a_head_in_pieces_that_is_complete_in_time_is_answered() {
    let server = strict();
    let mut client = Client::connect(server.address());
    for _ in 0..3 {
        for piece in ["GET / HT", "TP/1.1\r\nho", "st: t\r\n\r\n"] {
            client.write(piece);
            sleep(STEP);
        }
        assert!(client.answer().contains("generation=1 "));
    }
}

/// Opens a connection on which the server's kernel sends little at a time.
fn narrow(addr: SocketAddr) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(64 * 1024).expect("a size");
    SockRef::from(&socket).set_tcp_mss(1460).expect("as over Ethernet");
    socket.connect(&addr.into()).expect("the server listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    Client(TcpStream::from(socket))
}

#[test]
fn a_client_that_reads_slowly_gets_all_of_its_response() {
    const BYTES: usize = 8 << 20;
    // A loopback packet carries 64 KiB, so acknowledgements of progress are rare there.
    let server = start(&["--send-timeout=2s"]);
    let mut client = narrow(server.address());
    client.write(format!("GET /bytes?n={BYTES} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"));
    let (mut chunk, mut read) = ([0; 16 * 1024], 0);
    let until = Instant::now() + 2 * LONG;
    while Instant::now() < until {
        read += client.0.read(&mut chunk).expect("the server keeps sending");
        sleep(STEP);
    }
    assert!(read < BYTES / 2, "it was not slow");
    let rest = client.rest();
    assert!(read + rest.len() > BYTES, "cut after {} bytes", read + rest.len());
}

#[test]
fn an_upload_that_goes_on_slowly_is_read_to_its_end() {
    let server = strict();
    let mut client = Client::connect(server.address());
    client.write("POST /count HTTP/1.1\r\nhost: t\r\ncontent-length: 20\r\n\r\n");
    for _ in 0..20 {
        sleep(STEP);
        client.write("x");
    }
    assert!(client.answer().ends_with("\r\n\r\n20 bytes\n"));
}

/// Acknowledges SETTINGS and PING until the stream has ended; returns the bytes on the stream and the number of PINGs.
fn read_stream(client: &mut Client, stream: u32, mut each: impl FnMut(&mut Client)) -> (usize, u32) {
    let (mut bytes, mut pings) = (0, 0);
    loop {
        let got = Frame::read(&mut client.0).expect("FIN, not RST").expect("the stream ends first");
        match got.kind {
            SETTINGS if got.flags & ACK == 0 => client.write(frame(SETTINGS, ACK, 0, &[])),
            PING if got.flags & ACK == 0 => {
                pings += 1;
                client.write(frame(PING, ACK, 0, &got.payload));
            }
            RST_STREAM | GOAWAY => panic!("frame {} after {bytes} bytes: {:?}", got.kind, got.payload),
            DATA => {
                bytes += got.payload.len();
                if got.flags & END_STREAM == 0 {
                    each(client);
                }
            }
            _ => {}
        }
        if got.stream == stream && got.ends_stream() {
            return (bytes, pings);
        }
    }
}

#[test]
fn an_http2_client_that_answers_ping_may_wait_for_its_answer() {
    let server = strict();
    let mut client = Client::connect(server.address());
    client.write(hello(&request(1, "/slow?ms=4000")));
    let (bytes, pings) = read_stream(&mut client, 1, |_| {});
    assert!(bytes > 0, "an answer");
    assert!(pings >= 2, "{pings} PINGs");
}

#[test]
fn an_http2_client_that_reads_slowly_gets_all_of_its_response() {
    const BYTES: usize = 1 << 20;
    let server = strict();
    let mut client = Client::connect(server.address());
    client.write(hello(&request(1, &format!("/bytes?n={BYTES}"))));
    let until = Instant::now() + LONG;
    let grow = |client: &mut Client, by: u32| {
        client.write([0, 1].map(|stream| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())).concat());
    };
    let mut slow = 0;
    // Grants 4 KiB after each frame and a pause of 200 ms, and after `LONG` the whole response.
    let (bytes, _) = read_stream(&mut client, 1, |client| {
        if Instant::now() < until {
            sleep(STEP);
            grow(client, 4096);
            slow += 1;
        } else {
            grow(client, BYTES as u32);
        }
    });
    assert!(slow > 10, "it was slow {slow} times");
    assert_eq!(bytes, BYTES);
}
