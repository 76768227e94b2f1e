//! The stream under a connection, and what the kernel knows of it. It is asked for a last look before a connection is closed, because
//! tokio only knows what its last `epoll_wait` said.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::super::conn_state::Arrived;
use crate::sock_diag::{self, Connection};

/// What is done with a stream beyond reading and writing.
pub(in crate::drain) struct Means<T> {
    /// Looks whether anything has arrived.
    pub(super) arrived: fn(&T) -> Arrived,
    /// From now on, or no longer, the end of the socket is RST instead of FIN.
    pub(super) reset_at_end: fn(&T, bool),
    /// What the kernel knows of it, if it says so.
    pub(super) ask: fn(&T) -> Option<Connection>,
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

pub(super) struct Socket<T> {
    pub(super) stream: T,
    pub(super) means: Means<T>,
    /// Until FIN is sent, RST is the end: see [`Means::reset_at_end`].
    resets: bool,
}

impl<T> Socket<T> {
    pub(super) fn new(stream: T, means: Means<T>) -> Socket<T> {
        Socket { stream, means, resets: false }
    }

    pub(super) fn pin(&mut self) -> Pin<&mut T>
    where
        T: Unpin,
    {
        Pin::new(&mut self.stream)
    }

    pub(super) fn resets(&self) -> bool {
        self.resets
    }

    pub(super) fn set_reset(&mut self, resets: bool) {
        if self.resets != resets {
            self.resets = resets;
            (self.means.reset_at_end)(&self.stream, resets);
        }
    }

    pub(super) fn arrived(&self) -> Arrived {
        (self.means.arrived)(&self.stream)
    }

    pub(super) fn ask(&self) -> Option<Connection> {
        (self.means.ask)(&self.stream)
    }
}

impl Means<TcpStream> {
    pub(in crate::drain) fn tcp() -> Means<TcpStream> {
        Means { arrived, reset_at_end, ask }
    }
}

pub(super) fn arrived(stream: &TcpStream) -> Arrived {
    match SockRef::from(stream).peek(&mut [MaybeUninit::uninit(); 1]) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Arrived::Nothing,
        Ok(0) | Err(_) => Arrived::End,
        Ok(_) => Arrived::Something,
    }
}

/// The kernel does it, so it holds for a process that is killed too.
pub(super) fn reset_at_end(stream: &TcpStream, reset: bool) {
    // Fails only on a socket that is broken already.
    let _ = SockRef::from(stream).set_linger(reset.then_some(Duration::ZERO));
}

pub(super) fn ask(stream: &TcpStream) -> Option<Connection> {
    sock_diag::connection(stream.local_addr().ok()?, stream.peer_addr().ok()?)
}
