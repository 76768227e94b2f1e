//! When and how an HTTP/2 connection of a lame duck is told to go: GOAWAY, which many clients take for an error when it
//! meets a request, so it is said when nothing is under way.
//!
//! A client that reads while it waits is told twice: that no more streams should come, and when it has heard that, which was
//! the last one (RFC 9113, section 6.8), so no stream is refused. hyper does it. A client that reads only while a request is
//! under way, as httpx does, would meet the first GOAWAY with its next request and fail that. It is told the last stream at
//! once, and its next request is then one that it may make again. To learn which of the two a client is, it is sent PINGs
//! while no stream is open: one that reads answers before it asks for anything else. Only of one that is near the answer
//! is known to be missing and not late.
//!
//! hyper takes stock the moment it reads the answer to its own PING. A client may send requests right behind that answer which
//! it had begun before it read GOAWAY (h2 does), and they would be refused. So hyper gets the answer a little later.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use super::conn_state::Clock;
use super::frames::{ACK, DATA, END_STREAM, Frame, Frames, GOAWAY, HEADERS, PING, RST_STREAM};

/// For so long nothing has to be under way before GOAWAY is said, in the beginning. The longer it has not been said, the shorter
/// is enough, down to no time at all when it has to be: so each connection is told in one of its longest pauses.
const QUIET: Duration = Duration::from_millis(250);
/// A client that is farther away than this, where packets get lost too, may only be late with its answer to a PING.
const NEAR: Duration = Duration::from_millis(10);
/// A PING that is not answered for so long is not read, whatever gets lost on the way.
const UNREAD: Duration = Duration::from_secs(1);
/// A client that reads all the time, on a busy machine, needs so long to answer a PING. One that never pauses sends its next
/// request sooner, and that says nothing.
const TURNAROUND: Duration = Duration::from_millis(1);
/// How often a PING must be overtaken by a request before the client is taken for one that does not read: requests that were
/// on their way already, and answers that are late on a busy machine, do that too. A PING that is not answered for as long as
/// the connection is quiet counts as [`LONG`] of them.
const OVERTAKEN: u32 = 16;
const LONG: u32 = 8;

/// More streams than hyper serves at a time. It refuses or ignores the others, and they must not be remembered.
const MOST: usize = 1024;

/// What our PINGs say, to know their answers.
const PAYLOAD: &[u8; 8] = b"handover";
/// The same of those that only ask whether the client is there.
const ALIVE: &[u8; 8] = b"anybody?";

#[derive(Debug)]
pub(super) struct Goaway {
    received: Frames,
    sent: Frames,
    /// The streams whose responses are not written yet.
    open: Vec<u32>,
    last_stream: u32,
    /// The server's first frame is sent.
    has_begun: bool,
    /// When a lame duck last received a request, or wrote the end of a response.
    last_activity: Instant,
    /// How long its packets take there and back, once that was asked.
    round_trip: Option<Duration>,
    probe: Option<Probe>,
    client: Client,
    /// hyper says GOAWAY, and a PING behind it.
    told: bool,
    /// A response, or a part of one, was written, or a request came.
    gets_on: bool,
    /// The beginning of what may be an answer to a PING: without the rest it cannot be told whether hyper may have it.
    partial: Vec<u8>,
    /// The answer to that PING, which hyper has not got yet, and when it came.
    withheld: Option<(Vec<u8>, Instant)>,
    acknowledged: bool,
}

/// A PING that is not answered yet.
#[derive(Debug)]
struct Probe {
    sent: Instant,
    /// When the first request came that was sent after it, or not long before.
    overtaken: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Reads,
    /// So often a PING was overtaken.
    Unknown(u32),
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Find out whether the client reads, by [`Goaway::probe`].
    Probe,
    /// Have hyper say it.
    Gracefully,
    /// Say it with [`Goaway::last`] and close.
    AtOnce,
    /// Give hyper the answer to its PING.
    Acknowledge,
}

