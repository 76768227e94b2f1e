//! The I/O object of one connection: what passes through it, in both directions. What becomes of it, `conn_state` decides.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::conn_state::{Ask, Clock, Close, ConnState, Failure, Pending, Seen};
use super::open_guard::OpenGuard;
use super::registry::Registration;
use super::requests::{ConnectInfo, Protocol, Requests};
use super::timer::Timer;
use super::{Drain, Slot};

mod linger;
mod socket;
#[cfg(feature = "tls")]
mod tls;
pub(super) use linger::SENDERS;
use linger::linger;
use socket::Socket;
pub(super) use socket::StreamOps;
#[cfg(feature = "tls")]
pub use tls::TlsStream;

/// A head and a body of so many bytes together are sent from one buffer: to the kernel that is less work than two, by
/// more than copying them costs.
const SMALL: usize = 1024;

/// An accepted connection, counted until it is dropped: a generation that leaves waits for it up to the deadline. It is a
/// stream for any protocol; [`Conn::serve`] speaks HTTP on it.
///
/// To drop it ends the connection as its shutdown does, with FIN, and in such a way that the client gets all that was
/// written: what it still sends is read and discarded, by a task, until it ends too, says nothing for 2 s, or has sent for
/// 30 s. For so long the connection counts.
pub struct Conn<T = TcpStream>(
    /// `None` once it is dropped, or has become another. On the heap, because a future holds a value in each place that it is moved
    /// through.
    Option<Box<Open<T>>>,
);

struct Open<T> {
    socket: Socket<T>,
    open_guard: OpenGuard,
    state: ConnState,
    clock: Clock,
    registration: Registration,
    timer: Timer,
    /// What is done with it once it is dropped.
    linger: fn(Box<Open<T>>),
}

impl Conn {
    pub(crate) fn accepted(stream: TcpStream, remote: SocketAddr, drain: &Drain, slot: Slot) -> Conn {
        // Fails only if the connection is dead by now; the first read will say so.
        let local = stream.local_addr().unwrap_or(remote);
        Conn::new(stream, remote, local, drain, slot, StreamOps::tcp())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Conn<T> {
    pub(super) fn new(
        stream: T,
        remote: SocketAddr,
        local: SocketAddr,
        drain: &Drain,
        slot: Slot,
        ops: StreamOps<T>,
    ) -> Conn<T> {
        let now = Instant::now();
        let requests = Arc::new(Requests::new(drain, remote, local, slot.pool(), now));
        let registration = drain.0.registry.register(&requests, &drain.0.turn);
        let state = ConnState::new(&requests, now);
        Conn::over(Socket::new(stream, ops), OpenGuard::new(&requests, slot), state, registration)
    }

    fn over(
        socket: Socket<T>,
        open_guard: OpenGuard,
        state: ConnState,
        registration: Registration,
    ) -> Conn<T> {
        let linger = |open: Box<Open<T>>| {
            // Without a runtime there is no task to wait.
            if let Ok(runtime) = Handle::try_current() {
                let Open { socket, open_guard, state, .. } = *open;
                runtime.spawn(linger(socket.stream, open_guard, state.ends(), socket.ops));
            }
        };
        let (clock, timer) = (Clock::new(Instant::now()), Timer::default());
        let open = Open { socket, open_guard, state, clock, registration, timer, linger };
        Conn(Some(Box::new(open)))
    }
}

impl<T> Conn<T> {
    /// The addresses of both ends, and whether the generation is retiring.
    pub fn connect_info(&self) -> ConnectInfo {
        ConnectInfo(Arc::clone(self.requests()))
    }

    pub(super) fn requests(&self) -> &Arc<Requests> {
        self.open().state.requests()
    }

    /// It speaks this, by these bytes, which are to be read again.
    pub(super) fn begin(&mut self, protocol: Protocol, bytes: Vec<u8>) {
        let open = self.open_mut();
        open.state.on_protocol(protocol, bytes, &open.clock);
    }

    pub(super) fn default_protocol(&self) -> Protocol {
        self.open().state.default_protocol()
    }

    fn open(&self) -> &Open<T> {
        self.0.as_ref().expect("it is there until it is dropped")
    }

    fn open_mut(&mut self) -> &mut Open<T> {
        self.0.as_mut().expect("it is there until it is dropped")
    }
}

impl<T: AsyncWrite + Unpin> Open<T> {
    /// Does what the state says. Ready when hyper is to read the end, or with an error.
    fn follow(
        &mut self,
        cx: &mut Context<'_>,
        ask: impl Fn(&mut ConnState, &Clock, &Seen) -> Close,
    ) -> Poll<io::Result<()>> {
        let mut seen = Seen::default();
        loop {
            let close = ask(&mut self.state, &self.clock, &seen);
            if !self.state.output().is_empty() {
                // What cannot be written now is written before anything else.
                let _ = self.poll_output(cx);
            }
            match close {
                Close::Wait(None) => return Poll::Pending,
                Close::Wait(Some(until)) => {
                    ready!(self.timer.wait_until(until, cx));
                    self.clock.reach(until);
                    seen = Seen::default();
                }
                Close::Look => seen.arrived = Some(self.socket.arrived()),
                Close::AskKernel => seen.kernel = Some(self.socket.ask()),
                Close::Read => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Close::End => {
                    self.leave();
                    return Poll::Ready(Ok(()));
                }
                Close::Fail(failure) => {
                    self.leave();
                    if matches!(failure, Failure::Gone | Failure::Stalled) {
                        // What waits in the kernel would stay there for many minutes.
                        self.socket.set_reset(true);
                    }
                    return Poll::Ready(Err(failure.into()));
                }
            }
        }
    }

    fn leave(&mut self) {
        if self.state.has_left() {
            self.open_guard.leave();
        }
    }

    /// There is nothing to read. Ready with end-of-file when the connection is to be closed.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // This task is woken when there is something new for the connection.
        if self.registration.wake(cx.waker()) {
            self.timer.forget_task();
        }
        let close = self.follow(cx, ConnState::poll_close);
        let requests = self.state.requests();
        if close.is_pending() && requests.is_lame_duck() && requests.are_in_flight() {
            requests.wait(cx);
        }
        close
    }

    /// Writes what is said between the frames of hyper.
    #[inline]
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.state.output().is_empty() {
            let n = ready!(self.socket.pin().poll_write(cx, self.state.output()))?;
            self.state.output().drain(..n);
        }
        Poll::Ready(Ok(()))
    }

