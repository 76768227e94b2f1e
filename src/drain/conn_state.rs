//! The state of one connection, and the decision when to close it. [`Conn`](super::Conn) reports reads and writes, asks whether the
//! connection is to be closed, and acts on the answer. This module does no I/O, has no waker, and uses only the time it is given.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::goaway::Goaway;
use super::mode::ToldMode;
use super::options::limit;
use super::request_framing::RequestFraming;
use super::requests::{Protocol, Requests};

mod close_policy;
mod types;
pub(super) use types::{Ask, Clock, Close, Ends, Failure, Pending, Seen};

pub(super) struct ConnState {
    requests: Arc<Requests>,
    /// The protocol of a client that does not begin with the preface of HTTP/2.
    default_protocol: Protocol,
    framing: RequestFraming,
    /// `Some` on HTTP/2 only.
    goaway: Option<Box<Goaway>>,
    progress: Progress,
    drain_state: DrainState,
    /// A part of a TLS record has arrived, so a head has begun.
    part_of_record: bool,
    /// The last write was blocked because the socket buffer is full.
    write_blocked: bool,
    /// When a blocked write is given up, unless the client takes some data by then.
    stall_deadline: Option<Instant>,
    /// Something has been written since the last flush.
    unflushed: bool,
    /// Set when the client has half-closed and hyper has not been told: hyper would take the client for gone, and drop the handler
    /// and all unwritten data. But the half-close may only mean that the request was the last (RFC 9112, section 9.6), so it is
    /// withheld until there is nothing left to write. Holds the time of the last byte written.
    half_closed: Option<Instant>,
    ends: Ends,
    /// Bytes that hyper reads before anything else.
    rewind: Vec<u8>,
    /// Bytes that are written before anything else.
    output: Vec<u8>,
}

/// The progress of a connection in normal mode.
struct Progress {
    accepted: Instant,
    /// How many requests had been answered when the connection last became idle, and when that was.
    idle: (u64, Instant),
    /// The number of the head that is incomplete, and when it began.
    head: Option<(u64, Instant)>,
    /// Data has arrived since `last_received` was updated.
    received: bool,
    /// When data last arrived. Updated only where it matters: within a body, and on HTTP/2.
    last_received: Instant,
    /// When the last request came, or a part of a response was written, on HTTP/2.
    last_progress: Instant,
    /// When an HTTP/2 client was last sent a PING, or would have been if a frame had not been half written.
    pinged: Option<Instant>,
}

/// The state of a connection that is a lame duck, or that was idle for so long that it is closed like one.
struct DrainState {
    /// The mode that the connection has last acted on.
    told: ToldMode,
    /// When the drain became a lame duck, if it is one.
    drain_since: Option<Instant>,
    /// When this connection learnt of it.
    since: Instant,
    last_byte: Instant,
    /// The connection was idle for too long in normal mode, and gets GOAWAY.
    idle_timeout_expired: bool,
}

