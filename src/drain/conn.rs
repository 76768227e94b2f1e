//! The I/O object of one connection: what passes through it, in both directions. `wait` has what it does when nothing comes.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Drain;
use super::Place;
use super::farewell::Farewell;
use super::request_framing::RequestFraming;
use super::requests::{ConnectInfo, Protocol, Requests};

mod kernel;
mod linger;
mod socket;
#[cfg(feature = "tls")]
mod tls;
mod wait;
pub(super) use kernel::Arrived;
pub(super) use linger::SENDERS;
pub(super) use socket::Means;
use socket::Socket;
#[cfg(feature = "tls")]
pub use tls::TlsStream;
use wait::End;

/// A head and a body of so many bytes together are sent from one buffer: to the kernel that is less work than two, by
/// more than copying them costs.
const SMALL: usize = 1024;

/// An accepted connection, counted until it is dropped: a generation that leaves waits for it up to the deadline. It is a
/// stream for any protocol; [`Conn::serve`] speaks HTTP on it.
///
/// To drop it ends the connection as its shutdown does, with FIN, and in such a way that the client gets all that was
/// written: what it still sends is read and discarded, by a task, until it ends too, says nothing for 2 s, or has sent for
/// 30 s. For so long the connection counts.
pub struct Conn<T = TcpStream> {
    socket: Socket<T>,
    requests: Arc<Requests>,
    farewell: Farewell,
    framing: RequestFraming,
    /// Received while the protocol was found out, not yet read.
    received: Vec<u8>,
    /// What it speaks if it does not begin with the preface of HTTP/2.
    otherwise: Protocol,
    /// A part of a TLS record has arrived, so a head has begun.
    part_of_record: bool,
    write_blocked: bool,
    /// Something has been written since it was last flushed.
    unflushed: bool,
    /// When the client must have taken something of what is blocked.
    stalls: Option<Instant>,
    /// What is written before anything else.
    inserted: Vec<u8>,
    end: End,
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Conn<T> {
    pub(super) fn new(
        stream: T,
        remote: SocketAddr,
        local: SocketAddr,
        drain: &Drain,
        place: Place,
        means: Means<T>,
    ) -> Conn<T> {
        let requests = Arc::new(Requests::new(drain, remote, local, place.room()));
        let socket = Socket::new(stream, drain.count(&requests, place), means);
        Conn::over(socket, Farewell::new(drain, &requests), requests, Protocol::Http1)
    }

    fn over(socket: Socket<T>, farewell: Farewell, requests: Arc<Requests>, otherwise: Protocol) -> Conn<T> {
        Conn {
            socket,
            requests,
            farewell,
            framing: RequestFraming::default(),
            received: Vec::new(),
            otherwise,
            part_of_record: false,
            write_blocked: false,
            unflushed: false,
            stalls: None,
            inserted: Vec::new(),
            end: End::Open,
        }
    }
}

impl<T> Conn<T> {
    /// The addresses of both ends, and whether the generation is retiring.
    pub fn connect_info(&self) -> ConnectInfo {
        ConnectInfo(Arc::clone(&self.requests))
    }

    pub(super) fn requests(&self) -> &Arc<Requests> {
        &self.requests
    }

    /// Gives back the bytes that told the protocol, to be read again.
    pub(super) fn begin(&mut self, protocol: Protocol, mut bytes: Vec<u8>) {
        self.requests.set_protocol(protocol);
        if protocol == Protocol::Http2 {
            // What was read so far looked like a head.
            self.requests.received(0, false);
            self.farewell.expect_goaway().received(&mut bytes, !self.requests.is_normal());
        }
        self.received = bytes;
    }

    pub(super) fn otherwise(&self) -> Protocol {
        self.otherwise
    }

    /// Returns how many of these bytes are left when those that hyper is not to see are taken out.
    fn note_received(&mut self, bytes: &mut [u8]) -> usize {
        self.farewell.note_byte(&self.requests);
        self.farewell.progress().received();
        if let Some(goaway) = self.farewell.goaway() {
            return goaway.received(bytes, !self.requests.is_normal());
        }
        if self.requests.protocol() == Protocol::Other {
            return bytes.len();
        }
        let empty_lines = self.framing.read(bytes);
        self.part_of_record = false;
        self.socket.ends.more = self.framing.is_within_body();
        self.requests.received(self.framing.heads(), self.framing.is_within_head());
        bytes.len() - empty_lines
    }

    /// These bytes are written.
    fn note_sent(&mut self, bytes: &[u8], cx: &Context<'_>) {
        let is_lame_duck = !self.requests.is_normal();
        // When the last stream ends, GOAWAY may be said, and hyper does not read again by itself.
        if self.farewell.goaway().is_some_and(|goaway| goaway.sent(bytes, is_lame_duck)) {
            cx.waker().wake_by_ref();
        }
    }

