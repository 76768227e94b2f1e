//! Decides when a connection may be closed from our side. The decision is made whenever the connection waits for its client, and again
//! when it may have changed: because of the mode, a deadline, the socket, or the end of a request.

use std::time::Duration;

use tokio::time::Instant;

use super::super::goaway::{Goaway, Step};
use super::super::options::limit;
use super::super::requests::Protocol;
use super::{Clock, Close, ConnState, Failure, Pending, Seen};

/// How long an HTTP/2 client may take to acknowledge GOAWAY before its connection is closed between two streams.
const GOAWAY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an HTTP/2 client may be silent after a PING.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The action that is due at a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Close the connection, unless something has arrived by now.
    Close,
    /// Close the connection: a head took too long, or the responses make no progress.
    GiveUp,
    /// Fail: the body of a request stopped arriving.
    BodyTimeout,
    /// Fail: the client did not answer a PING.
    Gone,
    /// Send a PING to find out whether the client is there.
    Ping,
    /// Begin the way to GOAWAY: the connection is idle.
    Retire,
    /// Take the next step to GOAWAY.
    Goaway(Step),
    /// Pass the client's half-close on to hyper: nothing was written for too long.
    DeliverHalfClose,
}

type Next = Option<(Instant, Verdict)>;

impl ConnState {
    /// Decides on a connection that has nothing to read.
    pub(in crate::drain) fn poll_close(&mut self, clock: &Clock, seen: &Seen) -> Close {
        self.learn(clock);
        if self.requests.is_cut() {
            return Close::Fail(Failure::Cut);
        }
        self.note(clock);
        if self.requests.slot_state().is_asked() {
            return self.evict(clock, seen);
        }
        match self.next(clock) {
            Some((deadline, verdict)) if clock.has_reached(deadline) => {
                self.apply(verdict, deadline, clock, seen)
            }
            next => self.wait(next.map(|(deadline, _)| deadline), seen),
        }
    }

    /// Waits until a deadline. A timer that was set earlier may fire too early, which costs less than setting it for each request.
    fn wait(&mut self, until: Option<Instant>, seen: &Seen) -> Close {
        if self.requests.is_lame_duck() && self.requests.are_in_flight() {
            // Input within a body is not another request.
            let more = if self.is_within_head() {
                true
            } else if self.framing.is_within_body() {
                false
            } else {
                let Some(arrived) = seen.arrived else { return Close::Look };
                matches!(arrived, Pending::Something | Pending::Part)
            };
            self.requests.set_more(more);
        }
        Close::Wait(until)
    }

    fn apply(&mut self, verdict: Verdict, deadline: Instant, clock: &Clock, seen: &Seen) -> Close {
        match verdict {
            Verdict::Goaway(step) => self.apply_goaway(step, clock, seen),
            Verdict::DeliverHalfClose if clock.is_long_after(deadline) => {
                self.half_closed = Some(clock.now());
                self.poll_close(clock, seen)
            }
            Verdict::DeliverHalfClose => {
                self.half_closed = None;
                Close::End
            }
            Verdict::Ping => {
                self.output.extend(self.goaway.as_ref().and_then(|goaway| goaway.ask()).unwrap_or_default());
                self.progress.pinged = Some(clock.now());
                self.poll_close(clock, seen)
            }
            Verdict::Retire => {
                self.drain_state.idle_timeout_expired = true;
                self.drain_state.since = clock.now();
                self.poll_close(clock, seen)
            }
            Verdict::Close if self.write_blocked => Close::Wait(None),
            Verdict::Close | Verdict::GiveUp | Verdict::BodyTimeout | Verdict::Gone => {
                let Some(arrived) = seen.arrived else { return Close::Look };
                self.close(verdict, arrived, clock, seen)
            }
        }
    }

