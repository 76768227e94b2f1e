//! The accept loop of one listener, from its first connection until it is closed with an empty queue.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::Sink;
use crate::drain::{Drain, Place, Room};

/// How long accepting pauses when the process or the system is out of descriptors or memory. The connections wait
/// in the queue meanwhile.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
/// How often an exhaustion that lasts is logged.
const EXHAUSTED_LOG: Duration = Duration::from_secs(10);

/// Accepts as long as there is room. A pause lets connections wait in the queue, and that is safe while this generation
/// serves, because it is the one that accepts again. A listener that was flipped away from, or closes, is never paused:
/// what waits in its queue would be lost with it (and `room` returns at once for a lame duck).
pub(super) async fn run(
    listener: Arc<TcpListener>,
    room: Room,
    mut close: watch::Receiver<bool>,
    drain: Drain,
    sink: Sink,
) {
    let mut exhausted = Exhausted { logged: None };
    let mut full = Exhausted { logged: None };
    while !*close.borrow_and_update() {
        if drain.is_full(room) {
            full.log(|| {
                let open = drain.open();
                tracing::warn!(open, "as many connections as allowed: idle ones make room, or new ones wait");
            });
        }
        let accepted = tokio::select! {
            accepted = async { drain.room(room).await; listener.accept().await } => accepted,
            _ = close.changed() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if exhausted.pause_if(&error).await {
                    drain.make_room(room);
                }
                continue;
            }
        };
        let place = tokio::select! {
            biased;
            place = drain.place(room) => place,
            _ = close.changed() => drain.place_anyway(room),
        };
        deliver(stream, peer, place, &sink);
    }
    loop {
        match accept_now(&listener) {
            Ok((stream, peer)) => deliver(stream, peer, drain.place_anyway(room), &sink),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                exhausted.pause_if(&error).await;
            }
        }
    }
}

fn deliver(stream: TcpStream, peer: SocketAddr, place: Place, sink: &Sink) {
    // Fails only on a connection that is dead already; whoever reads from it will find out.
    let _ = stream.set_nodelay(true);
    sink(stream, peer, place);
}

/// Asks the kernel, not tokio's memory of the last readiness event: only EAGAIN says that the queue is empty.
fn accept_now(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (socket, peer) = SockRef::from(listener).accept()?;
    socket.set_nonblocking(true)?;
    // A listener on an internet address accepts from nothing else.
    let peer = peer.as_socket().ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((TcpStream::from_std(socket.into())?, peer))
}

struct Exhausted {
    logged: Option<Instant>,
}

impl Exhausted {
    /// accept(2) reports errors of the connection that it would have returned (ECONNABORTED and network errors:
    /// the next call is about the next connection) and exhaustion, which would return at once for ever. Returns whether it was
    /// that.
    async fn pause_if(&mut self, error: &io::Error) -> bool {
        use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
        if !matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM)) {
            tracing::debug!(%error, "a connection was gone before it was accepted");
            return false;
        }
        self.log(|| {
            tracing::error!(%error, "cannot accept: connections wait until descriptors or memory are free again");
        });
        tokio::time::sleep(EXHAUSTED_PAUSE).await;
        true
    }

    fn log(&mut self, line: impl Fn()) {
        if self.logged.is_none_or(|at| at.elapsed() >= EXHAUSTED_LOG) {
            self.logged = Some(Instant::now());
            line();
        }
    }
}
