//! The state of one connection, and what becomes of it. [`Conn`](super::Conn) says what was read and written, asks whether the
//! connection is to be closed, and does what the answer says. Here is no I/O, no waker, and no clock but the time that is given.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::goaway::Goaway;
use super::mode::Told;
use super::options::limit;
use super::request_framing::RequestFraming;
use super::requests::{Protocol, Requests};

mod close_policy;
mod types;
pub(super) use types::{Ask, Clock, Close, Ends, Failure, Pending, Seen};

pub(super) struct ConnState {
    requests: Arc<Requests>,
    /// What it speaks if it does not begin with the preface of HTTP/2.
    default_protocol: Protocol,
    framing: RequestFraming,
    /// Of HTTP/2 only.
    goaway: Option<Box<Goaway>>,
    progress: Progress,
    retiring: Retiring,
    /// A part of a TLS record has arrived, so a head has begun.
    part_of_record: bool,
    /// What was written last did not fit, and when the client must have taken something of it.
    write_blocked: bool,
    stalls: Option<Instant>,
    /// Something has been written since it was last flushed.
    unflushed: bool,
    /// The client has ended, and hyper does not know it. It would take it for the end of the client, and drop the handler and what
    /// is not written yet. But a client may say with it that its request is the last (RFC 9112, section 9.6), so it waits
    /// until there is nothing left to write. The time is that of the last byte written.
    half_closed: Option<Instant>,
    ends: Ends,
    /// What hyper is to read, and what is to be written, before anything else.
    rewind: Vec<u8>,
    output: Vec<u8>,
}

/// How far a connection has come in normal times.
struct Progress {
    accepted: Instant,
    /// When all that was asked had been answered, and how many requests that were.
    idle: (u64, Instant),
    /// The number of a head that is not complete, and since when it is waited for.
    head: Option<(u64, Instant)>,
    /// Something has come since `last_received` was learnt.
    received: bool,
    /// Where that matters: within a body, and on HTTP/2.
    last_received: Instant,
    /// When the last request came, or a part of a response was written, on HTTP/2.
    got_on: Instant,
    /// When a client of HTTP/2 was sent a PING, or could not be sent one because it takes nothing at all.
    pinged: Option<Instant>,
}

/// What matters once it is a lame duck, or was idle for so long that it is closed as one.
struct Retiring {
    /// What it was told last, and since when the drain is a lame duck if it is one.
    told: Told,
    drain_since: Option<Instant>,
    /// When this connection learnt it.
    since: Instant,
    last_byte: Instant,
    /// It was idle for too long in normal times, and gets GOAWAY.
    by_itself: bool,
}

impl ConnState {
    pub(super) fn new(requests: &Arc<Requests>, now: Instant) -> ConnState {
        let progress = Progress {
            accepted: now,
            idle: (0, now),
            head: None,
            received: false,
            last_received: now,
            got_on: now,
            pinged: None,
        };
        let retiring = Retiring {
            told: requests.told(),
            drain_since: requests.drain().mode().lame_duck_since(),
            since: now,
            last_byte: now,
            by_itself: false,
        };
        ConnState {
            requests: Arc::clone(requests),
            default_protocol: Protocol::Http1,
            framing: RequestFraming::default(),
            goaway: None,
            progress,
            retiring,
            part_of_record: false,
            write_blocked: false,
            stalls: None,
            unflushed: false,
            half_closed: None,
            ends: Ends::default(),
            rewind: Vec::new(),
            output: Vec::new(),
        }
    }

    pub(super) fn requests(&self) -> &Arc<Requests> {
        &self.requests
    }

    pub(super) fn default_protocol(&self) -> Protocol {
        self.default_protocol
    }

    pub(super) fn ends(&self) -> Ends {
        self.ends
    }

    /// It is closed in normal times, because its client has been idle or too slow: nothing is read any more.
    pub(super) fn has_left(&self) -> bool {
        self.ends.left
    }

    /// What hyper is to read before anything else.
    pub(super) fn rewind(&mut self) -> &mut Vec<u8> {
        &mut self.rewind
    }

    /// What is to be written before anything else.
    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// The TLS handshake is over. The grace of a lame duck begins now; its first request is on the way.
    #[cfg(feature = "tls")]
    pub(super) fn on_handshake(&mut self, default_protocol: Protocol, clock: &Clock) {
        self.requests.set_protocol(Protocol::Other);
        self.default_protocol = default_protocol;
        self.note_byte(clock);
    }

