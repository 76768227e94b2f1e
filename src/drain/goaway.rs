//! When and how an HTTP/2 connection of a lame duck is told to go: GOAWAY, which many clients take for an error when it
//! meets a request, so it is said when nothing is under way.
//!
//! A client that reads while it waits is told twice: that no more streams should come, and when it has heard that, which was
//! the last one (RFC 9113, section 6.8), so no stream is refused. hyper does it. A client that reads only while a request is
//! under way, as httpx does, would meet the first GOAWAY with its next request and fail that. It is told the last stream at
//! once, and its next request is then one that it may make again. To learn which of the two a client is, it is sent PINGs
//! while no stream is open: one that reads answers before it asks for anything else. Only of one that is near the answer
//! is known to be missing and not late.

use std::time::Duration;

use tokio::time::Instant;

use super::frames::{ACK, DATA, END_STREAM, Frame, Frames, GOAWAY, HEADERS, PING, RST_STREAM};

/// For so long nothing has to be under way before GOAWAY is said.
const QUIET: Duration = Duration::from_millis(250);
/// In the last part of the time for it, the first moment is taken in which no stream is open.
const HURRY: Duration = Duration::from_secs(1);
/// A PING that is not answered for so long is not read, whatever gets lost on the way.
const UNREAD: Duration = Duration::from_secs(1);
/// How often a PING must be overtaken by a request before the client is taken for one that does not read: requests that were
/// on their way already, and answers that are late on a busy machine, do that too. A PING that is not answered for as long as
/// the connection is quiet counts as [`LONG`] of them.
const OVERTAKEN: u32 = 16;
const LONG: u32 = 8;

/// What our PINGs say, to know their answers.
const PAYLOAD: &[u8; 8] = b"handover";

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
    probe: Option<Probe>,
    /// The shortest time in which a PING was answered.
    quickest: Option<Duration>,
    client: Client,
    /// hyper has told it to go, and it has acknowledged the PING behind it.
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
    /// Find out whether the client reads: send [`ping`].
    Probe,
    /// Have hyper say it.
    Gracefully,
    /// Say it with [`Goaway::last`] and close.
    AtOnce,
}

pub(super) fn ping() -> Vec<u8> {
    [&[0, 0, 8, PING, 0, 0, 0, 0, 0][..], PAYLOAD].concat()
}

impl Goaway {
    pub(super) fn new() -> Goaway {
        Goaway {
            received: Frames::of_client(),
            sent: Frames::of_server(),
            open: Vec::new(),
            last_stream: 0,
            has_begun: false,
            last_activity: Instant::now(),
            probe: None,
            quickest: None,
            client: Client::Unknown(0),
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
    pub(super) fn told(&mut self) {
        self.acknowledged = false;
    }

    /// Returns how many of the bytes are left when the answers to our PINGs, of which hyper knows nothing, are taken out.
    pub(super) fn received(&mut self, bytes: &mut [u8], is_lame_duck: bool) -> usize {
        let Goaway { received, open, last_stream, probe, acknowledged, .. } = self;
        let (mut requested, mut answer) = (false, None);
        received.read(bytes, |Frame { kind, flags, stream, whole }| match kind {
            HEADERS if stream > *last_stream => {
                *last_stream = stream;
                open.push(stream);
                requested = true;
            }
            RST_STREAM => open.retain(|one| *one != stream),
            PING if flags & ACK != 0 => match whole {
                Some(whole) if probe.is_some() && bytes[whole.clone()].ends_with(PAYLOAD) => {
                    answer = Some((whole, requested));
                }
                _ => *acknowledged = true,
            },
            _ => {}
        });
        if requested && is_lame_duck {
            self.last_activity = Instant::now();
        }
        let overtakes = answer.as_ref().map_or(requested, |(_, requested_before)| *requested_before);
        if let Some(probe) = self.probe.as_mut().filter(|_| overtakes) {
            probe.overtaken.get_or_insert_with(Instant::now);
        }
        let Some((whole, _)) = answer else { return bytes.len() };
        self.answered();
        bytes.copy_within(whole.end.., whole.start);
        bytes.len() - whole.len()
    }

    fn answered(&mut self) {
        let Some(Probe { sent, overtaken }) = self.probe.take() else { return };
        let took = sent.elapsed();
        let quickest = self.quickest.map_or(took, |quickest| quickest.min(took));
        self.quickest = Some(quickest);
        self.client = match (self.client, overtaken) {
            (Client::Reads, _) | (_, None) => Client::Reads,
            (Client::Unknown(times), Some(at)) if at - sent >= QUIET => Client::Unknown(times + LONG),
            // One that came sooner was on its way when the PING was sent.
            (Client::Unknown(times), Some(at)) if at - sent >= 2 * quickest => Client::Unknown(times + 1),
            (unknown, Some(_)) => unknown,
        };
    }

    /// Returns whether these bytes, which were written, end the last open stream of a lame duck.
    pub(super) fn sent(&mut self, bytes: &[u8], is_lame_duck: bool) -> bool {
        let Goaway { sent, open, has_begun, .. } = self;
        *has_begun = true;
        let before = open.len();
        sent.read(bytes, |Frame { kind, flags, stream, .. }| {
            if kind == RST_STREAM || matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                open.retain(|one| *one != stream);
            }
        });
        let ended = open.len() < before && is_lame_duck;
        if ended {
            self.last_activity = Instant::now();
        }
        ended && self.is_idle()
    }

    fn is_idle(&self) -> bool {
        self.open.is_empty() && self.received.is_between() && self.sent.is_between()
    }

    /// What comes next, and when, if nothing happens until then. It is a lame duck since `since`, and is to be told by
    /// `latest`.
    pub(super) fn next(&self, since: Instant, latest: Instant) -> (Instant, Step) {
        let hurry = latest - HURRY.min((latest - since) / 2);
        let quiet = (since.max(self.last_activity) + QUIET).min(hurry);
        // The server's SETTINGS come first.
        if !self.is_idle() || !self.has_begun {
            return (latest, Step::Gracefully);
        }
        match (self.client, &self.probe) {
            (Client::Reads, _) => (quiet, Step::Gracefully),
            (Client::Unknown(OVERTAKEN..), _) => (quiet, Step::AtOnce),
            (Client::Unknown(_), None) if Instant::now() < hurry => (since, Step::Probe),
            (Client::Unknown(_), None) => (hurry, Step::Gracefully),
            (Client::Unknown(times), Some(probe)) => {
                let unread = probe.sent + if times + LONG >= OVERTAKEN { QUIET } else { UNREAD };
                let known = unread.max(quiet);
                if known <= hurry { (known, Step::AtOnce) } else { (hurry, Step::Gracefully) }
            }
        }
    }

    /// The client is too far away to tell whether it reads.
    pub(super) fn is_far(&mut self) {
        self.client = Client::Reads;
    }

    /// A PING is sent now.
    pub(super) fn probe(&mut self) {
        self.probe = Some(Probe { sent: Instant::now(), overtaken: None });
    }
}
