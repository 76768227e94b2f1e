//! The I/O object of one connection.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::farewell::{Farewell, Verdict};
use super::requests::{ConnectInfo, Protocol, Requests};
use super::{Counted, Drain};

mod arrived;
mod linger;
#[cfg(feature = "tls")]
mod tls;
pub(super) use arrived::{Arrived, arrived};
use linger::Linger;
#[cfg(feature = "tls")]
pub use tls::TlsStream;

/// A head and a body of so many bytes together are sent from one buffer: to the kernel that is less work than two, by
/// more than copying them costs.
const SMALL: usize = 1024;

/// An accepted connection, counted until it is dropped: a generation that leaves waits for it up to the deadline. It is a
/// stream for any protocol; [`Conn::serve`] speaks HTTP on it.
pub struct Conn<T = TcpStream> {
    stream: T,
    /// Looks whether anything has arrived.
    arrived: fn(&T) -> Arrived,
    requests: Arc<Requests>,
    farewell: Farewell,
    /// Received while the protocol was found out, not yet read.
    received: Vec<u8>,
    /// What it speaks if it does not begin with the preface of HTTP/2.
    otherwise: Protocol,
    write_blocked: bool,
    ended: bool,
    linger: Linger,
    _counted: Counted,
}

impl<T> Conn<T> {
    pub(super) fn new(
        stream: T,
        remote: SocketAddr,
        local: SocketAddr,
        drain: &Drain,
        arrived: fn(&T) -> Arrived,
    ) -> Conn<T> {
        let requests = Arc::new(Requests::new(drain, remote, local));
        Conn {
            stream,
            arrived,
            _counted: drain.count(&requests),
            farewell: Farewell::new(drain, &requests),
            requests,
            received: Vec::new(),
            otherwise: Protocol::Http1,
            write_blocked: false,
            ended: false,
            linger: Linger::NotYet,
        }
    }

    /// The addresses of both ends, and whether the generation is retiring.
    pub fn connect_info(&self) -> ConnectInfo {
        ConnectInfo(Arc::clone(&self.requests))
    }

    pub(super) fn requests(&self) -> &Arc<Requests> {
        &self.requests
    }

    /// Gives bytes back, to be read again.
    pub(super) fn unread(&mut self, bytes: Vec<u8>) {
        self.received = bytes;
    }

    pub(super) fn otherwise(&self) -> Protocol {
        self.otherwise
    }

    fn arrived(&self) -> Arrived {
        (self.arrived)(&self.stream)
    }

    fn note_byte(&mut self) {
        self.farewell.note_byte(&self.requests);
    }

    fn wrote<R>(&mut self, result: Poll<R>) -> Poll<R> {
        self.write_blocked = result.is_pending();
        if !self.write_blocked {
            self.note_byte();
        }
        result
    }

    /// There is nothing to read. Ready with end-of-file when the connection is to be closed.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let verdict = match self.farewell.poll(&self.requests, cx) {
            Poll::Ready(verdict) => verdict,
            Poll::Pending => {
                if self.requests.are_in_flight() {
                    let lame_duck = self.requests.is_lame_duck();
                    self.requests.set_nothing_more(!(lame_duck && self.arrived() != Arrived::Nothing));
                    if lame_duck {
                        self.requests.wait(cx);
                    }
                }
                return Poll::Pending;
            }
        };
        match verdict {
            Verdict::Cut => Poll::Ready(Err(cut())),
            Verdict::GiveUp => Poll::Ready(Ok(())),
            Verdict::Close if self.write_blocked => Poll::Pending,
            // What has arrived is served.
            Verdict::Close => match self.arrived() {
                Arrived::Something | Arrived::End => Poll::Pending,
                // The time of a head that has begun runs, and whatever comes of it, the verdict is another one.
                Arrived::Part if self.requests.protocol() != Protocol::Http2 => {
                    self.requests.begin_head();
                    self.poll_wait(cx)
                }
                Arrived::Part | Arrived::Nothing => Poll::Ready(Ok(())),
            },
        }
    }

    /// A client that has gone, or has said that it sends nothing more, need not be waited for. One that asked for the
    /// close of a server that stays is recognised by what it does not send.
    fn must_linger(&self) -> bool {
        let requests = &self.requests;
        matches!(requests.protocol(), Protocol::Http1 | Protocol::Unknown)
            && !(self.ended || requests.client_closes() || requests.is_cut())
            && match self.arrived() {
                Arrived::Nothing => !requests.is_normal() || requests.had_body(),
                Arrived::Something | Arrived::Part => true,
                Arrived::End => false,
            }
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

impl<T: AsyncRead + Unpin> AsyncRead for Conn<T> {
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
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if read.is_pending() {
            return this.poll_wait(cx);
        }
        if buf.filled().len() > before {
            let bytes = &buf.filled()[before..];
            this.requests.received(bytes);
            this.farewell.received(bytes, this.requests.protocol());
            this.note_byte();
        } else {
            this.ended = true;
        }
        read
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Conn<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.requests.is_cut() {
            return Poll::Ready(Err(cut()));
        }
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.requests.is_cut() {
            return Poll::Ready(Err(cut()));
        }
        let result = match joined(bufs, &mut [0; SMALL]) {
            Some(whole) => Pin::new(&mut self.stream).poll_write(cx, whole),
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
        };
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        // Only a stream with a buffer of its own has something to flush.
        if flushed.is_pending() || self.write_blocked { self.wrote(flushed) } else { flushed }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.linger.has_begun() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if !this.must_linger() {
                return Poll::Ready(Ok(()));
            }
            this.linger = Linger::begin();
        }
        this.linger.poll(&mut this.stream, cx).map(Ok)
    }
}

impl<T> std::fmt::Debug for Conn<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("remote", &self.connect_info().remote()).finish_non_exhaustive()
    }
}
