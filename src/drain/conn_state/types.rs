//! What a connection's state is told and what it answers.

use std::cell::Cell;
use std::io::{self, ErrorKind};

use tokio::time::Instant;

use super::super::PAUSED;
use crate::sock_diag::Connection;

/// How far the two directions have come, for the end of the connection.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::drain) struct Ends {
    /// The client has ended, or the connection is broken.
    pub(in crate::drain) received: bool,
    /// FIN is sent.
    pub(in crate::drain) sent: bool,
    /// The client has begun something of which more is on its way.
    pub(in crate::drain) more: bool,
    /// It is closed in normal times.
    pub(in crate::drain) left: bool,
}

/// What has arrived on a connection that has nothing to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::drain) enum Pending {
    Nothing,
    /// The event that announces it is on its way.
    Something,
    /// The client's FIN, or the connection is broken: it has sent all that it will.
    End,
    /// It was read, and cannot be understood without the rest, which may never come.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "bytes mean something one by one"))]
    Part,
}

/// What the socket has said when it was asked, in this moment.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::drain) struct Seen {
    pub(in crate::drain) arrived: Option<Pending>,
    /// What the kernel knows of it, if it says so.
    pub(in crate::drain) kernel: Option<Option<Connection>>,
}

/// What is to be done with a connection that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::drain) enum Close {
    /// Nothing until this time, if there is one, or until something happens: then ask again.
    Wait(Option<Instant>),
    /// Look what has arrived, and ask again.
    Look,
    /// Ask the kernel, and ask again.
    AskKernel,
    /// Have hyper read again: there is something to rewind to.
    Read,
    /// Have hyper read the end.
    End,
    Fail(Failure),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::drain) enum Failure {
    Cut,
    /// The rest of a body does not come.
    Late,
    /// The client does not answer a PING.
    Gone,
    /// The client takes nothing of its response.
    Stalled,
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> io::Error {
        use ErrorKind::{ConnectionAborted, TimedOut};
        let (kind, why) = match failure {
            Failure::Cut => (ConnectionAborted, "cut at the end of the drain"),
            Failure::Late => (TimedOut, "the rest of a body does not come"),
            Failure::Gone => (TimedOut, "the client does not answer a PING"),
            Failure::Stalled => (TimedOut, "the client takes nothing of its response"),
        };
        io::Error::new(kind, why)
    }
}

/// When it is to be asked again, after all is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::drain) enum Ask {
    WhenSomethingHappens,
    Now,
    At(Instant),
}

/// The time of one call. The clock is looked at once, and only if it is needed: most calls of a request note no time, and only have to
/// know what has passed.
#[derive(Debug)]
pub(in crate::drain) struct Clock {
    /// It is not earlier than this.
    known: Cell<Instant>,
    is_exact: Cell<bool>,
}

impl Clock {
    pub(in crate::drain) fn new(now: Instant) -> Clock {
        Clock { known: Cell::new(now), is_exact: Cell::new(true) }
    }

    /// Another call begins.
    pub(in crate::drain) fn next_call(&self) {
        self.is_exact.set(false);
    }

    pub(in crate::drain) fn now(&self) -> Instant {
        if !self.is_exact.replace(true) {
            self.reach(Instant::now());
        }
        self.known.get()
    }

    /// This time has come.
    pub(in crate::drain) fn reach(&self, time: Instant) {
        self.known.set(self.known.get().max(time));
    }

    /// Whether this time is known to have come.
    pub(in crate::drain) fn has_reached(&self, time: Instant) -> bool {
        self.known.get() >= time
    }

    /// The process did not run in between, and no client could get on meanwhile.
    pub(in crate::drain) fn is_long_after(&self, deadline: Instant) -> bool {
        self.now() > deadline + PAUSED
    }
}
