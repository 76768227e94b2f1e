//! Decides when and how an HTTP/2 client of a lame duck gets GOAWAY. Many clients treat a GOAWAY that crosses a request as an
//! error, so it is sent while nothing is in flight.
//!
//! A client that reads while it is idle gets two GOAWAYs: the first asks for no more streams, and the second, once the first is
//! acknowledged, names the last stream (RFC 9113, section 6.8), so no stream is refused. hyper implements this. A client that
//! reads only while a request is in flight, as httpx does, would read the first GOAWAY with its next request and fail that
//! request. Such a client gets the last stream at once, so it may safely retry its next request. To learn which kind a client
//! is, it gets PINGs while no stream is open: a client that reads while idle answers before its next request. The absence
//! of an answer means something only if the client is near; otherwise the answer may just be late.
//!
//! hyper fixes the last stream as soon as it reads the answer to its own PING. A client may send requests right behind that
//! answer that it had begun before it read GOAWAY (h2 does), and they would be refused. So hyper gets the answer a little later.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use super::conn_state::Clock;
use super::frames::{ACK, DATA, END_STREAM, Frame, Frames, GOAWAY, HEADERS, PING, RST_STREAM};

/// How long a connection must be quiet before GOAWAY is sent, at first. The required pause shrinks with time, to zero at the latest
/// time for GOAWAY, so each connection gets GOAWAY in one of its longest pauses.
const QUIET: Duration = Duration::from_millis(250);
/// The longest round trip to a near client. An answer from farther away, where packets also get lost, may only be late.
const NEAR: Duration = Duration::from_millis(10);
/// A client that has not answered a PING for this long does not read, even if packets get lost.
const UNREAD: Duration = Duration::from_secs(1);
/// How long a client that reads all the time may take to answer a PING on a busy machine. A client that never pauses sends its next
/// request sooner, which says nothing about whether it reads.
const TURNAROUND: Duration = Duration::from_millis(1);
/// How many times a request must overtake the answer to a PING before the client is considered not to read while idle: a request
/// that was already on its way, or an answer that is late on a busy machine, does that too.
const MAX_OVERTAKES: u32 = 16;
/// How many of these times count for a PING that was overtaken only after [`QUIET`].
const LONG_OVERTAKE_WEIGHT: u32 = 8;

/// The most open streams that are remembered. hyper serves fewer at a time, and refuses or ignores the others.
const MAX_OPEN_STREAMS: usize = 1024;

/// The payload of a probe PING, which identifies its answer.
const PAYLOAD: &[u8; 8] = b"handover";
/// The payload of a PING that only asks whether the client is there.
const ALIVE: &[u8; 8] = b"anybody?";

#[derive(Debug)]
pub(super) struct Goaway {
    received: Frames,
    sent: Frames,
    /// The streams that have no complete response yet.
    open: Vec<u32>,
    last_stream: u32,
    /// The server's first frame has been sent.
    has_begun: bool,
    /// When a lame duck last received a request, or wrote the end of a response.
    last_activity: Instant,
    /// The round-trip time to the client, once the kernel was asked.
    round_trip: Option<Duration>,
    probe: Option<Probe>,
    client: Client,
    /// hyper was told to send GOAWAY, and a PING behind it.
    told: bool,
    /// A part of a response was written, or a request came, since [`Goaway::take_progress`] was last called.
    made_progress: bool,
    /// The beginning of a frame that may be an answer to a PING. Without the rest it is unknown whether hyper may get it.
    partial: Vec<u8>,
    /// The answer to hyper's PING, which is withheld from hyper, and when it came.
    withheld: Option<(Vec<u8>, Instant)>,
    acknowledged: bool,
}

/// A probe PING that is not answered yet.
#[derive(Debug)]
struct Probe {
    sent: Instant,
    /// When the first request after the PING arrived. The client may have sent it shortly before the PING.
    overtaken: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    /// Reads while it is idle, or is too far away to tell.
    Reads,
    /// Not known yet; a PING has been overtaken this many times.
    Unknown(u32),
}

/// The next step on the way to GOAWAY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Find out whether the client reads while idle, with [`Goaway::probe`].
    Probe,
    /// Have hyper send both GOAWAYs.
    Gracefully,
    /// Send [`Goaway::last`] and close.
    AtOnce,
    /// Pass hyper the answer to its PING.
    Acknowledge,
}

fn ping(payload: &[u8; 8]) -> Vec<u8> {
    [&[0, 0, 8, PING, 0, 0, 0, 0, 0][..], payload].concat()
}

