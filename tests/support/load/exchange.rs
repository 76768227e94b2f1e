//! One request with its answer, and its connection.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::unconstrained;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Clients;
use super::target::{Arriving, GENERATION, Target};

/// A connection, with TLS or without.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    fn socket(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Stream for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Sends one request and reads its answer; returns the generation that answered.
pub(super) async fn exchange(
    tls: Option<&TlsConnector>,
    addr: SocketAddr,
    clients: Clients,
    target: &Target,
    kept: &mut Option<Box<dyn Stream>>,
) -> Result<u64, &'static str> {
    let mut reusable = kept.take();
    if let Some(stream) = &mut reusable
        && !is_open(stream).await
    {
        reusable = None;
    }
    let mut stream = match reusable {
        Some(stream) => stream,
        None => connect(tls, addr).await?,
    };
    let close = match clients {
        Clients::Fresh | Clients::FreshNowAndThen { .. } => "connection: close\r\n",
        _ => "",
    };
    let request = format!("GET {} HTTP/1.1\r\nhost: load\r\n{close}\r\n", target.path());
    stream.write_all(request.as_bytes()).await.map_err(|e| broken(&e, "reset while sending"))?;
    stream.flush().await.map_err(|e| broken(&e, "reset while sending"))?;
    let (generation, closes) = answer(&mut stream, target).await?;
    match clients {
        Clients::Fresh | Clients::FreshNowAndThen { .. } => match stream.read(&mut [0; 1]).await {
            Ok(0) => {}
            _ => return Err("not closed properly after the answer"),
        },
        _ => *kept = (!closes).then_some(stream),
    }
    Ok(generation)
}

/// Reads an answer; returns the generation, and whether the server closes the connection after it.
async fn answer(stream: &mut Box<dyn Stream>, target: &Target) -> Result<(u64, bool), &'static str> {
    let mut read = Vec::with_capacity(target.room());
    let (head, begun) = loop {
        if stream.read_buf(&mut read).await.map_err(|e| broken(&e, "reset before the answer"))? == 0 {
            return Err(if read.is_empty() { "closed before the answer" } else { "cut within the answer" });
        }
        if let Some(split) = Head::split(&read)? {
            break split;
        }
    };
    let length: usize = head.get("content-length").and_then(|v| v.parse().ok()).ok_or("bad answer")?;
    let (closes, named) = (head.get("connection") == Some("close"), head.get(GENERATION));
    let named = named.and_then(|who| who.parse().ok());
    let mut body = Arriving::of(target);
    body.take(begun)?;
    while body.length < length {
        read.clear();
        if stream.read_buf(&mut read).await.map_err(|e| broken(&e, "reset within the answer"))? == 0 {
            return Err("cut within the answer");
        }
        body.take(&read)?;
    }
    Ok((body.end(named)?, closes))
}

pub(super) async fn connect(
    tls: Option<&TlsConnector>,
    addr: SocketAddr,
) -> Result<Box<dyn Stream>, &'static str> {
    let stream = TcpStream::connect(addr).await.map_err(|e| unconnected(&e))?;
    stream.set_nodelay(true).map_err(|_| "cannot connect")?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let stream = tls.connect(addr.ip().into(), stream).await;
    Ok(Box::new(stream.map_err(|e| broken(&e, "reset within the handshake"))?))
}

/// Returns whether the connection is still open, after reading unsolicited data such as a TLS ticket. Asks the kernel: tokio
/// knows only the result of its last `epoll_wait`, which may be older than the server's death.
async fn is_open(stream: &mut Box<dyn Stream>) -> bool {
    while has_something_to_read(stream.socket()) {
        let mut byte = [0];
        let mut buf = ReadBuf::new(&mut byte);
        let _ = stream.socket().readable().await;
        // Unconstrained: with an exhausted budget, tokio would report that there is nothing to read.
        let read = poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_read(cx, &mut buf)));
        if unconstrained(read).await.is_ready() {
            return false;
        }
    }
    true
}

fn has_something_to_read(socket: &TcpStream) -> bool {
    let peeked = SockRef::from(socket).peek(&mut [MaybeUninit::uninit(); 1]);
    !peeked.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
}

pub(super) fn unconnected(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused",
        io::ErrorKind::ConnectionReset => "reset while connecting",
        _ => "cannot connect",
    }
}

pub(super) fn broken(error: &io::Error, reset: &'static str) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => reset,
        _ => "I/O error",
    }
}

/// The head of an answer with status 200.
pub(super) struct Head<'a>(&'a str);

impl<'a> Head<'a> {
    /// Splits an answer into its head and the rest; `None` if the head is incomplete.
    pub(super) fn split(answer: &'a [u8]) -> Result<Option<(Head<'a>, &'a [u8])>, &'static str> {
        let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
        let head = str::from_utf8(&answer[..end]).map_err(|_| "bad answer")?;
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err("status other than 200");
        }
        Ok(Some((Head(head), &answer[end + 4..])))
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        let fields = self.0.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}