fn ping(payload: &[u8; 8]) -> Vec<u8> {
    [&[0, 0, 8, PING, 0, 0, 0, 0, 0][..], payload].concat()
}

/// Returns how many bytes are left.
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
            gets_on: false,
            partial: Vec::new(),
            withheld: None,
            acknowledged: false,
        }
    }

    /// GOAWAY that names the last stream, without an error.
    pub(super) fn last(&self) -> Vec<u8> {
        [&[0, 0, 8, GOAWAY, 0, 0, 0, 0, 0][..], &self.last_stream.to_be_bytes(), &[0; 4]].concat()
    }

    pub(super) fn is_acknowledged(&self) -> bool {
        self.acknowledged
    }

    /// hyper says GOAWAY now.
    pub(super) fn tell(&mut self) {
        self.told = true;
    }

    /// When hyper may have the answer to its PING.
    pub(super) fn withheld_until(&self) -> Option<Instant> {
        let (_, came) = self.withheld.as_ref().filter(|_| self.is_between_requests())?;
        Some(*came + QUIET)
    }

    /// The answer to the PING of hyper.
    pub(super) fn acknowledge(&mut self) -> Vec<u8> {
        self.acknowledged = true;
        self.withheld.take().map(|(answer, _)| answer).unwrap_or_default()
    }

    /// The bytes that were kept back by the last [`received`](Goaway::received), to be received again with those behind them.
    pub(super) fn take_partial(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.partial)
    }

    /// Returns how many of the bytes are left when what hyper must not know, or not yet, is taken out: the answers to PINGs.
    pub(super) fn received(&mut self, bytes: &mut [u8], is_lame_duck: bool, clock: &Clock) -> usize {
        let Goaway { received, open, last_stream, .. } = self;
        let (mut requested, mut answer) = (false, None);
        received.read(bytes, |Frame { kind, flags, stream, whole }| match kind {
            HEADERS if stream > *last_stream => {
                *last_stream = stream;
                requested = true;
                if open.len() < MOST {
                    open.push(stream);
                }
            }
            RST_STREAM => open.retain(|one| *one != stream),
            PING if flags & ACK != 0 => answer = Some((whole, requested)),
            _ => {}
        });
        let awaits_answer = self.probe.is_some() || self.told && !self.acknowledged;
        let begun = if awaits_answer { received.forget_partial_ping(bytes.len()) } else { 0 };
        let (bytes, partial) = bytes.split_at_mut(bytes.len() - begun);
        self.partial.extend_from_slice(partial);
        let answer = answer.filter(|(whole, _)| begun == 0 || whole.is_some());
        self.gets_on |= requested;
        if requested && is_lame_duck {
            self.last_activity = clock.now();
        }
        let overtakes = answer.as_ref().map_or(requested, |(_, requested_before)| *requested_before);
        if let Some(probe) = self.probe.as_mut().filter(|_| overtakes) {
            probe.overtaken.get_or_insert_with(|| clock.now());
        }
        match answer {
            Some((Some(whole), _)) if self.probe.is_some() && bytes[whole.clone()].ends_with(PAYLOAD) => {
                self.answered();
                take_out(bytes, whole)
            }
            Some((Some(whole), _)) if bytes[whole.clone()].ends_with(ALIVE) => take_out(bytes, whole),
            Some((Some(whole), _)) if self.told && !self.acknowledged => {
                self.withheld = Some((bytes[whole.clone()].to_vec(), clock.now()));
                take_out(bytes, whole)
            }
            // One whose beginning came before it was asked for.
            Some(_) => {
                self.acknowledged |= self.told;
                bytes.len()
            }
            None => bytes.len(),
        }
    }

    fn answered(&mut self) {
        let Some(Probe { sent, overtaken }) = self.probe.take() else { return };
        // A request that came sooner was on its way when the PING was sent.
        let soonest = TURNAROUND.max(2 * self.round_trip.unwrap_or(NEAR));
        self.client = match (self.client, overtaken) {
            (Client::Reads, _) | (_, None) => Client::Reads,
            (Client::Unknown(times), Some(at)) if at - sent >= QUIET => Client::Unknown(times + LONG),
            (Client::Unknown(times), Some(at)) if at - sent >= soonest => Client::Unknown(times + 1),
            (unknown, Some(_)) => unknown,
        };
    }

    /// Returns whether these bytes, which were written, end the last open stream of a lame duck.
    pub(super) fn sent(&mut self, bytes: &[u8], is_lame_duck: bool, clock: &Clock) -> bool {
        let Goaway { sent, open, has_begun, .. } = self;
        *has_begun = true;
        let before = open.len();
        let mut gets_on = false;
        sent.read(bytes, |Frame { kind, flags, stream, .. }| {
            gets_on |= matches!(kind, DATA | HEADERS);
            if kind == RST_STREAM || matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                open.retain(|one| *one != stream);
            }
        });
        let ended = open.len() < before && is_lame_duck;
        self.gets_on |= gets_on;
        if ended {
            self.last_activity = clock.now();
        }
        ended && self.is_idle()
    }

    /// Whether a response has been under way, or a request has come, since this was asked last.
    pub(super) fn has_got_on(&mut self) -> bool {
        std::mem::take(&mut self.gets_on)
    }

    /// The response to a request is not written completely, or a request has not come completely.
    pub(super) fn has_open_streams(&self) -> bool {
        !self.open.is_empty()
    }

    /// Asks whether the client is there, if something can be said between two frames now.
    pub(super) fn ask(&self) -> Option<Vec<u8>> {
        (self.has_begun && self.sent.is_between()).then(|| ping(ALIVE))
    }

    fn is_between_requests(&self) -> bool {
        self.partial.is_empty() && self.received.is_between()
    }

    fn is_idle(&self) -> bool {
        self.open.is_empty() && self.is_between_requests() && self.sent.is_between()
    }

    /// What comes next, and when, if nothing happens until then. It is a lame duck since `since`, and is to be told by
    /// `latest`.
    pub(super) fn next(&self, since: Instant, latest: Instant, clock: &Clock) -> (Instant, Step) {
        // The server's SETTINGS come first.
        if !self.is_idle() || !self.has_begun {
            return (latest, Step::Gracefully);
        }
        let (idle_since, all) = (since.max(self.last_activity), latest - since);
        // When the pause is as long as what is then enough: QUIET * (latest - then) / (latest - since).
        let left = latest.saturating_duration_since(idle_since);
        let quiet = idle_since + left.mul_f64(QUIET.as_secs_f64() / (QUIET + all).as_secs_f64());
        match (self.client, &self.probe) {
            (Client::Reads, _) => (quiet, Step::Gracefully),
            (Client::Unknown(OVERTAKEN..), _) => (quiet, Step::AtOnce),
            (Client::Unknown(_), None) if clock.now() < latest => (since, Step::Probe),
            (Client::Unknown(_), None) => (latest, Step::Gracefully),
            (Client::Unknown(times), Some(probe)) => {
                let unread = probe.sent + if times + LONG >= OVERTAKEN { QUIET } else { UNREAD };
                let known = unread.max(quiet);
                // The last quarter is too late to find out.
                let late = latest - all / 4;
                if known <= late { (known, Step::AtOnce) } else { (quiet.max(late), Step::Gracefully) }
            }
        }
    }

    /// How far away the client is must be known before it is probed.
    pub(super) fn needs_round_trip(&self) -> bool {
        self.round_trip.is_none()
    }

    /// Returns the PING that is to be sent now, to a client that is as far away as `round_trip` says.
    pub(super) fn probe(&mut self, round_trip: Option<Duration>, now: Instant) -> Option<Vec<u8>> {
        self.round_trip = self.round_trip.or(round_trip);
        if self.round_trip.is_none_or(|time| time > NEAR) {
            // It cannot be told, so it is treated as one that reads.
            self.client = Client::Reads;
            return None;
        }
        self.probe = Some(Probe { sent: now, overtaken: None });
        Some(ping(PAYLOAD))
    }
}
