//! The accept loop of one listener, from its first connection until it is closed with an empty queue.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tracing::{Span, debug, error, warn};

use crate::drain::{Conn, Drain, Pool, Slot};

/// How long accepting pauses when the process or the system is out of descriptors or memory. The connections wait
/// in the queue meanwhile.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
/// How often an exhaustion that lasts is logged.
const EXHAUSTED_LOG: Duration = Duration::from_secs(10);

/// What is done with an accepted connection.
pub(crate) type Serve = Arc<dyn Fn(Conn) + Send + Sync>;

/// Lets the connections of one listener in.
pub(super) struct Admission {
    pub(super) drain: Drain,
    pub(super) pool: Pool,
    pub(super) serve: Serve,
    /// What is logged here belongs to it.
    pub(super) span: Span,
}

impl Admission {
    fn admit(&self, stream: TcpStream, remote: SocketAddr, slot: Slot) {
        // Fails only on a connection that is dead already; its first read will find out.
        let _ = stream.set_nodelay(true);
        (self.serve)(Conn::accepted(stream, remote, &self.drain, slot));
    }
}

/// Accepts as long as there is room. A pause lets connections wait in the queue, and that is safe while this generation
/// serves, because it is the one that accepts again. A listener that was flipped away from, or closes, is never paused:
/// what waits in its queue would be lost with it (and a lame duck has a place for everybody).
pub(super) async fn run(
    listener: Arc<AsyncFd<OwnedFd>>,
    admission: Admission,
    mut close: watch::Receiver<bool>,
) {
    let Admission { drain, pool, .. } = &admission;
    let mut exhausted = Exhausted { span: &admission.span, logged: None };
    let mut full = Exhausted { span: &admission.span, logged: None };
    while !*close.borrow_and_update() {
        // No connection is asked to make room before another one waits for it.
        let next = async {
            let mut ready = listener.readable().await?;
            if drain.is_full(*pool) {
                // The event may be about one that was accepted since.
                if !is_waited_for(listener.get_ref()) {
                    ready.clear_ready();
                    return Ok(None);
                }
                full.log(|| {
                    let open = drain.open();
                    warn!(open, "as many connections as allowed: idle ones make room, or new ones wait");
                });
            }
            Ok::<_, io::Error>(Some((ready, drain.slot(*pool).await)))
        };
        let next = tokio::select! {
            next = next => next,
            _ = close.changed() => break,
        };
        let accepted = match next {
            Ok(None) => Ok(()),
            Ok(Some((mut ready, slot))) => match ready.try_io(|listener| accept(listener.get_ref())) {
                Ok(accepted) => accepted.map(|(stream, peer)| admission.admit(stream, peer, slot)),
                Err(_queue_is_empty) => Ok(()),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = accepted
            && exhausted.pause_if(&error).await
        {
            drain.evict(*pool);
        }
    }
    loop {
        // The kernel is asked, not tokio's memory of the last readiness event: only EAGAIN says that the queue is empty.
        match accept(listener.get_ref()) {
            Ok((stream, peer)) => admission.admit(stream, peer, drain.slot_anyway(*pool)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                exhausted.pause_if(&error).await;
            }
        }
    }
}

/// Whether the queue is not empty.
fn is_waited_for(listener: &OwnedFd) -> bool {
    poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

fn accept(listener: &OwnedFd) -> io::Result<(TcpStream, SocketAddr)> {
    let (socket, peer) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    // A listener on an internet address accepts from nothing else.
    let peer = peer.and_then(|peer| peer.try_into().ok()).ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((TcpStream::from_std(socket.into())?, peer))
}

struct Exhausted<'a> {
    span: &'a Span,
    logged: Option<Instant>,
}

impl Exhausted<'_> {
    /// accept(2) reports errors of the connection that it would have returned (ECONNABORTED and network errors:
    /// the next call is about the next connection) and exhaustion, which would return at once for ever. Returns whether it was
    /// that.
    async fn pause_if(&mut self, error: &io::Error) -> bool {
        use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
        if !matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM)) {
            debug!(parent: self.span, %error, "a connection was gone before it was accepted");
            return false;
        }
        self.log(|| {
            error!(%error, "cannot accept: connections wait until descriptors or memory are free again");
        });
        tokio::time::sleep(EXHAUSTED_PAUSE).await;
        true
    }

    fn log(&mut self, line: impl Fn()) {
        if self.logged.is_none_or(|at| at.elapsed() >= EXHAUSTED_LOG) {
            self.logged = Some(Instant::now());
            self.span.in_scope(line);
        }
    }
}