/// Removes a range. Returns how many bytes are left.
fn take_out(bytes: &mut [u8], range: Range<usize>) -> usize {
    let left = bytes.len() - range.len();
    bytes.copy_within(range.end.., range.start);
    left
}

impl Goaway {
    pub(super) fn new(now: Instant) -> Goaway {
        Goaway {
            received: Frames::of_client(),
            sent: Frames::of_server(),
            open: Vec::new(),
            last_stream: 0,
            has_begun: false,
            last_activity: now,
            round_trip: None,
            probe: None,
            client: Client::Unknown(0),
            told: false,
            made_progress: false,
            partial: Vec::new(),
            withheld: None,
            acknowledged: false,
        }
    }

    /// Returns a GOAWAY frame that names the last stream, without an error.
    pub(super) fn last(&self) -> Vec<u8> {
        [&[0, 0, 8, GOAWAY, 0, 0, 0, 0, 0][..], &self.last_stream.to_be_bytes(), &[0; 4]].concat()
    }

    pub(super) fn is_acknowledged(&self) -> bool {
        self.acknowledged
    }

    /// Notes that hyper is told to send GOAWAY now.
    pub(super) fn tell(&mut self) {
        self.told = true;
    }

    /// Returns when hyper may get the answer to its PING.
    pub(super) fn withheld_until(&self) -> Option<Instant> {
        let (_, came) = self.withheld.as_ref().filter(|_| self.is_between_requests())?;
        Some(*came + QUIET)
    }

    /// Returns the withheld answer to hyper's PING.
    pub(super) fn acknowledge(&mut self) -> Vec<u8> {
        self.acknowledged = true;
        self.withheld.take().map(|(answer, _)| answer).unwrap_or_default()
    }

