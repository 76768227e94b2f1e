//! The I/O object of one connection. It passes bytes in both directions; `conn_state` decides when the connection is closed.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
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
pub(super) use linger::LINGER_PERMITS;
use linger::linger;
use socket::Socket;
pub(super) use socket::StreamOps;
#[cfg(feature = "tls")]
pub use tls::{TlsInfo, TlsStream};

/// A head and a body of at most this many bytes together are copied into one buffer: the copy costs less than the kernel saves
/// with one buffer instead of two.
const SMALL: usize = 4096;

/// An accepted connection, counted until it is dropped: a generation that drains waits for it up to the deadline. It is a
/// stream for any protocol; [`Conn::serve`] speaks HTTP on it.
///
/// Dropping it ends the connection with FIN, as shutdown does, and the client still gets all bytes that were written: a task
/// reads and discards further input until the client ends too, sends nothing for 2 s, or has sent for 30 s. The
/// connection counts as open until then.
pub struct Conn<T = TcpStream>(
    /// `None` once the connection is dropped or converted to another type. Boxed, because a future reserves space for a value in each
    /// place that the value is moved through.
    Option<Box<Open<T>>>,
);

/// Aligned, so that workers that serve different connections share no cache line.
#[repr(align(64))]
struct Open<T> {
    socket: Socket<T>,
    open_guard: OpenGuard,
    state: ConnState,
    clock: Clock,
    registration: Registration,
    timer: Timer,
    /// Spawns the task that lingers after the drop.
    linger: fn(Box<Open<T>>),
}

impl Conn {
    pub(crate) fn accepted(stream: TcpStream, remote: SocketAddr, drain: &Drain, slot: Slot) -> Conn {
        // Fails only if the connection is already dead; the first read will report it.
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
        let registration = drain.0.registry.register(&requests, &drain.0.mode);
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
            // No task can be spawned without a runtime.
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
    /// Returns the addresses of both ends, and a handle that says whether the generation is retiring.
    pub fn connect_info(&self) -> ConnectInfo {
        ConnectInfo(Arc::clone(self.requests()))
    }

    /// Returns the stream: the socket, or the TLS session over it.
    pub fn get_ref(&self) -> &T {
        &self.open().socket.stream
    }

    pub(super) fn requests(&self) -> &Arc<Requests> {
        self.open().state.requests()
    }

    /// Sets the protocol that these first bytes showed. The bytes will be read again.
    pub(super) fn begin(&mut self, protocol: Protocol, bytes: Vec<u8>) {
        let open = self.open_mut();
        open.state.on_protocol(protocol, bytes, &open.clock);
    }

    pub(super) fn default_protocol(&self) -> Protocol {
        self.open().state.default_protocol()
    }

    fn open(&self) -> &Open<T> {
        self.0.as_ref().expect("only drop() and tls() take it, and both consume the Conn")
    }

    fn open_mut(&mut self) -> &mut Open<T> {
        self.0.as_mut().expect("only drop() and tls() take it, and both consume the Conn")
    }
}

/// The socket, for options and for what the kernel knows of it. Reading and writing past [`Conn`] loses the count of requests.
impl<T: AsFd> AsFd for Conn<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.get_ref().as_fd()
    }
}

impl<T: AsyncWrite + Unpin> Open<T> {
    /// Follows the decisions of the state. Ready when hyper is to read end-of-file, or with an error.
    fn follow(
        &mut self,
        cx: &mut Context<'_>,
        ask: impl Fn(&mut ConnState, &Clock, &Seen) -> Close,
    ) -> Poll<io::Result<()>> {
        let mut seen = Seen::default();
        loop {
            let close = ask(&mut self.state, &self.clock, &seen);
            if !self.state.output().is_empty() {
                // Output that cannot be written now goes out before the next write of hyper.
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
                        // Unsent data would otherwise stay in the kernel for many minutes.
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

    /// Called when there is nothing to read. Ready with end-of-file when the connection is to be closed.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The registry wakes this task when the mode changes or the connection is asked to leave.
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

    /// Writes our own frames, which go between those of hyper.
    #[inline]
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.state.output().is_empty() {
            let n = ready!(self.socket.pin().poll_write(cx, self.state.output()))?;
            self.state.output().drain(..n);
        }
        Poll::Ready(Ok(()))
    }

    /// Prepares for a write. The end of the connection ends a body without length, so an incomplete one must end with RST, not
    /// with FIN.
    #[inline]
    fn prepare_to_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.clock.next_call();
        if self.state.requests().is_cut() {
            return Poll::Ready(Err(Failure::Cut.into()));
        }
        self.socket.set_reset(self.state.requests().is_unframed());
        self.poll_output(cx)
    }

    /// Called when nothing could be written.
    fn poll_blocked<R>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<R>> {
        ready!(self.follow(cx, ConnState::poll_blocked))?;
        Poll::Pending
    }

    /// Notes that the first `n` of these bytes were written.
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
        // Nothing is read any more from a connection that is closed from our side.
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
        // Only a stream with its own buffer has something to flush.
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
        // The socket is closed before its slot is free for another connection.
        drop(socket);
        drop(open_guard);
    }
}

impl<T> std::fmt::Debug for Conn<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("remote", &self.connect_info().remote()).finish_non_exhaustive()
    }
}