    /// Carries out a verdict, unless data has arrived, which is served first.
    fn close(&mut self, verdict: Verdict, arrived: Pending, clock: &Clock, seen: &Seen) -> Close {
        match (verdict, arrived) {
            (_, Pending::Something) => Close::Wait(None),
            (Verdict::Gone, _) => Close::Fail(Failure::Gone),
            (Verdict::BodyTimeout, _) => {
                self.ends.left = true;
                Close::Fail(Failure::Late)
            }
            (_, Pending::End) => Close::Wait(None),
            // A head has begun, so from here its own timeout applies, with another verdict.
            (Verdict::Close, Pending::Part) if self.requests.protocol() != Protocol::Http2 => {
                self.part_of_record = true;
                self.poll_close(clock, seen)
            }
            _ => {
                self.ends.left |= self.requests.is_normal();
                Close::End
            }
        }
    }

    /// Answers the request to leave, which was made because the connection seemed idle. Data that has arrived meanwhile is served.
    fn evict(&mut self, clock: &Clock, seen: &Seen) -> Close {
        let is_idle = self.requests.candidate().is_some()
            && self.requests.is_normal()
            && !self.write_blocked
            // A stream loses nothing if no request on the connection was ever complete.
            && (self.requests.total() == 0 || !self.has_open_streams());
        let arrived = match seen.arrived {
            _ if !is_idle => Pending::Something,
            Some(arrived) => arrived,
            None => return Close::Look,
        };
        if matches!(arrived, Pending::Something | Pending::Part) {
            self.requests.stay(clock.now());
            return self.poll_close(clock, seen);
        }
        self.ends.left = true;
        if self.requests.protocol() == Protocol::Http2 && self.requests.total() > 0 {
            let last = self.goaway(clock).last();
            self.output.extend(last);
        }
        Close::End
    }

    fn apply_goaway(&mut self, step: Step, clock: &Clock, seen: &Seen) -> Close {
        let goaway = self.goaway.get_or_insert_with(|| Box::new(Goaway::new(clock.now())));
        match (step, seen) {
            (Step::Gracefully, _) => {
                goaway.tell();
                self.requests.set_goaway();
            }
            (Step::Probe, Seen { kernel: None, .. }) if goaway.needs_round_trip() => return Close::AskKernel,
            (Step::Probe, Seen { kernel, .. }) => {
                let round_trip = kernel.flatten().map(|kernel| kernel.round_trip);
                self.output.extend(goaway.probe(round_trip, clock.now()).unwrap_or_default());
            }
            (Step::Acknowledge | Step::AtOnce, Seen { arrived: None, .. }) => return Close::Look,
            (Step::Acknowledge | Step::AtOnce, Seen { arrived: Some(Pending::Something), .. })
            | (Step::Acknowledge, Seen { arrived: Some(Pending::Part), .. }) => return Close::Wait(None),
            (Step::Acknowledge, _) => {
                self.rewind = goaway.acknowledge();
                return Close::Read;
            }
            (Step::AtOnce, _) => {
                self.output.extend(goaway.last());
                return Close::End;
            }
        }
        self.poll_close(clock, seen)
    }

    /// Returns when to ask again if nothing happens, once all output is written in normal mode: hyper may not read again by itself.
    pub(super) fn next_after_flush(&mut self, clock: &Clock) -> Option<Instant> {
        if self.goaway.is_some() {
            self.note(clock);
            return (!self.drain_state.idle_timeout_expired)
                .then(|| self.next_in_normal_times(clock))?
                .map(|(at, _)| at);
        }
        if !self.note_idle(clock) {
            return None;
        }
        Some(self.progress.idle.1 + limit(self.requests.options().keep_alive_timeout)?)
    }

    /// Returns the action that is due if nothing happens, and when.
    fn next(&mut self, clock: &Clock) -> Next {
        if let Some(progress) = self.half_closed {
            return Some((progress + self.requests.options().half_close_timeout, Verdict::DeliverHalfClose));
        }
        if self.requests.is_normal() && !self.drain_state.idle_timeout_expired {
            return self.next_in_normal_times(clock);
        }
        // The client of an idle connection gets GOAWAY as a lame duck's does: see `goaway`.
        let idle_grace = if self.requests.is_normal() {
            self.requests.options().goaway_delay
        } else {
            // No grace means that the mode has changed again, and this connection is about to be told.
            self.requests.drain().mode().idle_grace()?
        };
        if self.goaway.is_some() {
            self.next_of_http2(idle_grace, clock)
        } else {
            self.next_of_http1(idle_grace, clock)
        }
    }

