//! TLS on a counted connection. [`Conn`] is above TLS, not below it: the decision to close depends on heads and frames, which
//! only the plain text has, and the end of the connection must begin with close_notify. The connection has been counted
//! since `accept`, so it counts during the handshake too.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{self, PeerMisbehaved, ProtocolVersion, ServerConfig, ServerConnection};

use super::super::conn_state::{Clock, Failure, Pending};
use super::super::requests::Protocol;
use super::super::{Drain, PAUSED};
use super::{Conn, Open, Socket, StreamOps};
use crate::sock_diag::Connection;

/// How much longer a handshake may take when its timeout expires but data has arrived that the runtime has not read yet.
const LAST_LOOK: Duration = Duration::from_secs(2);

impl Conn<TcpStream> {
    /// Performs the server side of a TLS handshake, for at most `timeout`. Meanwhile the connection counts as open: a lame
    /// duck finishes the handshake, and the end of the drain cuts it.
    ///
    /// # Errors
    ///
    /// Fails if the client does not speak TLS, has no version or cipher in common with `config`, or takes too long.
    pub async fn tls(mut self, config: Arc<ServerConfig>, timeout: Duration) -> io::Result<Conn<TlsStream>> {
        let open = self.0.take().expect("only drop() and tls() take it, and both consume the Conn");
        let Open { socket, open_guard, mut state, mut registration, .. } = *open;
        let requests = Arc::clone(state.requests());
        requests.set_protocol(Protocol::Handshake);
        let mut timer = pin!(sleep(timeout));
        let mut looked = false;
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no TLS handshake within {timeout:?}"));
        // Boxed: the keys and buffers of a session are large, and hyper moves its stream.
        let mut accept = Box::pin(
            TlsAcceptor::from(config).accept(Wire { stream: socket.stream, records: Records::default() }),
        );
        let stream = poll_fn(|cx| {
            registration.wake(cx.waker());
            if requests.is_cut() {
                return Poll::Ready(Err(Failure::Cut.into()));
            }
            if let Poll::Ready(accepted) = accept.as_mut().poll(cx) {
                return Poll::Ready(accepted.map_err(|error| explained(error, requests.drain())));
            }
            if requests.slot_state().is_asked() {
                requests.leave();
                return Poll::Ready(Err(io::Error::other("evicted in the TLS handshake: the pool is full")));
            }
            let deadline = timer.deadline();
            ready!(timer.as_mut().poll(cx));
            // Data that arrived while this process was not running is in time. So is data that arrives at the last moment, but only
            // once, or a client could extend its handshake forever.
            let arrived = accept.get_ref().map(|wire| super::socket::arrived(&wire.stream));
            let again = if deadline.elapsed() > PAUSED {
                timeout
            } else if !std::mem::replace(&mut looked, true) && arrived == Some(Pending::Something) {
                LAST_LOOK
            } else {
                return Poll::Ready(Err(late()));
            };
            timer.as_mut().reset(Instant::now() + again);
            timer.as_mut().poll(cx).map(|()| Err(late()))
        })
        .await?;
        let default_protocol = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Protocol::Http2,
            _ => Protocol::Http1,
        };
        requests.set_tls(TlsInfo::of(stream.get_ref().1));
        state.on_handshake(default_protocol, &Clock::new(Instant::now()));
        let socket = Socket::new(TlsStream(Box::new(stream)), StreamOps { arrived, reset_at_end, ask });
        Ok(Conn::over(socket, open_guard, state, registration))
    }
}

/// Explains an error about a server name. rustls refuses some names that other servers accept, and its own error is hard to
/// interpret.
fn explained(error: io::Error, drain: &Drain) -> io::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    let is_name = PeerMisbehaved::ServerNameMustContainOneHostName;
    if !matches!(cause, Some(rustls::Error::PeerMisbehaved(misbehaved)) if *misbehaved == is_name) {
        return error;
    }
    let text = "the client's server name (SNI) is not a host name; some clients add the port to it, such as hey, and \
                rustls refuses these (alert 47, illegal_parameter)";
    if !drain.0.told_of_names.swap(true, Ordering::Relaxed) {
        tracing::warn!("TLS handshake failed: {text}; later ones are logged at debug level");
    }
    io::Error::new(error.kind(), text)
}

