//! A minimal WebSocket client (RFC 6455) for the tests.

use std::io::Read;
use std::net::SocketAddr;

use support::harness::Client;

pub(crate) const TEXT: u8 = 0x1;
pub(crate) const CLOSE: u8 = 0x8;

pub(crate) struct WebSocket(pub(crate) Client);

impl WebSocket {
    pub(crate) fn connect(addr: SocketAddr) -> WebSocket {
        let mut client = Client::connect(addr);
        client.write(
            "GET /ws HTTP/1.1\r\nhost: test\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        // Reads byte by byte, because the first frame may follow the head directly.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.0.read_exact(&mut byte).expect("an answer");
            head.extend(byte);
        }
        let head = String::from_utf8_lossy(&head);
        assert!(head.starts_with("HTTP/1.1 101") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        WebSocket(client)
    }

    /// Sends a whole message of less than 126 bytes, masked with zeros.
    pub(crate) fn send(&mut self, kind: u8, payload: &[u8]) {
        let length = u8::try_from(payload.len()).expect("short");
        self.0.write([&[0x80 | kind, 0x80 | length, 0, 0, 0, 0], payload].concat());
    }

    /// Receives the next message: its opcode and payload.
    pub(crate) fn receive(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.0.read_exact(&mut head).expect("a frame");
        let mut payload = vec![0; usize::from(head[1])];
        self.0.0.read_exact(&mut payload).expect("a whole frame");
        (head[0] & 0x0f, payload)
    }
}
