//! The accept loop of one listener, from the first connection until the queue is empty and the listener is closed.

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

/// How long the accept loop backs off when the process or the system is out of descriptors or memory. Meanwhile the
/// connections wait in the queue.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
/// The interval between log lines while the exhaustion lasts.
const EXHAUSTED_LOG: Duration = Duration::from_secs(10);

/// The callback for each accepted connection.
pub(crate) type Serve = Arc<dyn Fn(Conn) + Send + Sync>;

/// Gives the accepted connections of one listener to the server, each with its slot.
pub(super) struct Admission {
    pub(super) drain: Drain,
    pub(super) pool: Pool,
    pub(super) serve: Serve,
    /// The parent span of the log lines.
    pub(super) span: Span,
}

impl Admission {
    fn admit(&self, stream: TcpStream, remote: SocketAddr, slot: Slot) {
        (self.serve)(Conn::accepted(stream, remote, &self.drain, slot));
    }
}

/// Accepts while slots are free. Connections may wait in the queue while this generation serves, because this loop accepts
/// them later. After a flip to the successor, or when it closes, the listener does not wait for slots: queued connections would
/// be lost when it closes. A lame duck therefore has no connection limit.
pub(super) async fn run(
    listener: Arc<AsyncFd<OwnedFd>>,
    admission: Admission,
    mut close: watch::Receiver<bool>,
) {
    let Admission { drain, pool, .. } = &admission;
    let mut exhausted = RateLimitedLog { span: &admission.span, logged: None };
    let mut full = RateLimitedLog { span: &admission.span, logged: None };
    while !*close.borrow_and_update() {
        // No idle connection is evicted before another one waits for its slot.
        let next = async {
            let mut ready = listener.readable().await?;
            if drain.is_full(*pool) {
                // The readiness event may be stale: its connection may have been accepted already.
                if !has_pending(listener.get_ref()) {
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
        // Calls accept(2) directly, without tokio's cached readiness: only EAGAIN shows that the queue is empty.
        match accept(listener.get_ref()) {
            Ok((stream, peer)) => admission.admit(stream, peer, drain.slot_anyway(*pool)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                exhausted.pause_if(&error).await;
            }
        }
    }
}

/// Returns whether a connection waits in the queue.
fn has_pending(listener: &OwnedFd) -> bool {
    poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

fn accept(listener: &OwnedFd) -> io::Result<(TcpStream, SocketAddr)> {
    let (socket, peer) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    // A TCP listener accepts only peers with an IP address.
    let peer = peer.and_then(|peer| peer.try_into().ok()).ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((TcpStream::from_std(socket.into())?, peer))
}

/// A condition whose log line is limited to one per [`EXHAUSTED_LOG`].
struct RateLimitedLog<'a> {
    span: &'a Span,
    logged: Option<Instant>,
}

impl RateLimitedLog<'_> {
    /// Backs off if the error is exhaustion, and returns whether it was. accept(2) reports two kinds of errors: those of the
    /// connection that it would have returned (ECONNABORTED and network errors), where the next call returns the next connection,
    /// and exhaustion, where every call fails at once.
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
