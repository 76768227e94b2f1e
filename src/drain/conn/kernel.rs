//! What the kernel knows of a connection. It is asked for a last look before one is closed, because tokio only knows what its
//! last `epoll_wait` said.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::socket::Means;
use crate::sock_diag::{self, Connection};

/// What has arrived on a connection that has nothing to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::drain) enum Arrived {
    Nothing,
    /// The event that announces it is on its way.
    Something,
    /// The client's FIN, or the connection is broken: it has sent all that it will.
    End,
    /// It was read, and cannot be understood without the rest, which may never come.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "bytes mean something one by one"))]
    Part,
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