    /// The end of a body without length is the end of the connection. Unless that is reached properly, it must not look
    /// like it.
    #[inline]
    fn prepare_to_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.clock.next_call();
        if self.state.requests().is_cut() {
            return Poll::Ready(Err(Failure::Cut.into()));
        }
        self.socket.set_reset(self.state.requests().is_unframed());
        self.poll_output(cx)
    }

    /// Nothing could be written.
    fn poll_blocked<R>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<R>> {
        ready!(self.follow(cx, ConnState::poll_blocked))?;
        Poll::Pending
    }

    /// So many of these bytes are written.
    fn note_written(&mut self, bufs: &[IoSlice<'_>], n: usize, cx: &Context<'_>) {
        if self.state.on_write(bufs, n, &self.clock) {
            cx.waker().wake_by_ref();
        }
    }
}

/// Copies the buffers into one. Returns whether they fit.
fn join(bufs: &[IoSlice<'_>], whole: &mut ReadBuf<'_>) -> bool {
    bufs.iter().all(|buf| {
        let fits = buf.len() <= whole.remaining();
        if fits {
            whole.put_slice(buf);
        }
        fits
    })
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Conn<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.open_mut();
        this.clock.next_call();
        // For one that is closed from our side nothing comes any more.
        if buf.remaining() == 0 || this.state.has_left() && this.state.rewind().is_empty() {
            return Poll::Ready(Ok(()));
        }
        loop {
            let rewind = this.state.rewind();
            if !rewind.is_empty() {
                let n = rewind.len().min(buf.remaining());
                buf.put_slice(&rewind[..n]);
                rewind.drain(..n);
                if rewind.is_empty() {
                    *rewind = Vec::new();
                }
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            match this.socket.pin().poll_read(cx, buf) {
                Poll::Pending => return this.poll_close(cx),
                Poll::Ready(Err(error)) => {
                    this.state.on_broken();
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(Ok(())) => {}
            }
            let bytes = &mut buf.filled_mut()[before..];
            if bytes.is_empty() {
                return if this.state.on_end(&this.clock) {
                    this.poll_close(cx)
                } else {
                    Poll::Ready(Ok(()))
                };
            }
            let left = this.state.on_read(bytes, &this.clock);
            buf.set_filled(before + left);
            if left > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Conn<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.open_mut();
        ready!(this.prepare_to_write(cx))?;
        let Poll::Ready(written) = this.socket.pin().poll_write(cx, buf) else {
            return this.poll_blocked(cx);
        };
        Poll::Ready(written.inspect(|n| this.note_written(&[IoSlice::new(buf)], *n, cx)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.open_mut();
        ready!(this.prepare_to_write(cx))?;
        let mut small = [MaybeUninit::uninit(); SMALL];
        let mut whole = ReadBuf::uninit(&mut small);
        let written = match bufs {
            [one] => this.socket.pin().poll_write(cx, one),
            bufs if join(bufs, &mut whole) => this.socket.pin().poll_write(cx, whole.filled()),
            bufs => this.socket.pin().poll_write_vectored(cx, bufs),
        };
        let Poll::Ready(written) = written else {
            return this.poll_blocked(cx);
        };
        Poll::Ready(written.inspect(|n| this.note_written(bufs, *n, cx)))
    }

    fn is_write_vectored(&self) -> bool {
        self.open().socket.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.open_mut();
        ready!(this.poll_output(cx))?;
        // Only a stream with a buffer of its own has something to flush.
        if this.socket.pin().poll_flush(cx)?.is_pending() {
            return this.poll_blocked(cx);
        }
        this.clock.next_call();
        let ask = this.state.on_flush(&this.clock);
        let is_due = match ask {
            Ask::WhenSomethingHappens => false,
            Ask::Now => true,
            Ask::At(time) => this.timer.wait_until(time, cx).is_ready(),
        };
        if is_due {
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.open_mut();
        this.socket.set_reset(false);
        ready!(this.poll_output(cx))?;
        ready!(this.socket.pin().poll_shutdown(cx))?;
        this.state.on_shutdown();
        Poll::Ready(Ok(()))
    }
}

impl<T> Drop for Conn<T> {
    fn drop(&mut self) {
        let Some(open) = self.0.take() else { return };
        let lingers = if open.socket.resets() {
            false
        } else if open.state.has_left() {
            open.open_guard.is_leaving() && open.state.must_linger(Pending::Something)
        } else {
            open.state.must_linger(open.socket.arrived())
        };
        if lingers {
            return (open.linger)(open);
        }
        let Open { socket, open_guard, .. } = *open;
        // In this order: the connection that gets its place comes after it.
        drop(socket);
        drop(open_guard);
    }
}

impl<T> std::fmt::Debug for Conn<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("remote", &self.connect_info().remote()).finish_non_exhaustive()
    }
}
