//! When a connection may be closed from our side. It is asked whenever the connection waits for its client, and has the
//! task woken when the answer may have changed: by the mode, by a deadline, by the socket, and by the end of a request,
//! after which hyper reads again.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::goaway::{Goaway, Step};
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
    /// The number of a head that is not complete, and since when it is waited for.
    head: Option<(u64, Instant)>,
    /// Of HTTP/2 only.
    goaway: Option<Box<Goaway>>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// What a connection that waits has begun.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Unfinished {
    /// The number of the head that has begun to arrive.
    pub(super) head: Option<u64>,
    /// When the last byte was written to a client that has ended.
    pub(super) half_closed: Option<Instant>,
}

/// What is to be done with a connection that waits.
pub(super) enum Verdict {
    /// Close it, unless something has arrived by now.
    Close,
    /// Its head has been begun for too long: close it too.
    GiveUp,
    /// The next step to GOAWAY.
    Goaway(Step),
    /// Its client has ended, and by this time nothing more was written to it.
    Abandon(Instant),
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
            head: None,
            goaway: None,
            timer: None,
        }
    }

    /// The time of the last byte matters only to a lame duck; before that, its grace begins with the lame duck.
    pub(super) fn note_byte(&mut self, requests: &Requests) {
        if !requests.is_normal() {
            self.last_byte = Instant::now();
        }
    }

    /// The client speaks HTTP/2.
    pub(super) fn expect_goaway(&mut self) -> &mut Goaway {
        self.goaway.get_or_insert_with(|| Box::new(Goaway::new()))
    }

    pub(super) fn goaway(&mut self) -> Option<&mut Goaway> {
        self.goaway.as_deref_mut()
    }

    pub(super) fn poll(
        &mut self,
        requests: &Requests,
        unfinished: Unfinished,
        cx: &mut Context<'_>,
    ) -> Poll<Verdict> {
        self.learn(requests.drain(), cx);
        if self.mode == Mode::Cut {
            return Poll::Ready(Verdict::Cut);
        }
        let Some((deadline, verdict)) = self.deadline(requests, unfinished) else {
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

    /// What comes next if nothing happens, and when.
    fn deadline(&mut self, requests: &Requests, unfinished: Unfinished) -> Option<(Instant, Verdict)> {
        if let Some(progress) = unfinished.half_closed {
            let deadline = progress + requests.half_close_timeout();
            return Some((deadline, Verdict::Abandon(deadline)));
        }
        if let Some(at) = self.goaway.as_ref().and_then(|goaway| goaway.withheld_until()) {
            return Some((at, Verdict::Goaway(Step::Acknowledge)));
        }
        let quiet_since = || self.since.max(self.last_byte).max(requests.last_end().unwrap_or(self.since));
        let is_idle = !requests.are_in_flight();
        match (&self.goaway, self.mode) {
            (Some(goaway), Mode::LameDuck { idle_grace, .. }) if !requests.says_goaway() => {
                let latest = self.since + requests.goaway_delay().min(idle_grace);
                let (at, step) = goaway.next(self.since, latest);
                Some((at, Verdict::Goaway(step)))
            }
            // Acknowledged, h2 closes by itself when the last stream is written, which only it knows.
            (Some(goaway), Mode::LameDuck { .. }) if is_idle && !goaway.is_acknowledged() => {
                Some((quiet_since() + GOAWAY_TIMEOUT, Verdict::Close))
            }
            (None, mode) if is_idle && requests.protocol() != Protocol::Other => {
                match (unfinished.head, mode) {
                    (Some(head), _) => Some((self.waits_for(head) + HEADER_TIMEOUT, Verdict::GiveUp)),
                    (None, Mode::LameDuck { idle_grace, .. }) => {
                        Some((quiet_since() + idle_grace, Verdict::Close))
                    }
                    (None, Mode::Normal | Mode::Cut) => None,
                }
            }
            _ => None,
        }
    }

    /// Since when.
    fn waits_for(&mut self, head: u64) -> Instant {
        match self.head {
            Some((number, since)) if number == head => since,
            _ => self.head.insert((head, Instant::now())).1,
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
