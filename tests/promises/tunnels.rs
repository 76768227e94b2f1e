//! A WebSocket on a stream of HTTP/2 (RFC 8441) lasts through a handover until its application ends it.

use std::time::Duration;

use h2::client;
use h2::ext::Protocol;
use hyper::body::Bytes;
use support::harness::{Client, start};
use support::load::Clients;
use support::process::signal;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::websocket::{CLOSE, TEXT};
use nix::sys::signal::Signal;

/// A whole frame of less than 126 bytes, masked with zeros.
fn frame(kind: u8, payload: &[u8]) -> Bytes {
    let length = u8::try_from(payload.len()).expect("short");
    [&[0x80 | kind, 0x80 | length, 0, 0, 0, 0], payload].concat().into()
}

#[test]
fn a_websocket_over_http2_is_in_flight_until_it_ends() {
    let server = start(&["--idle-grace", "200ms", "--goaway-delay", "200ms", "--send-timeout", "1s"]);
    let traffic = support::harness::Traffic::start(server.address(), Clients::Fresh, 4);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let talk = async {
        let stream = TcpStream::connect(server.address()).await.expect("the server listens");
        let (mut requests, connection) = client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        while !requests.is_extended_connect_protocol_enabled() {
            requests = requests.ready().await.expect("the connection is open");
            tokio::task::yield_now().await;
        }
        let mut request =
            hyper::Request::connect(format!("http://{}/ws", server.address())).body(()).expect("valid");
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        let (response, mut to) = requests.send_request(request, false).expect("the connection is open");
        let response = response.await.expect("an answer");
        assert_eq!(
            (response.status().as_u16(), &response.headers()["generation"]),
            (200, &"1".parse().expect("valid"))
        );
        let mut from = response.into_body();
        to.send_data(frame(TEXT, b"before"), false).expect("the stream is open");
        assert_eq!(from.data().await.expect("an echo").expect("no error")[..], *b"\x81\x06before");
        // Longer than a client may read nothing of a response: a tunnel may be silent.
        sleep(Duration::from_secs(3)).await;
        signal(server.first_pid(), Signal::SIGHUP);
        // The application is told, and says good-bye; meanwhile the stream stays open.
        let away = from.data().await.expect("a close frame").expect("no error");
        assert_eq!((away[0], &away[2..4]), (0x80 | CLOSE, &1001_u16.to_be_bytes()[..]));
        sleep(Duration::from_secs(1)).await;
        to.send_data(frame(CLOSE, &1001_u16.to_be_bytes()), true).expect("the stream is open");
        while let Some(rest) = from.data().await {
            rest.expect("the stream is not reset");
        }
    };
    runtime.block_on(async { timeout(Duration::from_secs(20), talk).await.expect("in time") });
    let second = server.wait_serving(2);
    server.wait_retired(1);
    assert_eq!(server.log().wait_for("retired").json["cut"], 0);
    assert!(Client::connect(server.address()).get("/").contains("generation=2 "), "{second}");
    traffic.stop_lossless(&server);
}