    /// It is known what the client speaks, by these bytes, which hyper is to read.
    pub(super) fn on_protocol(&mut self, protocol: Protocol, mut bytes: Vec<u8>, clock: &Clock) {
        self.requests.set_protocol(protocol);
        if protocol == Protocol::Http2 {
            // What was read so far looked like a head.
            self.requests.received(0, false);
            let is_lame_duck = !self.requests.is_normal();
            self.goaway(clock).received(&mut bytes, is_lame_duck, clock);
        }
        self.rewind = bytes;
    }

    /// Returns how many of these bytes are left when those that hyper is not to see are taken out. It may be that hyper is to read
    /// [`rewind`](ConnState::rewind) instead.
    pub(super) fn on_read(&mut self, bytes: &mut [u8], clock: &Clock) -> usize {
        self.note_byte(clock);
        self.progress.received = true;
        if let Some(goaway) = &mut self.goaway {
            let is_lame_duck = !self.requests.is_normal();
            let mut partial = goaway.take_partial();
            if partial.is_empty() {
                return goaway.received(bytes, is_lame_duck, clock);
            }
            partial.extend_from_slice(bytes);
            let left = goaway.received(&mut partial, is_lame_duck, clock);
            partial.truncate(left);
            self.rewind = partial;
            return 0;
        }
        if self.requests.protocol() == Protocol::Other {
            return bytes.len();
        }
        let empty_lines = self.framing.read(bytes);
        self.part_of_record = false;
        self.ends.more = self.framing.is_within_body();
        self.requests.received(self.framing.heads(), self.framing.is_within_head());
        bytes.len() - empty_lines
    }

    /// The client has ended, or the connection is broken.
    pub(super) fn on_broken(&mut self) {
        self.ends.received = true;
    }

    /// The client has ended. Returns whether that must wait: not in the middle of a body, whose reader has to learn of it.
    pub(super) fn on_end(&mut self, clock: &Clock) -> bool {
        self.ends.received = true;
        if self.half_closed.is_some() {
            return true;
        }
        let holds = self.requests.protocol() == Protocol::Http1
            // The end of an answer may have been handed over and not be written yet.
            && (self.requests.are_in_flight() || self.write_blocked)
            && !self.framing.is_within_body()
            && !self.requests.options().half_close_timeout.is_zero();
        if holds {
            self.half_closed = Some(clock.now());
        }
        holds
    }

