//! When a connection may be closed from our side. It is asked whenever the connection waits for its client, and has the
//! task woken when the answer may have changed: by the mode, by a deadline, by the socket, and by the end of a request,
//! after which hyper reads again.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::goaway::{Goaway, Step};
use super::options::limit;
use super::requests::{Protocol, Requests};
use super::waves::Seat;
use super::{Drain, Mode};

/// How long a client of HTTP/2 may be silent after a PING.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
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
    accepted: Instant,
    /// When all that was asked had been answered, and how many requests that were.
    idle: (u64, Instant),
    /// Something has come since `last_received` was learnt.
    received: bool,
    /// Where that matters: within a body, and on HTTP/2.
    last_received: Instant,
    /// When the last request came, or a part of a response was written, on HTTP/2.
    got_on: Instant,
    pinged: Option<Instant>,
    /// It was idle for too long in normal times, and gets GOAWAY.
    retires: bool,
    /// The number of a head that is not complete, and since when it is waited for.
    head: Option<(u64, Instant)>,
    /// Of HTTP/2 only.
    goaway: Option<Box<Goaway>>,
    timer: Option<Pin<Box<Sleep>>>,
    /// The timer wakes this task.
    is_heard: bool,
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
            accepted: now,
            idle: (0, now),
            received: false,
            last_received: now,
            got_on: now,
            pinged: None,
            retires: false,
            head: None,
            goaway: None,
            timer: None,
            is_heard: false,
        }
    }

    /// Something has come from the client.
    pub(super) fn note_received(&mut self) {
        self.received = true;
    }

    /// All that was asked may be answered and written by now. Returns whether it has just become idle.
    fn note_idle(&mut self, requests: &Requests) -> bool {
        let total = requests.total();
        let is_idle =
            !requests.are_in_flight() && !self.goaway.as_ref().is_some_and(|one| one.has_open_streams());
        let has_become = is_idle && total != self.idle.0;
        if has_become {
            self.idle = (total, Instant::now());
            requests.set_idle();
        }
        has_become
    }

    /// The client of HTTP/2 was sent a PING, or cannot be sent one because it takes nothing at all.
    pub(super) fn pinged(&mut self) {
        self.pinged = Some(Instant::now());
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
        self.take_note(requests, unfinished);
        if requests.is_asked_for_room() {
            return Poll::Ready(Verdict::MakeRoom);
        }
        let next = match self.mode {
            Mode::Normal if unfinished.half_closed.is_none() && !self.retires => {
                self.normal(requests, unfinished)
            }
            _ => self.deadline(requests, unfinished),
        };
        // A timer that is set wakes in vain, which is less work than to set it for each request.
        let Some((deadline, verdict)) = next else { return Poll::Pending };
        ready!(self.wait_until(deadline, cx));
        Poll::Ready(verdict)
    }

    /// Ready at the deadline. The task is woken by then, or sooner.
    pub(super) fn wait_until(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            if timer.deadline() > deadline {
                // To set it to a time that has passed would wake the task again and again.
                if Instant::now() >= deadline {
                    return Poll::Ready(());
                }
                timer.as_mut().reset(deadline);
                self.is_heard = false;
            } else if self.is_heard && !timer.is_elapsed() {
                return Poll::Pending;
            }
            self.is_heard = true;
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() == deadline || Instant::now() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
            self.is_heard = false;
        }
    }

    /// All is written. hyper may not read again, where this would be asked what comes next.
    pub(super) fn written(&mut self, requests: &Requests, unfinished: Unfinished, cx: &mut Context<'_>) {
        if self.goaway.is_none() && !self.note_idle(requests) {
            return;
        }
        self.take_note(requests, unfinished);
        if self.mode == Mode::Normal
            && !self.retires
            && let Some((deadline, _)) = self.normal(requests, unfinished)
            && self.wait_until(deadline, cx).is_ready()
        {
            cx.waker().wake_by_ref();
        }
    }

    /// Learns the times that matter. A request of HTTP/1 needs none but the end of its response.
    fn take_note(&mut self, requests: &Requests, unfinished: Unfinished) {
        // It is not idle before all is written.
        if !unfinished.blocked {
            self.note_idle(requests);
        }
        let Some(goaway) = &mut self.goaway else {
            if unfinished.body && std::mem::take(&mut self.received) {
                self.last_received = Instant::now();
            }
            return;
        };
        if std::mem::take(&mut self.received) {
            self.last_received = Instant::now();
            self.pinged = None;
        }
        if goaway.has_got_on() {
            self.got_on = Instant::now();
        }
    }

    /// The same as [`deadline`](Farewell::deadline) in normal times.
    fn normal(&mut self, requests: &Requests, unfinished: Unfinished) -> Option<(Instant, Verdict)> {
        let options = requests.options();
        let after = |since: Instant, time: Duration, verdict| Some((since + limit(time)?, verdict));
        // What is blocked has a time of its own.
        if unfinished.blocked || matches!(requests.protocol(), Protocol::Other | Protocol::Handshake) {
            return None;
        }
        if requests.total() == 0 {
            return after(self.accepted, options.header_timeout, Verdict::GiveUp);
        }
        let in_flight = requests.are_in_flight();
        let Some(goaway) = &self.goaway else {
            return match unfinished {
                Unfinished { body: true, .. } if in_flight && !requests.is_answered() => {
                    after(self.last_received, options.body_timeout, Verdict::Late)
                }
                _ if in_flight => None,
                Unfinished { head: Some(head), .. } => {
                    after(self.waits_for(head), options.header_timeout, Verdict::GiveUp)
                }
                // What comes is discarded until hyper closes it.
                _ => after(self.idle.1, options.keep_alive_timeout, Verdict::Close),
            };
        };
        match self.pinged {
            _ if !in_flight && goaway.has_open_streams() => {
                // What was in flight until now may be reset in this moment.
                let since = self.got_on.max(requests.idle_since().unwrap_or(self.got_on));
                after(since, options.send_timeout, Verdict::GiveUp)
            }
            _ if !in_flight => after(self.idle.1, options.keep_alive_timeout, Verdict::Retire),
            Some(at) => Some((at + PING_TIMEOUT, Verdict::Gone)),
            None => after(self.last_received, options.http2_ping_interval, Verdict::Ping),
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
            Mode::Normal if self.retires => Mode::LameDuck { since: self.since, idle_grace: Duration::ZERO },
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
                        let since = if requests.total() == 0 { self.accepted } else { self.waits_for(head) };
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
            self.is_heard = false;
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
