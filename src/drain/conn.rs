//! The I/O object of one connection.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Counted, Drain, Mode};

/// The addresses of a connection; in the extensions of every request that [`Server::serve`] hands to the service.
///
/// [`Server::serve`]: crate::Server::serve
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectInfo {
    /// The client.
    pub remote: SocketAddr,
    /// The address of this server that the client connected to.
    pub local: SocketAddr,
}

/// An accepted connection, counted until it is dropped: a generation that leaves waits for it up to the deadline.
pub struct Conn {
    stream: TcpStream,
    info: ConnectInfo,
    requests: Arc<Requests>,
    /// Only HTTP has a moment at which the server may close without asking.
    farewell: Option<Farewell>,
    last_byte: Instant,
    write_blocked: bool,
    _counted: Counted,
}

/// The requests of one connection. Each connection has its own, because a counter that all requests of a process
/// share costs more than everything else here.
#[derive(Debug)]
pub(super) struct Requests {
    drain: Drain,
    in_flight: AtomicUsize,
    upgraded: AtomicBool,
}

/// A request that was handed to the service and whose response body has not ended.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Requests>);

impl Requests {
    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    fn are_done(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0 && !self.upgraded.load(Ordering::Relaxed)
    }
}

impl InFlight {
    pub(super) fn is_lame_duck(&self) -> bool {
        self.0.drain.is_lame_duck()
    }

    /// The connection speaks another protocol from now on, which has no moment at which we may close it.
    pub(super) fn upgraded(&self) {
        self.0.upgraded.store(true, Ordering::Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a waiting HTTP connection needs to learn of lame duck and to end in it.
struct Farewell {
    changed: Pin<Box<dyn Future<Output = watch::Receiver<Mode>> + Send + Sync>>,
    /// Who is woken by `changed`.
    waker: Option<Waker>,
    /// [`Shared::turns`](super::Shared) when `mode` was learnt.
    turn: usize,
    mode: Mode,
    grace: Option<Pin<Box<Sleep>>>,
}

impl Farewell {
    fn new(drain: &Drain) -> Farewell {
        // In this order: a turn that is missed is learnt of at the first poll.
        let turn = drain.0.turns.load(Ordering::SeqCst);
        let mut mode = drain.0.mode.subscribe();
        let now = *mode.borrow_and_update();
        Farewell { changed: Box::pin(changed(mode)), waker: None, turn, mode: now, grace: None }
    }

    /// Brings `mode` up to date and has the task woken at its next change. This runs for every request, and polling
    /// `changed` takes a lock, so it is polled only if there was a change or the task is another one.
    fn learn(&mut self, turn: usize, cx: &mut Context<'_>) {
        let known = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if known && self.turn == turn {
            return;
        }
        self.waker = Some(cx.waker().clone());
        while let Poll::Ready(mut mode) = self.changed.as_mut().poll(cx) {
            self.turn = turn;
            self.mode = *mode.borrow_and_update();
            self.changed = Box::pin(changed(mode));
        }
    }
}

async fn changed(mut mode: watch::Receiver<Mode>) -> watch::Receiver<Mode> {
    if mode.changed().await.is_err() {
        // The generation has left; nothing will change any more.
        std::future::pending::<()>().await;
    }
    mode
}

impl Conn {
    pub(crate) fn new(stream: TcpStream, remote: SocketAddr, drain: &Drain) -> Conn {
        // Fails only if the connection is dead by now; the first read will say so.
        let local = stream.local_addr().unwrap_or(remote);
        Conn {
            stream,
            info: ConnectInfo { remote, local },
            requests: Arc::new(Requests {
                drain: drain.clone(),
                in_flight: AtomicUsize::new(0),
                upgraded: AtomicBool::new(false),
            }),
            farewell: None,
            last_byte: Instant::now(),
            write_blocked: false,
            _counted: drain.count(),
        }
    }

    /// From now on end-of-file is read when this connection is a lame duck, has no request in flight and has been
    /// quiet for its grace.
    pub(crate) fn speaks_http(mut self) -> Conn {
        self.farewell = Some(Farewell::new(&self.requests.drain));
        self
    }

    /// The addresses of both ends.
    pub fn connect_info(&self) -> ConnectInfo {
        self.info
    }

    pub(super) fn requests(&self) -> &Arc<Requests> {
        &self.requests
    }

    /// Ready when this connection is to be closed. Otherwise the task is woken when that may have changed: by the
    /// mode, by the grace, by the socket, and by the end of a request, after which hyper reads again.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(farewell) = &mut self.farewell else { return Poll::Pending };
        farewell.learn(self.requests.drain.0.turns.load(Ordering::SeqCst), cx);
        let Mode::LameDuck { since, idle_grace } = farewell.mode else {
            farewell.grace = None;
            return Poll::Pending;
        };
        if self.write_blocked || !self.requests.are_done() {
            return Poll::Pending;
        }
        let until = self.last_byte.max(since) + idle_grace;
        let grace = farewell.grace.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if grace.deadline() != until {
            grace.as_mut().reset(until);
        }
        ready!(grace.as_mut().poll(cx));
        // The last look. It asks the kernel, because tokio only knows what its last epoll_wait said. If a request is
        // there, the event that announces it is on its way and wakes this task.
        match SockRef::from(&self.stream).peek(&mut [MaybeUninit::uninit(); 1]) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Pending => this.poll_farewell(cx).map(Ok),
            ready => {
                this.note_byte();
                ready
            }
        }
    }
}

impl Conn {
    /// The time of the last byte matters only to a lame duck; before that, its grace begins with the lame duck.
    fn note_byte(&mut self) {
        if self.requests.drain.is_lame_duck() {
            self.last_byte = Instant::now();
        }
    }

    fn wrote<T>(&mut self, result: Poll<T>) -> Poll<T> {
        self.write_blocked = result.is_pending();
        if !self.write_blocked {
            self.note_byte();
        }
        result
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("info", &self.info).finish_non_exhaustive()
    }
}