    fn wrote<R>(&mut self, result: Poll<io::Result<R>>, cx: &mut Context<'_>) -> Poll<io::Result<R>> {
        self.write_blocked = result.is_pending();
        if self.write_blocked {
            ready!(self.poll_stalled(cx))?;
            return Poll::Pending;
        }
        self.stalls = None;
        self.unflushed = true;
        self.farewell.note_byte(&self.requests);
        if let End::Held(progress) = &mut self.end {
            *progress = Instant::now();
        }
        result
    }

    /// Writes what is said between the frames of hyper.
    fn poll_insert(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        T: AsyncWrite + Unpin,
    {
        while !self.inserted.is_empty() {
            let n = ready!(self.socket.pin().poll_write(cx, &self.inserted))?;
            self.inserted.drain(..n);
        }
        Poll::Ready(Ok(()))
    }

    /// The end of a body without length is the end of the connection. Unless that is reached properly, it must not look
    /// like it.
    fn prepare_to_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        T: AsyncWrite + Unpin,
    {
        if self.requests.is_cut() {
            return Poll::Ready(Err(cut()));
        }
        self.socket.set_reset(self.requests.is_unframed());
        self.poll_insert(cx)
    }
}

/// The buffers as one, if they are small.
fn joined<'a>(bufs: &[IoSlice<'_>], whole: &'a mut [u8; SMALL]) -> Option<&'a [u8]> {
    let mut len = 0;
    for buf in bufs {
        whole.get_mut(len..len + buf.len())?.copy_from_slice(buf);
        len += buf.len();
    }
    Some(&whole[..len])
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "cut at the end of the drain")
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Conn<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.received.is_empty() {
            let n = this.received.len().min(buf.remaining());
            buf.put_slice(&this.received[..n]);
            this.received.drain(..n);
            if this.received.is_empty() {
                this.received = Vec::new();
            }
            return Poll::Ready(Ok(()));
        }
        // For one that is closed from our side nothing comes any more.
        if buf.remaining() == 0 || this.socket.ends.left {
            return Poll::Ready(Ok(()));
        }
        loop {
            let before = buf.filled().len();
            match this.socket.pin().poll_read(cx, buf) {
                Poll::Pending => return this.poll_wait(cx),
                Poll::Ready(Err(error)) => {
                    this.socket.ends.received = true;
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(Ok(())) => {}
            }
            let bytes = &mut buf.filled_mut()[before..];
            if bytes.is_empty() {
                return if this.hold_end() { this.poll_wait(cx) } else { Poll::Ready(Ok(())) };
            }
            let left = this.note_received(bytes);
            buf.set_filled(before + left);
            if left > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Conn<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.prepare_to_write(cx))?;
        let result = self.socket.pin().poll_write(cx, buf);
        if let Poll::Ready(Ok(n)) = result {
            self.note_sent(&buf[..n], cx);
        }
        self.wrote(result, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.prepare_to_write(cx))?;
        let result = match joined(bufs, &mut [0; SMALL]) {
            Some(whole) => self.socket.pin().poll_write(cx, whole),
            None => self.socket.pin().poll_write_vectored(cx, bufs),
        };
        if let Poll::Ready(Ok(mut left)) = result
            && self.farewell.goaway().is_some()
        {
            for buf in bufs {
                let n = left.min(buf.len());
                self.note_sent(&buf[..n], cx);
                left -= n;
            }
        }
        self.wrote(result, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_insert(cx))?;
        let mut flushed = self.socket.pin().poll_flush(cx);
        // Only a stream with a buffer of its own has something to flush.
        if flushed.is_pending() || self.write_blocked {
            flushed = self.wrote(flushed, cx);
        }
        if matches!(self.end, End::Held(_)) && flushed.is_ready() && !self.requests.are_in_flight() {
            // The last response is written, and the kernel does not announce the end a second time.
            self.end = End::Open;
            cx.waker().wake_by_ref();
        }
        // HTTP/2 is flushed at every turn.
        if flushed.is_ready() && self.requests.is_normal() && std::mem::take(&mut self.unflushed) {
            let this = &mut *self;
            if this.farewell.goaway().is_none() {
                this.farewell.written(&this.requests, cx);
            } else {
                let unfinished = this.unfinished();
                this.farewell.written_http2(&this.requests, unfinished, cx);
            }
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.set_reset(false);
        ready!(self.poll_insert(cx))?;
        ready!(self.socket.pin().poll_shutdown(cx))?;
        self.socket.ends.sent = true;
        Poll::Ready(Ok(()))
    }
}

impl<T> std::fmt::Debug for Conn<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("remote", &self.connect_info().remote()).finish_non_exhaustive()
    }
}
