//! The stream under a connection, and the kernel's view of it. The kernel is asked once more before a connection is closed, because
//! tokio only knows the results of its last `epoll_wait`.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::super::conn_state::Pending;
use crate::sock_diag::{self, Connection};

/// The operations on a stream beyond reading and writing.
pub(in crate::drain) struct StreamOps<T> {
    /// Checks whether anything has arrived.
    pub(super) arrived: fn(&T) -> Pending,
    /// Chooses whether closing the socket sends RST (true) or FIN (false).
    pub(super) reset_at_end: fn(&T, bool),
    /// Returns the kernel's view of the connection, if available.
    pub(super) ask: fn(&T) -> Option<Connection>,
}

impl<T> Clone for StreamOps<T> {
    fn clone(&self) -> StreamOps<T> {
        *self
    }
}

impl<T> Copy for StreamOps<T> {}

impl<T> StreamOps<T> {
    /// Returns no-ops, for a stream that is not a socket.
    pub(in crate::drain) fn none() -> StreamOps<T> {
        StreamOps { arrived: |_| Pending::Nothing, reset_at_end: |_, _| {}, ask: |_| None }
    }
}

pub(super) struct Socket<T> {
    pub(super) stream: T,
    pub(super) ops: StreamOps<T>,
    /// Whether closing the socket sends RST: see [`StreamOps::reset_at_end`].
    resets: bool,
}

impl<T> Socket<T> {
    pub(super) fn new(stream: T, ops: StreamOps<T>) -> Socket<T> {
        Socket { stream, ops, resets: false }
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
            (self.ops.reset_at_end)(&self.stream, resets);
        }
    }

    pub(super) fn arrived(&self) -> Pending {
        (self.ops.arrived)(&self.stream)
    }

    pub(super) fn ask(&self) -> Option<Connection> {
        (self.ops.ask)(&self.stream)
    }
}

impl StreamOps<TcpStream> {
    pub(in crate::drain) fn tcp() -> StreamOps<TcpStream> {
        StreamOps { arrived, reset_at_end, ask }
    }
}

pub(super) fn arrived(stream: &TcpStream) -> Pending {
    match SockRef::from(stream).peek(&mut [MaybeUninit::uninit(); 1]) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Pending::Nothing,
        Ok(0) | Err(_) => Pending::End,
        Ok(_) => Pending::Something,
    }
}

/// Sets SO_LINGER to zero for RST. The kernel sends it, so it works for a killed process too.
pub(super) fn reset_at_end(stream: &TcpStream, reset: bool) {
    // Fails only on a socket that is already broken.
    let _ = SockRef::from(stream).set_linger(reset.then_some(Duration::ZERO));
}

pub(super) fn ask(stream: &TcpStream) -> Option<Connection> {
    sock_diag::connection(stream.local_addr().ok()?, stream.peer_addr().ok()?)
}
