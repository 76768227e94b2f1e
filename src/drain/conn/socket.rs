//! The stream under a connection, and its end: dropped while its client may still be sending, it is left to a task
//! that goes on reading for a while.

use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;

use super::super::Counted;
use super::super::requests::Protocol;
use super::Arrived;
use super::linger::linger;
use crate::sock_diag::Connection;

/// What is done with a stream beyond reading and writing.
pub(in crate::drain) struct Means<T> {
    /// Looks whether anything has arrived.
    pub(in crate::drain) arrived: fn(&T) -> Arrived,
    /// From now on, or no longer, the end of the socket is RST instead of FIN.
    pub(in crate::drain) reset_at_end: fn(&T, bool),
    /// What the kernel knows of it, if it says so.
    pub(in crate::drain) ask: fn(&T) -> Option<Connection>,
}

impl<T> Clone for Means<T> {
    fn clone(&self) -> Means<T> {
        *self
    }
}

impl<T> Copy for Means<T> {}

impl<T> Means<T> {
    /// Of a stream that nothing more is known of.
    pub(in crate::drain) fn none() -> Means<T> {
        Means { arrived: |_| Arrived::Nothing, reset_at_end: |_, _| {}, ask: |_| None }
    }
}

/// How far the two directions have come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ends {
    /// The client has ended, or the connection is broken.
    pub(super) received: bool,
    /// FIN is sent.
    pub(super) sent: bool,
    /// The client has begun something of which more is on its way.
    pub(super) more: bool,
    /// Until FIN is sent, RST is the end: see [`Means::reset_at_end`].
    pub(super) reset: bool,
    /// It is closed in normal times. See [`Counted::leave`].
    pub(super) left: bool,
}

pub(super) struct Socket<T> {
    /// `None` once it is dropped or taken.
    open: Option<(T, Counted)>,
    pub(super) ends: Ends,
    means: Means<T>,
    linger: fn(T, Counted, Ends, Means<T>),
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Socket<T> {
    pub(super) fn new(stream: T, counted: Counted, means: Means<T>) -> Socket<T> {
        let in_background = |stream, counted, ends, means| {
            // Without a runtime there is no task to wait.
            if let Ok(runtime) = Handle::try_current() {
                runtime.spawn(linger(stream, counted, ends, means));
            }
        };
        Socket { open: Some((stream, counted)), ends: Ends::default(), means, linger: in_background }
    }
}

impl<T> Socket<T> {
    fn get(&self) -> &T {
        &self.open.as_ref().expect("it is there until it is dropped").0
    }

    pub(super) fn pin(&mut self) -> Pin<&mut T>
    where
        T: Unpin,
    {
        Pin::new(&mut self.open.as_mut().expect("it is there until it is dropped").0)
    }

    pub(super) fn is_write_vectored(&self) -> bool
    where
        T: AsyncWrite,
    {
        self.get().is_write_vectored()
    }

    pub(super) fn arrived(&self) -> Arrived {
        (self.means.arrived)(self.get())
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        (self.means.ask)(self.get()).map(|found| found.round_trip)
    }

    /// How long ago the kernel has last sent something that was written, which it does only if the client takes it.
    pub(super) fn last_sent(&self) -> Option<Duration> {
        (self.means.ask)(self.get()).map(|found| found.last_sent)
    }

    /// It is closed in normal times, because its client has been idle or too slow.
    pub(super) fn leave(&mut self) {
        self.ends.left = true;
        if let Some((_, counted)) = &mut self.open {
            counted.leave();
        }
    }

    pub(super) fn set_reset(&mut self, reset: bool) {
        if self.ends.reset != reset {
            self.ends.reset = reset;
            (self.means.reset_at_end)(self.get(), reset);
        }
    }

    /// The stream, and what counts it, for something else than a `Conn`.
    #[cfg(feature = "tls")]
    pub(super) fn into_parts(mut self) -> (T, Counted) {
        self.open.take().expect("it is there until it is dropped")
    }
}

impl<T> Drop for Socket<T> {
    fn drop(&mut self) {
        let Some((stream, counted)) = self.open.take() else { return };
        if must_linger((self.means.arrived)(&stream), &counted, self.ends) {
            return (self.linger)(stream, counted, self.ends, self.means);
        }
        // In this order: the connection that gets its place comes after it.
        drop(stream);
        drop(counted);
    }
}

/// Input that is unread when a socket is closed makes the kernel send RST, and so does all that arrives later. RST destroys
/// what the client has not read yet: a response, a GOAWAY. A client that has gone, or has said that it sends nothing more,
/// need not be waited for. One that asked for the close of a server that stays is recognised by what it does not send.
fn must_linger(arrived: Arrived, counted: &Counted, ends: Ends) -> bool {
    let requests = &counted.requests;
    if ends.received || ends.reset || requests.is_cut() {
        return false;
    }
    if ends.left {
        return counted.leaving.is_some();
    }
    match arrived {
        Arrived::Something | Arrived::Part => true,
        Arrived::End => false,
        Arrived::Nothing if ends.more => true,
        Arrived::Nothing => match requests.protocol() {
            Protocol::Http1 | Protocol::Unknown | Protocol::Handshake => {
                !requests.is_normal() && !requests.client_closes()
            }
            Protocol::Http2 | Protocol::Other => true,
        },
    }
}
