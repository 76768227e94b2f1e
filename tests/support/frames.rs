//! HTTP/2 frames on the wire (RFC 9113, section 4.1), for clients that do what no library does and for tests that inspect the
//! traffic. Shared by the tests and the bench.

use std::io::{self, Read};

/// The connection preface, which a client sends before its first frame.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 0x1;
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;

pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Reads the next frame; `None` at the end.
    pub fn read(from: &mut impl Read) -> io::Result<Option<Frame>> {
        let mut head = [0; 9];
        if from.read(&mut head[..1])? == 0 {
            return Ok(None);
        }
        from.read_exact(&mut head[1..])?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        from.read_exact(&mut payload)?;
        Ok(Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload }))
    }

    /// Removes the first frame from the bytes that have been read, if it is complete.
    pub fn take(read: &mut Vec<u8>) -> Option<Frame> {
        let mut rest = &read[..];
        let frame = Frame::read(&mut rest).ok()??;
        let left = rest.len();
        read.drain(..read.len() - left);
        Some(frame)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("payloads are short").to_be_bytes();
        [&length[1..], &[self.kind, self.flags], &self.stream.to_be_bytes(), &self.payload].concat()
    }

    /// Returns whether this frame ends its stream.
    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, HEADERS | DATA) && self.flags & END_STREAM != 0
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    Frame { kind, flags, stream, payload: payload.to_vec() }.to_bytes()
}

/// The header block of a GET request, with HPACK's static table and without Huffman coding (RFC 7541).
pub fn get(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).expect("paths are short")];
    block.extend(path.as_bytes());
    block.extend(b"\x01\x01t");
    block
}