    /// The first `n` of these bytes are written. Returns whether hyper has to read again because GOAWAY may be said: it does not by
    /// itself.
    #[inline]
    pub(super) fn on_write(&mut self, bufs: &[IoSlice<'_>], n: usize, clock: &Clock) -> bool {
        self.on_progress(clock);
        let Some(goaway) = &mut self.goaway else { return false };
        let (mut left, mut may_be_said, is_lame_duck) = (n, false, !self.requests.is_normal());
        for buf in bufs {
            let written = &buf[..left.min(buf.len())];
            may_be_said |= goaway.sent(written, is_lame_duck, clock);
            left -= written.len();
        }
        may_be_said
    }

    /// Something could be written.
    #[inline]
    pub(super) fn on_progress(&mut self, clock: &Clock) {
        self.write_blocked = false;
        self.stalls = None;
        self.unflushed = true;
        self.note_byte(clock);
        if let Some(progress) = &mut self.half_closed {
            *progress = clock.now();
        }
    }

    /// Nothing could be written. The kernel has room for more only when the client has taken much, so it is asked whether it still
    /// sends.
    pub(super) fn poll_blocked(&mut self, clock: &Clock, seen: &Seen) -> Close {
        self.write_blocked = true;
        let is_http = matches!(self.requests.protocol(), Protocol::Http1 | Protocol::Http2);
        let Some(timeout) = limit(self.requests.options().send_timeout).filter(|_| is_http) else {
            return Close::Wait(None);
        };
        let deadline = *self.stalls.get_or_insert_with(|| clock.now() + timeout);
        if !clock.has_reached(deadline) {
            return Close::Wait(Some(deadline));
        }
        let left = match seen.kernel {
            _ if clock.is_long_after(deadline) => timeout,
            None => return Close::AskKernel,
            Some(Some(kernel)) => timeout.saturating_sub(kernel.last_sent),
            Some(None) => Duration::ZERO,
        };
        if left.is_zero() {
            self.ends.left = true;
            return Close::Fail(Failure::Stalled);
        }
        self.stalls = Some(clock.now() + left);
        Close::Wait(self.stalls)
    }

    /// All is written to the socket.
    pub(super) fn on_flush(&mut self, clock: &Clock) -> Ask {
        if self.write_blocked {
            self.on_progress(clock);
        }
        let mut ask = Ask::WhenSomethingHappens;
        if self.half_closed.is_some() && !self.requests.are_in_flight() {
            // The last response is written, and the kernel does not announce the end a second time.
            self.half_closed = None;
            ask = Ask::Now;
        }
        // HTTP/2 is flushed at every turn.
        if !self.requests.is_normal() || !std::mem::take(&mut self.unflushed) {
            return ask;
        }
        match self.next_after_flush(clock) {
            Some(at) if clock.has_reached(at) => Ask::Now,
            Some(at) if ask == Ask::WhenSomethingHappens => Ask::At(at),
            _ => ask,
        }
    }

    pub(super) fn on_shutdown(&mut self) {
        self.ends.sent = true;
    }

    /// The time of the last byte matters only to a lame duck; before that, its grace begins with the lame duck.
    #[inline]
    fn note_byte(&mut self, clock: &Clock) {
        if !self.requests.is_normal() {
            self.retiring.last_byte = clock.now();
        }
    }

    /// The client speaks HTTP/2.
    fn goaway(&mut self, clock: &Clock) -> &mut Goaway {
        self.goaway.get_or_insert_with(|| Box::new(Goaway::new(clock.now())))
    }

    /// Learns what it was told.
    #[inline]
    fn learn(&mut self, clock: &Clock) {
        let told = self.requests.told();
        if told == self.retiring.told {
            return;
        }
        self.retiring.told = told;
        let drain_since = self.requests.drain().mode().lame_duck_since();
        // Told another grace, it goes on as before.
        if drain_since.is_none() || drain_since != self.retiring.drain_since {
            self.retiring.since = clock.now();
        }
        self.retiring.drain_since = drain_since;
    }

    /// Learns the times that matter. A request of HTTP/1 needs none but the end of its response.
    #[inline]
    fn note(&mut self, clock: &Clock) {
        // It is not idle before all is written.
        if !self.write_blocked {
            self.note_idle(clock);
        }
        let Some(goaway) = &mut self.goaway else {
            if self.framing.is_within_body() && std::mem::take(&mut self.progress.received) {
                self.progress.last_received = clock.now();
            }
            return;
        };
        let got_on = goaway.has_got_on();
        if std::mem::take(&mut self.progress.received) {
            self.progress.last_received = clock.now();
            self.progress.pinged = None;
        }
        if got_on {
            self.progress.got_on = clock.now();
        }
    }

    /// All that was asked may be answered and written by now. Returns whether it has just become idle.
    #[inline]
    fn note_idle(&mut self, clock: &Clock) -> bool {
        let total = self.requests.total();
        let has_become =
            total != self.progress.idle.0 && !self.requests.are_in_flight() && !self.has_open_streams();
        if has_become {
            let now = clock.now();
            self.progress.idle = (total, now);
            self.requests.set_idle(now);
        }
        has_become
    }

    /// The response to a request is not written completely, or a request has not come completely.
    fn has_open_streams(&self) -> bool {
        self.goaway.as_ref().is_some_and(|goaway| goaway.has_open_streams())
    }

    /// Input that is unread when a socket is closed makes the kernel send RST, and so does all that arrives later. RST destroys
    /// what the client has not read yet: a response, a GOAWAY. A client that has gone, or has said that it sends nothing more,
    /// need not be waited for. One that asked for the close of a server that stays is recognised by what it does not send.
    pub(super) fn must_linger(&self, arrived: Pending) -> bool {
        if self.ends.received || self.requests.is_cut() {
            return false;
        }
        match arrived {
            Pending::Something | Pending::Part => true,
            Pending::End => false,
            Pending::Nothing if self.ends.more => true,
            Pending::Nothing => match self.requests.protocol() {
                Protocol::Http1 | Protocol::Unknown | Protocol::Handshake => {
                    !self.requests.is_normal() && !self.requests.client_closes()
                }
                Protocol::Http2 | Protocol::Other => true,
            },
        }
    }
}

#[cfg(test)]
mod tests;
