//! The inputs and outputs of a connection's state.

use std::cell::Cell;
use std::io::{self, ErrorKind};

use tokio::time::Instant;

use super::super::PAUSED;
use crate::sock_diag::Connection;

/// The state of both directions of a connection, as far as it matters to ending it.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::drain) struct Ends {
    /// The client has ended, or the connection is broken.
    pub(in crate::drain) received: bool,
    /// FIN has been sent.
    pub(in crate::drain) sent: bool,
    /// The client is in the middle of a body, so more input is on its way.
    pub(in crate::drain) more: bool,
    /// The connection is closed in normal mode.
    pub(in crate::drain) left: bool,
}

/// The unread input of a connection on which the last read would block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::drain) enum Pending {
    Nothing,
    /// Data has arrived that the runtime has not announced yet.
    Something,
    /// FIN has arrived, or the connection is broken: the client sends nothing more.
    End,
    /// A part of a TLS record was read. It cannot be decrypted without the rest, which may never come.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "only TLS has records"))]
    Part,
}

/// The answers of the socket during one call.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::drain) struct Seen {
    pub(in crate::drain) arrived: Option<Pending>,
    /// The kernel's answer. `None`: not asked yet. `Some(None)`: the kernel has no answer.
    pub(in crate::drain) kernel: Option<Option<Connection>>,
}

/// The next action for a connection that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::drain) enum Close {
    /// Wait until this time, if there is one, or until something happens. Then ask again.
    Wait(Option<Instant>),
    /// Check what has arrived, then ask again.
    Look,
    /// Ask the kernel about the connection, then ask again.
    AskKernel,
    /// Make hyper read again: there are bytes in `rewind`.
    Read,
    /// Make hyper read end-of-file.
    End,
    Fail(Failure),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::drain) enum Failure {
    Cut,
    /// The client stopped sending in the middle of a request body.
    Late,
    /// The client did not answer a PING.
    Gone,
    /// The client did not read its response.
    Stalled,
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> io::Error {
        use ErrorKind::{ConnectionAborted, TimedOut};
        let (kind, why) = match failure {
            Failure::Cut => (ConnectionAborted, "cut at the end of the drain"),
            Failure::Late => (TimedOut, "body timeout: the client stopped sending its request body"),
            Failure::Gone => (TimedOut, "the client did not answer an HTTP/2 PING"),
            Failure::Stalled => (TimedOut, "send timeout: the client does not read its response"),
        };
        io::Error::new(kind, why)
    }
}

/// When to ask the state again once all output is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::drain) enum Ask {
    WhenSomethingHappens,
    Now,
    At(Instant),
}

/// The time of one call. The system clock is read at most once per call, and only if needed: most calls of a request note no time, and
/// only have to know which deadlines have passed.
#[derive(Debug)]
pub(in crate::drain) struct Clock {
    /// The latest known time; the current time is not earlier.
    known: Cell<Instant>,
    is_exact: Cell<bool>,
}

impl Clock {
    pub(in crate::drain) fn new(now: Instant) -> Clock {
        Clock { known: Cell::new(now), is_exact: Cell::new(true) }
    }

    /// Begins another call.
    pub(in crate::drain) fn next_call(&self) {
        self.is_exact.set(false);
    }

    pub(in crate::drain) fn now(&self) -> Instant {
        if !self.is_exact.replace(true) {
            self.reach(Instant::now());
        }
        self.known.get()
    }

    /// Notes that this time has come.
    pub(in crate::drain) fn reach(&self, time: Instant) {
        self.known.set(self.known.get().max(time));
    }

    /// Returns whether this time is known to have come.
    pub(in crate::drain) fn has_reached(&self, time: Instant) -> bool {
        self.known.get() >= time
    }

    /// Returns whether so much time has passed since `deadline` that the process was not running, so no client could make progress.
    pub(in crate::drain) fn is_long_after(&self, deadline: Instant) -> bool {
        self.now() > deadline + PAUSED
    }
}