    fn next_of_http2(&self, idle_grace: Duration, clock: &Clock) -> Next {
        let goaway = self.goaway.as_ref()?;
        if let Some(at) = goaway.withheld_until() {
            return Some((at, Verdict::Goaway(Step::Acknowledge)));
        }
        if !self.requests.says_goaway() {
            let since = self.drain_state.since;
            let latest = since + self.requests.options().goaway_delay.min(idle_grace);
            let (at, step) = goaway.next(since, latest, clock);
            return Some((at, Verdict::Goaway(step)));
        }
        // After the acknowledgement h2 closes by itself once the last stream is written, which only h2 knows.
        (!self.requests.are_in_flight() && !goaway.is_acknowledged())
            .then(|| (self.quiet_since() + GOAWAY_TIMEOUT, Verdict::Close))
    }

    fn next_of_http1(&mut self, idle_grace: Duration, clock: &Clock) -> Next {
        let is_other = matches!(self.requests.protocol(), Protocol::Other | Protocol::Handshake);
        if is_other || self.requests.are_in_flight() {
            return None;
        }
        if self.is_within_head() {
            let timeout = limit(self.requests.options().header_timeout)?;
            return Some((self.head_since(clock) + timeout, Verdict::GiveUp));
        }
        Some((self.quiet_since() + idle_grace, Verdict::Close))
    }

    fn next_in_normal_times(&mut self, clock: &Clock) -> Next {
        let options = self.requests.options();
        let after = |since: Instant, time: Duration, verdict| Some((since + limit(time)?, verdict));
        // A blocked write has its own timeout.
        if self.write_blocked || matches!(self.requests.protocol(), Protocol::Other | Protocol::Handshake) {
            return None;
        }
        if self.requests.total() == 0 {
            return after(self.progress.accepted, options.header_timeout, Verdict::GiveUp);
        }
        let in_flight = self.requests.are_in_flight();
        if self.goaway.is_none() {
            if in_flight {
                if !self.framing.is_within_body() || self.requests.is_answered() {
                    return None;
                }
                return after(self.progress.last_received, options.body_timeout, Verdict::BodyTimeout);
            }
            if self.is_within_head() {
                let timeout = options.header_timeout;
                return after(self.head_since(clock), timeout, Verdict::GiveUp);
            }
            // hyper discards further input and closes the connection at the end.
            return after(self.progress.idle.1, options.keep_alive_timeout, Verdict::Close);
        }
        let in_flight = in_flight || self.requests.has_tunnel() && self.has_open_streams();
        match self.progress.pinged {
            _ if !in_flight && self.has_open_streams() => {
                // A stream that was in flight until now may be about to be reset, so its end counts as progress.
                let last_progress = self.progress.last_progress;
                let since = last_progress.max(self.requests.idle_since().unwrap_or(last_progress));
                after(since, options.send_timeout, Verdict::GiveUp)
            }
            _ if !in_flight => after(self.progress.idle.1, options.keep_alive_timeout, Verdict::Retire),
            Some(at) => Some((at + PING_TIMEOUT, Verdict::Gone)),
            None => after(self.progress.last_received, options.http2_ping_interval, Verdict::Ping),
        }
    }

    fn quiet_since(&self) -> Instant {
        let since = self.drain_state.since;
        since.max(self.drain_state.last_byte).max(self.requests.last_end().unwrap_or(since))
    }

    /// Returns when the incomplete head began. The time of the first head begins at accept.
    fn head_since(&mut self, clock: &Clock) -> Instant {
        let number = self.framing.heads();
        match self.progress.head {
            _ if self.requests.total() == 0 => self.progress.accepted,
            Some((head, since)) if head == number => since,
            _ => self.progress.head.insert((number, clock.now())).1,
        }
    }

    fn is_within_head(&self) -> bool {
        self.framing.is_within_head() || self.part_of_record
    }
}
