//! When a connection may be closed from our side. It is asked whenever the connection waits for its client, and has the
//! task woken when the answer may have changed: by the mode, by a deadline, by the socket, and by the end of a request,
//! after which hyper reads again.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::frames::Frames;
use super::requests::{Protocol, Requests};
use super::waves::Seat;
use super::{Drain, Mode};

/// From the first byte of a request to the end of its head. hyper's own timer would also end a connection that is merely
/// idle, in the middle of nothing, and is set anew for every request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an HTTP/2 client may take to acknowledge GOAWAY before its connection is closed between two streams.
const GOAWAY_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Farewell {
    /// Where this connection is told that there is a new mode.
    seat: Seat,
    /// Who is told.
    waker: Option<Waker>,
    /// [`Shared::turns`](super::Shared) when `mode` was learnt.
    turn: usize,
    mode: Mode,
    /// When a connection that is a lame duck became one.
    since: Instant,
    last_byte: Instant,
    head_began: Instant,
    frames: Frames,
    timer: Option<Pin<Box<Sleep>>>,
}

/// What is to be done with a connection that waits.
pub(super) enum Verdict {
    /// Close it, unless something has arrived by now.
    Close,
    /// Its head has been begun for too long; nothing can come of it.
    GiveUp,
    Cut,
}

impl Farewell {
    pub(super) fn new(drain: &Drain, requests: &Arc<Requests>) -> Farewell {
        let turn = drain.turns();
        Farewell {
            seat: drain.0.waves.seat(requests),
            waker: None,
            turn,
            mode: drain.mode(),
            since: Instant::now(),
            last_byte: Instant::now(),
            head_began: Instant::now(),
            frames: Frames::default(),
            timer: None,
        }
    }

    /// The time of the last byte matters only to a lame duck; before that, its grace begins with the lame duck.
    pub(super) fn note_byte(&mut self, requests: &Requests) {
        if !requests.is_normal() {
            self.last_byte = Instant::now();
        }
    }

    pub(super) fn received(&mut self, bytes: &[u8], protocol: Protocol) {
        if matches!(protocol, Protocol::Unknown | Protocol::Http2) {
            self.frames.read(bytes);
        }
    }

    pub(super) fn poll(&mut self, requests: &Requests, cx: &mut Context<'_>) -> Poll<Verdict> {
        self.learn(requests.drain(), cx);
        if self.mode == Mode::Cut {
            return Poll::Ready(Verdict::Cut);
        }
        if requests.are_in_flight() || requests.protocol() == Protocol::Other {
            return Poll::Pending;
        }
        let Some((deadline, verdict)) = self.deadline(requests) else {
            self.timer = None;
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(verdict)
    }

    /// Until when a connection without a request in flight may live.
    fn deadline(&mut self, requests: &Requests) -> Option<(Instant, Verdict)> {
        if requests.protocol() != Protocol::Http2 && requests.has_head_begun() {
            if requests.is_new_head() {
                self.head_began = Instant::now();
            }
            return Some((self.head_began + HEADER_TIMEOUT, Verdict::GiveUp));
        }
        let quiet_since = || self.last_byte.max(self.since).max(requests.last_end().unwrap_or(self.since));
        match (self.mode, requests.protocol()) {
            // Acknowledged, h2 closes by itself when the last stream is written, which only it knows.
            (Mode::LameDuck { .. }, Protocol::Http2) if self.frames.acknowledged => None,
            (Mode::LameDuck { .. }, Protocol::Http2) => {
                Some((quiet_since() + GOAWAY_TIMEOUT, Verdict::Close))
            }
            (Mode::LameDuck { idle_grace, .. }, _) => Some((quiet_since() + idle_grace, Verdict::Close)),
            (Mode::Normal | Mode::Cut, _) => None,
        }
    }

    /// Brings `mode` up to date and has the task woken at its next change. This runs for every request, and taking the
    /// seat takes a lock, so it is taken only if the task is another one.
    fn learn(&mut self, drain: &Drain, cx: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.seat.take(cx.waker().clone());
            self.waker = Some(cx.waker().clone());
        }
        // In this order: a turn after this look wakes.
        let turn = drain.turns();
        if self.turn != turn {
            self.turn = turn;
            self.turned(drain.mode());
        }
    }

    fn turned(&mut self, mode: Mode) {
        let is_same = matches!((self.mode, mode), (Mode::LameDuck { since, .. }, Mode::LameDuck { since: now, .. }) if since == now);
        if !is_same {
            self.since = Instant::now();
        }
        self.mode = mode;
    }
}
