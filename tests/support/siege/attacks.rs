//! The ways to hold a connection open for nothing, or to make a server work for nothing, each as the bytes its client sends.

use std::time::Duration;

use super::floods::{self, request};
use super::site::{LARGE, NAMES};
use crate::frames::{CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame, get};

/// The behaviour of one attacking connection.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    pub name: &'static str,
    /// The number of such connections at a time in the siege.
    pub connections: usize,
    /// The bytes it sends first.
    pub opening: fn() -> Vec<u8>,
    /// The bytes it keeps sending, if any.
    pub more: Option<More>,
    pub reads: Reads,
}

/// The bytes that are sent periodically.
#[derive(Debug, Clone, Copy)]
pub struct More {
    pub apart: Duration,
    /// The number of messages in each batch.
    pub batch: u32,
    /// Makes the message with this number, from 0.
    pub next: fn(u32) -> Vec<u8>,
}

/// How a client reads the server's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    All,
    /// Reads everything and answers PING. The attack is over when the server has ended each of this many streams.
    Streams(u32),
    /// Reads nothing and has the smallest receive buffer that its kernel allows.
    Nothing,
}

/// The pause of a client that drips bytes.
const SECOND: Duration = Duration::from_secs(1);
/// The pause between two batches of 100 frames of a flood: 5,000 frames a second, a load that honest clients must survive, but
/// not the maximum that two cores can send.
const BATCH: Duration = Duration::from_millis(20);
/// The server's limit of streams on a connection.
pub const STREAMS: u32 = 100;
const RANGES: usize = 25_000;
pub const CONTINUATIONS: &str = "CONTINUATION once in a while";

/// Connections that never complete a request.
pub const WITHOUT_REQUEST: &[Attack] = &[
    quiet("silent", 50, Vec::new),
    drip("CRLF only", 20, Vec::new, |_| b"\r\n".to_vec()),
    drip("a head byte by byte", 20, || b"GET / HTTP/1.1\r\nhost: t\r\nx: ".to_vec(), |_| b"x".to_vec()),
    drip(
        "a second head byte by byte",
        5,
        || [&plain("/", "")[..], b"GET / HTTP/1.1\r\nhost: t\r\nx: "].concat(),
        |_| b"x".to_vec(),
    ),
    quiet("half of a head", 10, || b"GET / HTTP/1.1\r\nho".to_vec()),
    quiet("a bare preface of HTTP/2", 20, || PREFACE.to_vec()),
    quiet("HEADERS without END_HEADERS", 20, || hello(&frame(HEADERS, END_STREAM, 1, &get("/")))),
    drip(
        CONTINUATIONS,
        5,
        || hello(&floods::continuation(0)),
        |_| frame(CONTINUATION, 0, 1, b"\x00\x01x\x01y"),
    ),
    quiet("half of a frame", 20, || hello(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/"))[..12])),
];

/// Connections that stay open after their requests are answered.
pub const IDLE: &[Attack] = &[
    quiet("idle after a request", 40, || plain("/", "")),
    drip("CRLF after a request", 5, || plain("/", ""), |_| b"\r\n".to_vec()),
    quiet("HTTP/2, no request", 5, || hello(&[])),
    quiet("HTTP/2, idle after a request", 10, || hello(&request(1, "/"))),
    drip("HTTP/2, PING once in a while", 5, || hello(&request(1, "/")), floods::ping),
];

/// Connections that request large answers and do not read them.
pub const TAKING_NOTHING: &[Attack] = &[
    Attack {
        name: "a large file, not read",
        connections: 20,
        opening: || plain(LARGE, ""),
        more: None,
        reads: Reads::Nothing,
    },
    Attack {
        name: "100 stalled streams",
        connections: 4,
        opening: || stalled(&[]),
        more: None,
        reads: Reads::Streams(STREAMS),
    },
    Attack {
        name: "100 stalled streams with brotli",
        connections: 6,
        // accept-encoding is 16 in the static table of HPACK.
        opening: || stalled(b"\x0f\x01\x02br"),
        more: None,
        reads: Reads::Streams(STREAMS),
    },
];

/// Connections that cause work.
pub const FLOODS: &[Attack] = &[
    Attack {
        name: "20 listings of 10,000 names at a time",
        connections: 6,
        opening: || plain(NAMES, "").repeat(20),
        more: Some(More { apart: Duration::from_secs(5), batch: 1, next: |_| plain(NAMES, "").repeat(20) }),
        reads: Reads::All,
    },
    Attack {
        more: Some(More { apart: Duration::from_millis(500), batch: 1, next: |_| ranges() }),
        ..quiet("25,000 ranges", 2, ranges)
    },
    flood("PING flood", floods::ping),
    flood("SETTINGS flood", floods::settings),
    flood("PRIORITY flood", floods::priority),
    flood("rapid reset", |n| floods::rapid_reset(n, LARGE)),
    flood("made you reset", |n| floods::made_you_reset(n, LARGE)),
    flood("CONTINUATION flood", floods::continuation),
];

pub fn all() -> impl Iterator<Item = Attack> {
    [WITHOUT_REQUEST, IDLE, TAKING_NOTHING, FLOODS].into_iter().flatten().copied()
}

pub const fn quiet(name: &'static str, connections: usize, opening: fn() -> Vec<u8>) -> Attack {
    Attack { name, connections, opening, more: None, reads: Reads::All }
}

const fn drip(
    name: &'static str,
    connections: usize,
    opening: fn() -> Vec<u8>,
    next: fn(u32) -> Vec<u8>,
) -> Attack {
    Attack { more: Some(More { apart: SECOND, batch: 1, next }), ..quiet(name, connections, opening) }
}

const fn flood(name: &'static str, next: fn(u32) -> Vec<u8>) -> Attack {
    Attack { more: Some(More { apart: BATCH, batch: 100, next }), ..quiet(name, 1, || hello(&[])) }
}

fn plain(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: t\r\n{headers}\r\n").into_bytes()
}

fn ranges() -> Vec<u8> {
    plain(LARGE, &format!("range: bytes={}0-\r\n", "0-,".repeat(RANGES - 1)))
}

pub fn hello(behind: &[u8]) -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[]), behind].concat()
}

/// Requests on [`STREAMS`] streams with one more header, each with a window of one byte (SETTINGS_INITIAL_WINDOW_SIZE).
fn stalled(header: &[u8]) -> Vec<u8> {
    let narrow = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]);
    let block = [&get(LARGE), header].concat();
    let streams = (0..STREAMS).flat_map(|n| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block));
    [PREFACE.to_vec(), narrow].concat().into_iter().chain(streams).collect()
}
