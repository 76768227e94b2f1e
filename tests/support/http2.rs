//! Exchanges over HTTP/2 until the server sends GOAWAY. Every request that was sent must be answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use h2::client::SendRequest;
use hyper::body::Bytes;

use crate::frames::{
    ACK, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, frame,
};
use crate::harness::Client;

/// Keeps `count` requests in flight on one connection; returns the number of answers.
#[tokio::main(flavor = "current_thread")]
pub async fn streams(addr: SocketAddr, stop: &Arc<AtomicBool>, count: usize) -> u64 {
    let stream = tokio::net::TcpStream::connect(addr).await.expect("the server listens");
    let (client, connection) = h2::client::handshake(stream).await.expect("a handshake");
    let connection = tokio::spawn(connection);
    let streams = (0..count).map(|_| requests(client.clone(), addr, Arc::clone(stop)));
    let streams: tokio::task::JoinSet<u64> = streams.collect();
    drop(client);
    let answered = streams.join_all().await.iter().sum();
    connection.abort();
    answered
}

async fn requests(client: SendRequest<Bytes>, addr: SocketAddr, stop: Arc<AtomicBool>) -> u64 {
    let mut answered = 0;
    while !stop.load(Ordering::SeqCst) {
        // The server has sent GOAWAY before this request was sent.
        let Ok(mut ready) = client.clone().ready().await else { break };
        let request = hyper::Request::get(format!("http://{addr}/slow?ms=100")).body(()).expect("a request");
        let Ok((response, _)) = ready.send_request(request, true) else { break };
        let mut body = response.await.unwrap_or_else(|e| panic!("sent but not answered: {e}")).into_body();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.unwrap_or_else(|e| panic!("an answer was cut short: {e}"));
            body.flow_control().release_capacity(chunk.len()).expect("the chunk was received");
        }
        answered += 1;
    }
    answered
}

/// Sends one request after another until GOAWAY arrives, and never acknowledges the PING that follows GOAWAY. The server waits
/// for the acknowledgement, which proves that no request is in flight, but only for a limited time.
pub fn unacknowledged(addr: SocketAddr) -> u64 {
    let mut client = Client::connect(addr);
    client.write([PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
    let (mut answered, mut told, mut asked) = (0, None, false);
    while told.is_none() {
        let stream = 2 * answered + 1;
        // GET, "/", http, and the authority "t" (RFC 7541, appendix A).
        let get = frame(HEADERS, END_STREAM | END_HEADERS, stream, b"\x82\x84\x86\x41\x01t");
        client.write(get);
        loop {
            let got = Frame::read(&mut client.0).expect("an answer").expect("closed before the answer");
            match got.kind {
                SETTINGS if got.flags & ACK == 0 => client.write(frame(SETTINGS, ACK, 0, &[])),
                GOAWAY => told = Some(Instant::now()),
                PING => asked = true,
                RST_STREAM => panic!("stream {} was reset", got.stream),
                _ => {}
            }
            if got.stream == stream && got.ends_stream() {
                break;
            }
        }
        answered += 1;
        sleep(Duration::from_millis(10));
    }
    while let Some(frame) = Frame::read(&mut client.0).expect("FIN, not RST") {
        asked |= frame.kind == PING;
    }
    assert!(asked, "the server sent no PING");
    let took = told.expect("the loop ended with GOAWAY").elapsed();
    assert!(took < Duration::from_secs(7), "the server closed {took:?} after GOAWAY, expected 5 s");
    u64::from(answered)
}
