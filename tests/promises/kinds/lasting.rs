//! Exchanges that last until the server ends them.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use support::harness::Client;

use crate::websocket::{CLOSE, TEXT, WebSocket};

/// Server-sent events, read to their proper end.
pub(super) fn events(addr: SocketAddr) -> u64 {
    let mut client = Client::connect(addr);
    client.send("/events");
    let all = client.rest();
    assert!(all.starts_with("HTTP/1.1 200 ") && all.ends_with("data: bye\n\n\r\n0\r\n\r\n"), "{all:?}");
    1
}

/// Messages that the server echoes until it says goodbye. A message that it had not read by then needs no echo.
pub(super) fn websocket(addr: SocketAddr) -> u64 {
    let mut socket = WebSocket::connect(addr);
    for echoed in 0.. {
        let message = format!("message {echoed}").into_bytes();
        socket.send(TEXT, &message);
        let (kind, said) = socket.receive();
        if kind == CLOSE {
            assert_eq!(said[..2], 1001_u16.to_be_bytes(), "{said:?}");
            socket.send(CLOSE, &said);
            socket.0.wait_closed();
            return echoed;
        }
        assert_eq!((kind, said), (TEXT, message));
        sleep(Duration::from_millis(20));
    }
    unreachable!("the server closes first")
}