impl ConnState {
    pub(super) fn new(requests: &Arc<Requests>, now: Instant) -> ConnState {
        let progress = Progress {
            accepted: now,
            idle: (0, now),
            head: None,
            received: false,
            last_received: now,
            last_progress: now,
            pinged: None,
        };
        let drain_state = DrainState {
            told: requests.told(),
            drain_since: requests.drain().mode().lame_duck_since(),
            since: now,
            last_byte: now,
            idle_timeout_expired: false,
        };
        ConnState {
            requests: Arc::clone(requests),
            default_protocol: Protocol::Http1,
            framing: RequestFraming::default(),
            goaway: None,
            progress,
            drain_state,
            part_of_record: false,
            write_blocked: false,
            stall_deadline: None,
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

    /// Returns whether the connection is closed in normal mode, because its client was idle or too slow. Nothing is read then.
    pub(super) fn has_left(&self) -> bool {
        self.ends.left
    }

    /// Returns the bytes that hyper is to read before anything else.
    pub(super) fn rewind(&mut self) -> &mut Vec<u8> {
        &mut self.rewind
    }

    /// Returns the bytes that are to be written before anything else.
    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Notes the end of the TLS handshake. The grace of a lame duck begins now, because the first request is on its way.
    #[cfg(feature = "tls")]
    pub(super) fn on_handshake(&mut self, default_protocol: Protocol, clock: &Clock) {
        self.requests.set_protocol(Protocol::Other);
        self.default_protocol = default_protocol;
        self.note_byte(clock);
    }

    /// Sets the protocol that the client's first bytes showed. hyper is to read those bytes.
    pub(super) fn on_protocol(&mut self, protocol: Protocol, mut bytes: Vec<u8>, clock: &Clock) {
        self.requests.set_protocol(protocol);
        if protocol == Protocol::Http2 {
            // The beginning of the preface was counted as a head.
            self.requests.received(0, false);
            let is_lame_duck = !self.requests.is_normal();
            self.goaway(clock).received(&mut bytes, is_lame_duck, clock);
        }
        self.rewind = bytes;
    }

    /// Takes out the bytes that hyper is not to see. Returns how many are left: none if hyper is to read
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

    /// Notes that the connection is broken.
    pub(super) fn on_broken(&mut self) {
        self.ends.received = true;
    }

    /// Notes the client's end of input. Returns whether to withhold it from hyper: not in the middle of a body, because the reader
    /// of the body has to learn of it.
    pub(super) fn on_end(&mut self, clock: &Clock) -> bool {
        self.ends.received = true;
        if self.half_closed.is_some() {
            return true;
        }
        let holds = self.requests.protocol() == Protocol::Http1
            // No request is in flight once hyper has the whole response, but the rest of it may not be written yet.
            && (self.requests.are_in_flight() || self.write_blocked)
            && !self.framing.is_within_body()
            && !self.requests.options().half_close_timeout.is_zero();
        if holds {
            self.half_closed = Some(clock.now());
        }
        holds
    }

    /// Notes that the first `n` of these bytes were written. Returns whether hyper must be made to read again, which it does not do by
    /// itself, because GOAWAY may be sent now.
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

    /// Notes that something was written.
    #[inline]
    pub(super) fn on_progress(&mut self, clock: &Clock) {
        self.write_blocked = false;
        self.stall_deadline = None;
        self.unflushed = true;
        self.note_byte(clock);
        if let Some(progress) = &mut self.half_closed {
            *progress = clock.now();
        }
    }

    /// Decides on a blocked write. The kernel makes room only after the client has taken a lot of data, so at the deadline the
    /// kernel is asked when it last sent something.
    pub(super) fn poll_blocked(&mut self, clock: &Clock, seen: &Seen) -> Close {
        self.write_blocked = true;
        let is_http = matches!(self.requests.protocol(), Protocol::Http1 | Protocol::Http2);
        let Some(timeout) = limit(self.requests.options().send_timeout).filter(|_| is_http) else {
            return Close::Wait(None);
        };
        let deadline = *self.stall_deadline.get_or_insert_with(|| clock.now() + timeout);
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
        self.stall_deadline = Some(clock.now() + left);
        Close::Wait(self.stall_deadline)
    }

    /// Notes that all output is written to the socket.
    pub(super) fn on_flush(&mut self, clock: &Clock) -> Ask {
        if self.write_blocked {
            self.on_progress(clock);
        }
        let mut ask = Ask::WhenSomethingHappens;
        if self.half_closed.is_some() && !self.requests.are_in_flight() {
            // The last response is written. The kernel does not announce the client's end a second time, so hyper must read again.
            self.half_closed = None;
            ask = Ask::Now;
        }
        // hyper flushes HTTP/2 at every poll, so a flush alone means nothing.
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

    /// Notes the time of a byte, on a lame duck only: before that, the grace begins when the lame duck begins.
    #[inline]
    fn note_byte(&mut self, clock: &Clock) {
        if !self.requests.is_normal() {
            self.drain_state.last_byte = clock.now();
        }
    }

    /// Returns the GOAWAY state, and creates it on the first call: the client speaks HTTP/2.
    fn goaway(&mut self, clock: &Clock) -> &mut Goaway {
        self.goaway.get_or_insert_with(|| Box::new(Goaway::new(clock.now())))
    }

    /// Learns the mode that the connection was told.
    #[inline]
    fn learn(&mut self, clock: &Clock) {
        let told = self.requests.told();
        if told == self.drain_state.told {
            return;
        }
        self.drain_state.told = told;
        let drain_since = self.requests.drain().mode().lame_duck_since();
        // A change of the grace alone does not restart it.
        if drain_since.is_none() || drain_since != self.drain_state.drain_since {
            self.drain_state.since = clock.now();
        }
        self.drain_state.drain_since = drain_since;
    }

    /// Updates the times that matter. On HTTP/1 outside of a body, only the end of a response does.
    #[inline]
    fn note(&mut self, clock: &Clock) {
        // The connection is not idle before all output is written.
        if !self.write_blocked {
            self.note_idle(clock);
        }
        let Some(goaway) = &mut self.goaway else {
            if self.framing.is_within_body() && std::mem::take(&mut self.progress.received) {
                self.progress.last_received = clock.now();
            }
            return;
        };
        let last_progress = goaway.take_progress();
        if std::mem::take(&mut self.progress.received) {
            self.progress.last_received = clock.now();
            self.progress.pinged = None;
        }
        if last_progress {
            self.progress.last_progress = clock.now();
        }
    }

    /// Checks whether all requests are answered and written. Returns whether the connection has just become idle.
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

    /// Returns whether a response is not completely written, or a request has not completely arrived, on HTTP/2.
    fn has_open_streams(&self) -> bool {
        self.goaway.as_ref().is_some_and(|goaway| goaway.has_open_streams())
    }

    /// Returns whether to linger. The kernel sends RST if a socket is closed with unread input, or if input arrives later, and RST
    /// destroys data that the client has not read yet: a response, a GOAWAY. There is no need to wait for a client that has gone or
    /// has said that it sends nothing more. In normal mode an HTTP/1 client from which nothing is pending has usually asked for the
    /// close itself.
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
