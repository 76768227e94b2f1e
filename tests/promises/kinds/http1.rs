//! Exchanges over HTTP/1. Each opens its own connection, and returns the number of requests that were answered.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use socket2::{Domain, SockFilter, SockRef, Socket, Type};
use support::harness::Client;

/// A request that asks for the end of the connection.
fn last(request: &str) -> String {
    format!("{request} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
}

/// Sends all of `requests` in one write, and reads until the server closes.
fn answers(addr: SocketAddr, requests: &str) -> String {
    let mut client = Client::connect(addr);
    client.write(requests);
    client.rest()
}

fn assert_whole(answer: &str, end: &str) {
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(end), "not whole: {answer:?}");
}

/// One request on a new connection, and a short pause before the next.
pub(super) fn fresh(addr: SocketAddr) -> u64 {
    let answer = answers(addr, &last("GET /"));
    assert!(answer.contains("generation="), "{answer:?}");
    assert_whole(&answer, "\n");
    sleep(Duration::from_millis(5));
    1
}

/// Requests on one connection until the server closes, with a pause of up to `longest` after each `burst` of them. As
/// clients do, it checks before each request whether the server has closed.
pub(super) fn keep_alive(addr: SocketAddr, stop: &AtomicBool, burst: u64, longest: Duration) -> u64 {
    let mut client = Client::connect(addr);
    let mut answered = 0;
    while answered == 0 || !stop.load(Ordering::SeqCst) && is_open(&client.0) {
        let answer = client.get("/");
        assert_whole(&answer, "\n");
        answered += 1;
        if answer.contains("connection: close") {
            client.wait_closed();
            break;
        }
        if answered % burst == 0 {
            sleep(longest.mul_f64(fastrand::f64()));
        }
    }
    answered
}

fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let open = matches!(stream.peek(&mut [0; 1]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock);
    stream.set_nonblocking(false).expect("a socket");
    open
}

/// Three requests in one write, all answered on this connection. The first one is slow, so that the others often wait
/// behind it when the server begins to close.
pub(super) fn pipelined(addr: SocketAddr) -> u64 {
    let next = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: test\r\n\r\n");
    let answers = answers(addr, &[next("/slow?ms=100"), next("/"), last("GET /")].concat());
    assert_eq!(answers.matches("generation=").count(), 3, "{answers:?}");
    3
}

/// An upload of 8 KiB, 1 KiB at a time over `time`, which the server echoes.
pub(super) fn upload(addr: SocketAddr, time: Duration) -> u64 {
    let mut client = Client::connect(addr);
    client.write("POST /echo HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: 8192\r\n\r\n");
    for _ in 0..8 {
        sleep(time / 8);
        client.write([b'u'; 1024]);
    }
    assert_whole(&client.rest(), &format!("\r\n\r\n{}", "u".repeat(8192)));
    1
}

/// A reader of 4 MiB at `rate` bytes a second. Its receive buffer is small and its segments are as over Ethernet;
/// otherwise the kernel would take most of the answer from the server at once.
pub(super) fn download(addr: SocketAddr, rate: usize) -> u64 {
    const BYTES: usize = 4 << 20;
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(64 << 10).expect("a size");
    socket.set_tcp_mss(1460).expect("a size");
    socket.connect(&addr.into()).expect("the server listens");
    let mut client: Client = Client(socket.into());
    client.write(last(&format!("GET /bytes?n={BYTES}")));
    let (mut got, began) = (0, Instant::now());
    let mut chunk = [0; 16 * 1024];
    loop {
        match client.0.read(&mut chunk).unwrap_or_else(|e| panic!("{e} after {got} bytes")) {
            0 => break,
            n => got += n,
        }
        let due = Duration::from_secs_f64(got as f64 / rate as f64);
        sleep(due.saturating_sub(began.elapsed()));
    }
    assert!(got > BYTES, "{got} of {BYTES} bytes");
    1
}

pub(super) fn chunks(addr: SocketAddr) -> u64 {
    assert_whole(&answers(addr, &last("GET /stream?n=30&ms=50")), "0 to go\n\r\n0\r\n\r\n");
    1
}

/// A connection that never sends a byte is closed properly, and not before its grace.
pub(super) fn silent(addr: SocketAddr, grace: Duration) -> u64 {
    let began = Instant::now();
    Client::connect(addr).wait_closed();
    assert!(began.elapsed() >= grace, "closed after {:?}", began.elapsed());
    1
}

/// A client that vanishes between two requests, as if its network failed: from then on it receives and acknowledges
/// nothing that the server sends.
pub(super) fn vanish(addr: SocketAddr) -> u64 {
    let mut client = Client::connect(addr);
    assert_whole(&client.get("/"), "\n");
    let drop_everything = [SockFilter::new(0x06, 0, 0, 0)];
    SockRef::from(&client.0)
        .attach_filter(&drop_everything)
        .expect("any process may filter a socket that it owns");
    // The socket is never closed, because a close would tell the server.
    std::mem::forget(client);
    sleep(Duration::from_millis(500));
    1
}
