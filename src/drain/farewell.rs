//! When a connection may be closed from our side. It is asked whenever the connection waits for its client, and has the
//! task woken when the answer may have changed: by the mode, by a deadline, by the socket, and by the end of a request,
//! after which hyper reads again.

use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::goaway::{Goaway, Step};
use super::options::limit;
use super::progress::Progress;
use super::requests::{Protocol, Requests};
use super::timer::Timer;
use super::waves::Seat;
use super::{Drain, Mode};

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
    progress: Progress,
    /// It was idle for too long in normal times, and gets GOAWAY.
    retires: bool,
    /// Of HTTP/2 only.
    goaway: Option<Box<Goaway>>,
    timer: Timer,
}

/// What a connection that waits has begun.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Unfinished {
    /// The number of the head that has begun to arrive.
    pub(super) head: Option<u64>,
    /// When the last byte was written to a client that has ended.
    pub(super) half_closed: Option<Instant>,
    /// The rest of a request body is to come.
    pub(super) body: bool,
    /// What was written last did not fit.
    pub(super) blocked: bool,
}

/// What is to be done with a connection that waits.
pub(super) enum Verdict {
    /// Close it, unless something has arrived by now.
    Close,
    /// Its head has been waited for for too long, or its responses do not get on: close it too.
    GiveUp,
    /// It has made room.
    MakeRoom,
    /// The body of its request does not come: this is an error.
    Late,
    /// It is not there any more.
    Gone,
    /// Is it there?
    Ping,
    /// It is idle: begin with GOAWAY.
    Retire,
    /// The next step to GOAWAY.
    Goaway(Step),
    /// Its client has ended, and by this time nothing more was written to it.
    Abandon(Instant),
    Cut,
}

impl Farewell {
    pub(super) fn new(drain: &Drain, requests: &Arc<Requests>) -> Farewell {
        let (turn, now) = (drain.turns(), Instant::now());
        Farewell {
            seat: drain.0.waves.seat(requests),
            waker: None,
            turn,
            mode: drain.mode(),
            since: now,
            last_byte: now,
            progress: Progress::new(now),
            retires: false,
            goaway: None,
            timer: Timer::default(),
        }
    }

    pub(super) fn progress(&mut self) -> &mut Progress {
        &mut self.progress
    }

    pub(super) fn retire(&mut self) {
        self.retires = true;
        self.since = Instant::now();
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
        self.progress.note(requests, unfinished, self.goaway.as_deref_mut());
        if requests.tenancy().is_asked() {
            return Poll::Ready(Verdict::MakeRoom);
        }
        let next = match self.mode {
            Mode::Normal if unfinished.half_closed.is_none() && !self.retires => {
                self.progress.deadline(requests, unfinished, self.goaway.as_deref())
            }
            _ => self.deadline(requests, unfinished),
        };
        // A timer that is set wakes in vain, which is less work than to set it for each request.
        let Some((deadline, verdict)) = next else { return Poll::Pending };
        ready!(self.wait_until(deadline, cx));
        Poll::Ready(verdict)
    }

    /// See [`Timer`].
    pub(super) fn wait_until(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.wait_until(deadline, cx)
    }

    /// All is written to a client of HTTP/1. hyper may not read again, where this would be asked what comes next.
    pub(super) fn written(&mut self, requests: &Requests, cx: &mut Context<'_>) {
        if self.progress.note_idle(requests, None)
            && self.mode == Mode::Normal
            && let Some(timeout) = limit(requests.options().keep_alive_timeout)
        {
            // It has just begun, so this is never over.
            let _ = self.timer.wait_until(self.progress.idle_since() + timeout, cx);
        }
    }

    /// The same for HTTP/2.
    pub(super) fn written_http2(
        &mut self,
        requests: &Requests,
        unfinished: Unfinished,
        cx: &mut Context<'_>,
    ) {
        self.progress.note(requests, unfinished, self.goaway.as_deref_mut());
        if self.mode == Mode::Normal
            && !self.retires
            && let Some((deadline, _)) = self.progress.deadline(requests, unfinished, self.goaway.as_deref())
            && self.wait_until(deadline, cx).is_ready()
        {
            cx.waker().wake_by_ref();
        }
    }

    /// What comes next if nothing happens, and when.
    fn deadline(&mut self, requests: &Requests, unfinished: Unfinished) -> Option<(Instant, Verdict)> {
        if let Some(progress) = unfinished.half_closed {
            let deadline = progress + requests.options().half_close_timeout;
            return Some((deadline, Verdict::Abandon(deadline)));
        }
        if let Some(at) = self.goaway.as_ref().and_then(|goaway| goaway.withheld_until()) {
            return Some((at, Verdict::Goaway(Step::Acknowledge)));
        }
        let quiet_since = || self.since.max(self.last_byte).max(requests.last_end().unwrap_or(self.since));
        let is_idle = !requests.are_in_flight();
        let mode = match self.mode {
            // Its client is told as one of a lame duck is: see `goaway`.
            Mode::Normal if self.retires => {
                Mode::LameDuck { since: self.since, idle_grace: requests.options().goaway_delay }
            }
            mode => mode,
        };
        match (&self.goaway, mode) {
            (Some(goaway), Mode::LameDuck { idle_grace, .. }) if !requests.says_goaway() => {
                let latest = self.since + requests.options().goaway_delay.min(idle_grace);
                let (at, step) = goaway.next(self.since, latest);
                Some((at, Verdict::Goaway(step)))
            }
            // Acknowledged, h2 closes by itself when the last stream is written, which only it knows.
            (Some(goaway), Mode::LameDuck { .. }) if is_idle && !goaway.is_acknowledged() => {
                Some((quiet_since() + GOAWAY_TIMEOUT, Verdict::Close))
            }
            (None, mode)
                if is_idle && !matches!(requests.protocol(), Protocol::Other | Protocol::Handshake) =>
            {
                match (unfinished.head, mode) {
                    (Some(head), _) => {
                        let timeout = limit(requests.options().header_timeout)?;
                        let since = self.progress.waits_for(head, requests);
                        Some((since + timeout, Verdict::GiveUp))
                    }
                    (None, Mode::LameDuck { idle_grace, .. }) => {
                        Some((quiet_since() + idle_grace, Verdict::Close))
                    }
                    (None, Mode::Normal | Mode::Cut) => None,
                }
            }
            _ => None,
        }
    }

    /// Brings `mode` up to date and has the task woken at its next change. This runs for every request, and taking the
    /// seat takes a lock, so it is taken only if the task is another one.
    fn learn(&mut self, drain: &Drain, cx: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.seat.take(cx.waker().clone());
            self.waker = Some(cx.waker().clone());
            self.timer.forget_task();
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
