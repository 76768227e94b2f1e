//! Floods of HTTP/2: frames that are cheap to send and make the server work or remember.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{Siege, connect};

/// In MiB.
const CALM: u64 = 64;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).expect("short").to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// GET `path`, by the static table of HPACK and without Huffman.
fn get(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).expect("short")];
    block.extend(path.as_bytes());
    block.extend(b"\x01\x01t");
    block
}

fn open(addr: SocketAddr) -> TcpStream {
    let mut stream = connect(addr);
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    stream.write_all(&hello).expect("the server reads");
    stream
}

/// What came of a flood.
#[derive(Debug, Default)]
struct Outcome {
    frames: usize,
    received: Vec<u8>,
    /// The server has ended the connection, or does not take any more.
    ended: bool,
}

impl Outcome {
    /// The frames that came back, each with its type and payload.
    fn answers(&self) -> Vec<(u8, &[u8])> {
        let (mut rest, mut frames) = (&self.received[..], Vec::new());
        while let [a, b, c, kind, _, _, _, _, _, payload @ ..] = rest {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let Some(payload) = payload.get(..length) else { break };
            frames.push((*kind, payload));
            rest = &rest[9 + length..];
        }
        frames
    }

    fn count(&self, kind: u8) -> usize {
        self.answers().iter().filter(|answer| answer.0 == kind).count()
    }

    /// The error code of the last GOAWAY.
    fn goaway(&self) -> Option<u32> {
        let answers = self.answers();
        let last = answers.iter().rfind(|answer| answer.0 == GOAWAY)?;
        last.1.get(4..8)?.try_into().ok().map(u32::from_be_bytes)
    }
}

/// Sends what `next` makes until the server ends the connection or `time` is over. If `listens`, reads what it answers.
fn flood(addr: SocketAddr, listens: bool, time: Duration, mut next: impl FnMut(u32) -> Vec<u8>) -> Outcome {
    let (mut stream, mut outcome) = (open(addr), Outcome::default());
    let until = Instant::now() + time;
    stream.set_write_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let mut number = 0;
    while Instant::now() < until && !outcome.ended {
        let batch: Vec<u8> = (0..100).flat_map(|n| next(number + n)).collect();
        number += 100;
        match stream.write_all(&batch) {
            Ok(()) => outcome.frames += 100,
            Err(_) => outcome.ended = true,
        }
        if listens {
            stream.set_nonblocking(true).expect("a socket");
            outcome.ended |= !take(&mut stream, &mut outcome.received);
            stream.set_nonblocking(false).expect("a socket");
        }
    }
    // What the server said last.
    while take(&mut stream, &mut outcome.received) && outcome.ended {}
    outcome
}

/// Reads what there is; says whether the connection is still open.
fn take(stream: &mut TcpStream, received: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 64 * 1024];
    match stream.read(&mut chunk) {
        Ok(0) => false,
        Ok(n) => {
            received.extend_from_slice(&chunk[..n]);
            true
        }
        Err(e) => e.kind() == ErrorKind::WouldBlock,
    }
}

fn request(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &get(path))
}

/// Short, so that a few of them happen in one handover.
const FLOOD: Duration = Duration::from_millis(200);

#[test]
fn a_rapid_reset_ends_in_goaway_enhance_your_calm() {
    let mut siege = Siege::begin(&["--idle-grace", "500ms"]);
    siege.attack_while_handing_over(|addr| {
        // CVE-2023-44487: a request that is taken back at once is counted nowhere, and has made work.
        let outcome = flood(addr, true, 10 * FLOOD, |n| {
            let stream = 2 * n + 1;
            [request(stream, "/slow?ms=9000"), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
        });
        assert!(outcome.ended, "{} frames were taken", outcome.frames);
        assert_eq!(outcome.goaway(), Some(ENHANCE_YOUR_CALM), "after {} frames", outcome.frames);
    });
    siege.end(CALM);
}

#[test]
fn a_head_of_continuations_without_end_ends_in_goaway_and_is_not_kept() {
    let mut siege = Siege::begin(&["--idle-grace", "500ms"]);
    siege.attack_while_handing_over(|addr| {
        // CVE-2024-27316: literal fields without indexing, in frames none of which is the last.
        let field = [b"\x00\x01x\x64".to_vec(), vec![b'y'; 100]].concat();
        let fields = field.repeat(100);
        let outcome = flood(addr, true, 10 * FLOOD, |n| match n {
            0 => frame(HEADERS, 0, 1, &get("/")),
            _ => frame(CONTINUATION, 0, 1, &fields),
        });
        assert!(outcome.ended, "{} frames were taken", outcome.frames);
        assert!(outcome.goaway().is_some_and(|code| code != 0), "{:?}", outcome.goaway());
    });
    siege.end(CALM);
}

#[test]
fn floods_of_settings_and_pings_are_answered_as_fast_as_they_are_read_and_not_remembered() {
    let mut siege = Siege::begin(&["--idle-grace", "500ms"]);
    siege.attack_while_handing_over(|addr| {
        for listens in [true, false] {
            for (kind, payload) in [(SETTINGS, &[][..]), (PING, &[7; 8])] {
                let outcome = flood(addr, listens, FLOOD, |_| frame(kind, 0, 0, payload));
                // Not an error by itself; a generation that retires may end it in between.
                assert!(
                    outcome.goaway().is_none_or(|code| code == 0 || code == ENHANCE_YOUR_CALM),
                    "{outcome:?}"
                );
                assert!(outcome.frames > 0 && !outcome.received.is_empty());
            }
        }
    });
    siege.end(CALM);
}

#[test]
fn a_client_that_opens_streams_without_end_and_reads_nothing_gets_only_so_many() {
    let mut siege = Siege::begin(&["--idle-grace", "500ms", "--drain-timeout", "3s"]);
    siege.attack_while_handing_over(|addr| {
        // A window of nothing: no answer can be sent.
        let closed = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
        let outcome = flood(addr, true, 10 * FLOOD, |n| match n {
            0 => closed.clone(),
            n => request(2 * n - 1, "/bytes?n=1000000"),
        });
        // 200 are served at a time (hyper's default); the others are refused, and when these are too many the connection
        // is ended, which may destroy what was said before.
        let (answered, refused) = (outcome.count(HEADERS), outcome.count(RST_STREAM));
        assert!(answered <= 200, "{answered} were answered");
        assert!(
            refused > 0 || outcome.goaway().is_some() || outcome.ended,
            "{answered} answered, {refused} refused"
        );
    });
    siege.end(CALM);
}

#[test]
fn frames_of_random_bytes_end_the_connection_and_nothing_else() {
    let mut siege = Siege::begin(&["--idle-grace", "500ms"]);
    siege.attack_while_handing_over(|addr| {
        let mut random = fastrand::Rng::with_seed(9);
        for _ in 0..20 {
            let outcome = flood(addr, true, 10 * FLOOD, |_| {
                let payload: Vec<u8> = (0..random.usize(0..200)).map(|_| random.u8(..)).collect();
                frame(random.u8(0..10), random.u8(..), random.u32(0..9), &payload)
            });
            assert!(outcome.ended, "{} frames were taken", outcome.frames);
        }
    });
    siege.end(CALM);
}
