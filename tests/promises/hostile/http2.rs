//! HTTP/2 floods: frames that are cheap to send and cost the server work or memory.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use support::frames::{GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, frame};
use support::siege::floods::{self, request};

use super::{Siege, connect};

/// The memory limit of a generation, in MiB.
const CALM: u64 = 64;

const ENHANCE_YOUR_CALM: u32 = 11;

fn open(addr: SocketAddr) -> TcpStream {
    let mut stream = connect(addr);
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    stream.write_all(&hello).expect("the server reads");
    stream
}

/// The outcome of a flood.
#[derive(Debug, Default)]
struct Outcome {
    frames: usize,
    received: Vec<u8>,
    /// Whether the server has ended the connection or takes no more frames.
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

/// Sends frames from `next` until the server ends the connection or `time` is over. If `listens`, also reads the answers.
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
    // The last frames of the server.
    while take(&mut stream, &mut outcome.received) && outcome.ended {}
    outcome
}

/// Reads the bytes that have arrived, and returns whether the connection is still open.
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

/// The length of a flood, short enough for several of them in one handover.
const FLOOD: Duration = Duration::from_millis(200);

#[test]
fn a_rapid_reset_ends_in_goaway_enhance_your_calm() {
    let mut siege = Siege::begin(&["--idle-grace", "500ms"]);
    siege.attack_while_handing_over(|addr| {
        let outcome = flood(addr, true, 10 * FLOOD, |n| floods::rapid_reset(n, "/slow?ms=9000"));
        assert!(outcome.ended, "{} frames were taken", outcome.frames);
        assert_eq!(outcome.goaway(), Some(ENHANCE_YOUR_CALM), "after {} frames", outcome.frames);
    });
    siege.end(CALM);
}

#[test]
fn streams_that_the_client_makes_the_server_reset_end_in_goaway_enhance_your_calm() {
    let mut siege = Siege::begin(&["--idle-grace", "500ms"]);
    siege.attack_while_handing_over(|addr| {
        let outcome = flood(addr, true, 10 * FLOOD, |n| floods::made_you_reset(n, "/slow?ms=9000"));
        assert!(outcome.ended, "{} frames were taken", outcome.frames);
        assert_eq!(outcome.goaway(), Some(ENHANCE_YOUR_CALM), "after {} frames", outcome.frames);
    });
    siege.end(CALM);
}

#[test]
fn a_head_of_continuations_without_end_ends_in_goaway_and_is_not_kept() {
    let mut siege = Siege::begin(&["--idle-grace", "500ms"]);
    siege.attack_while_handing_over(|addr| {
        let outcome = flood(addr, true, 10 * FLOOD, floods::continuation);
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
            for next in [floods::settings, floods::ping] {
                let outcome = flood(addr, listens, FLOOD, next);
                // Such a flood is no error, but a generation that retires may end the connection in the middle of it.
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
fn priorities_of_streams_that_never_begin_are_not_remembered() {
    let mut siege = Siege::begin(&["--idle-grace", "500ms"]);
    siege.attack_while_handing_over(|addr| {
        let outcome = flood(addr, true, FLOOD, floods::priority);
        assert!(outcome.goaway().is_none_or(|code| code == 0 || code == ENHANCE_YOUR_CALM), "{outcome:?}");
        assert!(outcome.frames > 0);
    });
    siege.end(CALM);
}

#[test]
fn a_client_that_opens_endless_streams_and_takes_no_body_gets_at_most_200() {
    let mut siege = Siege::begin(&["--idle-grace", "500ms", "--drain-timeout", "3s"]);
    siege.attack_while_handing_over(|addr| {
        // With a flow-control window of zero no body can be sent.
        let closed = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
        let outcome = flood(addr, true, 10 * FLOOD, |n| match n {
            0 => closed.clone(),
            n => request(2 * n - 1, "/bytes?n=1000000"),
        });
        // 200 streams are served at a time (hyper's default). The others are refused, and after too many refusals the server
        // ends the connection, which may destroy frames that it sent before.
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