/// Checks for unread data, which may be in the kernel or in rustls, and in rustls as plain text or as part of a record.
fn arrived(stream: &TlsStream) -> Pending {
    let (wire, session) = stream.0.get_ref();
    if !session.wants_read() {
        return Pending::Something;
    }
    match super::socket::arrived(&wire.stream) {
        Pending::Nothing if wire.records.is_within_one() => Pending::Part,
        arrived => arrived,
    }
}

fn reset_at_end(stream: &TlsStream, reset: bool) {
    super::socket::reset_at_end(&stream.0.get_ref().0.stream, reset);
}

fn ask(stream: &TlsStream) -> Option<Connection> {
    super::socket::ask(&stream.0.get_ref().0.stream)
}

/// The stream of a connection with TLS. Reads and writes carry plain text.
#[derive(Debug)]
pub struct TlsStream(Box<tokio_rustls::server::TlsStream<Wire>>);

impl TlsStream {
    /// Returns the socket and the session.
    pub fn get_ref(&self) -> (&TcpStream, &ServerConnection) {
        let (wire, session) = self.0.get_ref();
        (&wire.stream, session)
    }
}

impl AsFd for TlsStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.get_ref().0.as_fd()
    }
}

/// What a TLS handshake has shown of a client, from [`ConnectInfo::tls`](crate::ConnectInfo::tls).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The name that the client asked for (SNI).
    pub server_name: Option<String>,
    /// The protocol that both agreed on (ALPN), such as `h2`.
    pub alpn_protocol: Option<Vec<u8>>,
    /// The certificates of the client, its own first. Empty unless the configuration asks for one. They are verified.
    pub peer_certificates: Vec<CertificateDer<'static>>,
    /// The version of TLS.
    pub version: Option<ProtocolVersion>,
}

impl TlsInfo {
    fn of(session: &ServerConnection) -> TlsInfo {
        TlsInfo {
            server_name: session.server_name().map(str::to_owned),
            alpn_protocol: session.alpn_protocol().map(<[u8]>::to_vec),
            peer_certificates: session.peer_certificates().unwrap_or_default().to_vec(),
            version: session.protocol_version(),
        }
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    /// Sends close_notify, then FIN.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The socket under TLS. It tracks the records, because rustls does not say whether it has received a part of one.
#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    records: Records,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.records.read(&buf.filled()[before..]);
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
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

/// Reads the headers of TLS records (RFC 8446, section 5.1) and skips the rest.
#[derive(Debug, Default)]
struct Records {
    /// The bytes of the next header that have arrived: type, version (2 bytes), length (2 bytes).
    header: [u8; 5],
    filled: usize,
    /// Bytes until the next header.
    skip: usize,
}

impl Records {
    fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let (header, rest) = bytes.split_at((self.header.len() - self.filled).min(bytes.len()));
            self.header[self.filled..][..header.len()].copy_from_slice(header);
            self.filled += header.len();
            bytes = rest;
            if self.filled == self.header.len() {
                self.skip = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                self.filled = 0;
            }
        }
    }

    fn is_within_one(&self) -> bool {
        self.filled > 0 || self.skip > 0
    }
}

#[cfg(test)]
mod tests {
    use super::Records;

    #[test]
    fn the_ends_of_records_are_found_however_the_bytes_arrive() {
        let record = |length: u16| {
            let [a, b] = length.to_be_bytes();
            [&[23, 3, 3, a, b][..], &vec![7; usize::from(length)]].concat()
        };
        let wire = [record(1), record(0), record(300), record(16_640)].concat();
        let ends = [6, 11, 316, wire.len()];
        for size in [1, 2, 3, 5, 7, 100, wire.len()] {
            let (mut records, mut read) = (Records::default(), 0);
            for chunk in wire.chunks(size) {
                records.read(chunk);
                read += chunk.len();
                assert_eq!(records.is_within_one(), !ends.contains(&read), "{read} by {size}");
            }
        }
    }
}