    /// Takes the bytes that the last call of [`received`](Goaway::received) kept back. They have to be received again, together
    /// with the bytes that follow.
    pub(super) fn take_partial(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.partial)
    }

    /// Takes out the answers to our PINGs, and the answer to hyper's PING, which hyper gets later. Returns how many bytes are left.
    pub(super) fn received(&mut self, bytes: &mut [u8], is_lame_duck: bool, clock: &Clock) -> usize {
        let Goaway { received, open, last_stream, .. } = self;
        // Each answer to a PING, and whether a request came before it.
        let (mut requested, mut answers) = (false, vec![]);
        received.read(bytes, |Frame { kind, flags, stream, whole }| match kind {
            HEADERS if stream > *last_stream => {
                *last_stream = stream;
                requested = true;
                if open.len() < MAX_OPEN_STREAMS {
                    open.push(stream);
                }
            }
            RST_STREAM => open.retain(|one| *one != stream),
            PING if flags & ACK != 0 => answers.push((whole, requested)),
            _ => {}
        });
        let awaits_answer = self.probe.is_some() || self.told && !self.acknowledged;
        let begun = if awaits_answer { received.forget_partial_ping(bytes.len()) } else { 0 };
        let (bytes, partial) = bytes.split_at_mut(bytes.len() - begun);
        self.partial.extend_from_slice(partial);
        answers.retain(|(whole, _)| begun == 0 || whole.is_some());
        self.made_progress |= requested;
        if requested && is_lame_duck {
            self.last_activity = clock.now();
        }
        let is_probe = |whole: &Option<Range<usize>>| {
            whole.as_ref().is_some_and(|whole| bytes[whole.clone()].ends_with(PAYLOAD))
        };
        let probed = answers.iter().find(|(whole, _)| is_probe(whole));
        let overtakes = probed.map_or(requested, |(_, requested_before)| *requested_before);
        if let Some(probe) = self.probe.as_mut().filter(|_| overtakes) {
            probe.overtaken.get_or_insert_with(|| clock.now());
        }
        let mut left = bytes.len();
        for (whole, _) in answers.into_iter().rev() {
            let Some(whole) = whole else {
                // Its beginning came before it was awaited.
                self.acknowledged |= self.told;
                continue;
            };
            let answer = &bytes[whole.clone()];
            if answer.ends_with(PAYLOAD) {
                self.answered();
            } else if self.told && !self.acknowledged && !answer.ends_with(ALIVE) {
                self.withheld = Some((answer.to_vec(), clock.now()));
            } else if !answer.ends_with(ALIVE) {
                continue;
            }
            left = take_out(&mut bytes[..left], whole);
        }
        left
    }

    fn answered(&mut self) {
        let Some(Probe { sent, overtaken }) = self.probe.take() else { return };
        // A request that arrived sooner than this was already on its way when the PING was sent.
        let soonest = TURNAROUND.max(2 * self.round_trip.unwrap_or(NEAR));
        self.client = match (self.client, overtaken) {
            (Client::Reads, _) | (_, None) => Client::Reads,
            (Client::Unknown(times), Some(at)) if at - sent >= QUIET => {
                Client::Unknown(times + LONG_OVERTAKE_WEIGHT)
            }
            (Client::Unknown(times), Some(at)) if at - sent >= soonest => Client::Unknown(times + 1),
            (unknown, Some(_)) => unknown,
        };
    }

    /// Notes bytes that were written. Returns whether they end the last open stream of a lame duck.
    pub(super) fn sent(&mut self, bytes: &[u8], is_lame_duck: bool, clock: &Clock) -> bool {
        let Goaway { sent, open, has_begun, .. } = self;
        *has_begun = true;
        let before = open.len();
        let mut made_progress = false;
        sent.read(bytes, |Frame { kind, flags, stream, .. }| {
            made_progress |= matches!(kind, DATA | HEADERS);
            if kind == RST_STREAM || matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                open.retain(|one| *one != stream);
            }
        });
        let ended = open.len() < before && is_lame_duck;
        self.made_progress |= made_progress;
        if ended {
            self.last_activity = clock.now();
        }
        ended && self.is_idle()
    }

    /// Returns whether a part of a response was written, or a request came, since the last call.
    pub(super) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.made_progress)
    }

    /// Returns whether a response is not completely written, or a request has not completely arrived.
    pub(super) fn has_open_streams(&self) -> bool {
        !self.open.is_empty()
    }

    /// Returns a PING that asks whether the client is there, unless a frame is half written.
    pub(super) fn ask(&self) -> Option<Vec<u8>> {
        (self.has_begun && self.sent.is_between()).then(|| ping(ALIVE))
    }

    fn is_between_requests(&self) -> bool {
        self.partial.is_empty() && self.received.is_between()
    }

    fn is_idle(&self) -> bool {
        self.open.is_empty() && self.is_between_requests() && self.sent.is_between()
    }

    /// Returns the next step if nothing happens, and when it is due. The connection has been a lame duck since `since`, and must
    /// get GOAWAY by `latest`.
    pub(super) fn next(&self, since: Instant, latest: Instant, clock: &Clock) -> (Instant, Step) {
        // The server's SETTINGS come first.
        if !self.is_idle() || !self.has_begun {
            return (latest, Step::Gracefully);
        }
        let (idle_since, all) = (since.max(self.last_activity), latest - since);
        // The time at which the pause has become as long as required: QUIET * (latest - then) / (latest - since).
        let left = latest.saturating_duration_since(idle_since);
        let quiet = idle_since + left.mul_f64(QUIET.as_secs_f64() / (QUIET + all).as_secs_f64());
        match (self.client, &self.probe) {
            (Client::Reads, _) => (quiet, Step::Gracefully),
            (Client::Unknown(MAX_OVERTAKES..), _) => (quiet, Step::AtOnce),
            (Client::Unknown(_), None) if clock.now() < latest => (since, Step::Probe),
            (Client::Unknown(_), None) => (latest, Step::Gracefully),
            (Client::Unknown(times), Some(probe)) => {
                let unread =
                    probe.sent + if times + LONG_OVERTAKE_WEIGHT >= MAX_OVERTAKES { QUIET } else { UNREAD };
                let known = unread.max(quiet);
                // The last quarter of the time is too late to find out.
                let late = latest - all / 4;
                if known <= late { (known, Step::AtOnce) } else { (quiet.max(late), Step::Gracefully) }
            }
        }
    }

    /// Returns whether the round-trip time must still be asked before a probe.
    pub(super) fn needs_round_trip(&self) -> bool {
        self.round_trip.is_none()
    }

    /// Returns the probe PING to send now, if a client with this round-trip time is near enough.
    pub(super) fn probe(&mut self, round_trip: Option<Duration>, now: Instant) -> Option<Vec<u8>> {
        self.round_trip = self.round_trip.or(round_trip);
        if self.round_trip.is_none_or(|time| time > NEAR) {
            // A late answer cannot be told from a missing one, so the client is treated as one that reads.
            self.client = Client::Reads;
            return None;
        }
        self.probe = Some(Probe { sent: now, overtaken: None });
        Some(ping(PAYLOAD))
    }
}
