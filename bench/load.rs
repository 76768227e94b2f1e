//! A load generator that never retries and counts every way a request can fail. The bench and the tests share it.
//!
//! Its clients behave as real ones do: they keep a connection as long as the server lets them, look whether it was
//! closed before they send the next request, and open a new one if so. Anything that goes wrong after that is a failure.

#![allow(dead_code, reason = "the tests need less of it than the bench")]

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, unconstrained};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How clients treat their connections.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Clients {
    /// A connection for each request, closed by the server.
    Fresh,
    /// The same with pauses, evenly spread between nothing and twice this mean.
    FreshNowAndThen { pause: Duration },
    /// Many requests on a connection, with such pauses.
    KeepAlive { pause: Duration },
}

impl Clients {
    fn pause(self) -> Duration {
        match self {
            Clients::Fresh => Duration::ZERO,
            Clients::FreshNowAndThen { pause } | Clients::KeepAlive { pause } => pause,
        }
    }
}

/// A request takes no longer than this, or it has failed. Over a network that loses packets some take long: the kernel
/// sends a SYN again after 1 s, 3 s, 7 s and 15 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// One answered request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// When it was sent.
    pub(crate) at: Instant,
    /// From then until the answer was complete; with [`Clients::Fresh`] from the beginning of the connect.
    pub(crate) took: Duration,
    /// Who answered: the generation, or its pid where a server tells only that.
    pub(crate) generation: u64,
}

/// What came of a load.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) samples: Vec<Sample>,
    pub(crate) lost: Vec<Lost>,
}

/// One request that failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lost {
    pub(crate) kind: &'static str,
    /// When it was sent.
    pub(crate) at: Instant,
    /// When the client knew.
    pub(crate) known: Instant,
}

impl Report {
    pub(crate) fn failed(&self) -> u64 {
        self.lost.len() as u64
    }

    /// The failed requests, counted by kind.
    pub(crate) fn failures(&self) -> BTreeMap<&'static str, u64> {
        let mut kinds = BTreeMap::new();
        for lost in &self.lost {
            *kinds.entry(lost.kind).or_default() += 1;
        }
        kinds
    }

    /// The first answer of each generation.
    pub(crate) fn first_answers(&self) -> BTreeMap<u64, Instant> {
        let mut first = BTreeMap::new();
        for sample in &self.samples {
            let answered = sample.at + sample.took;
            first.entry(sample.generation).and_modify(|at| *at = answered.min(*at)).or_insert(answered);
        }
        first
    }

    pub(crate) fn add(&mut self, other: Report) {
        self.samples.extend(other.samples);
        self.lost.extend(other.lost);
    }
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// So many clients have got an answer.
    answered: AtomicUsize,
}

/// Clients at work until [`Load::stop`].
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<Report>,
}

impl Load {
    pub(crate) fn start(addr: SocketAddr, clients: Clients, count: usize) -> Load {
        Load::start_with(None, addr, clients, count)
    }

    /// The same over TLS, if there is a connector; the server must be the one for its address.
    pub(crate) fn start_with(
        tls: Option<&TlsConnector>,
        addr: SocketAddr,
        clients: Clients,
        count: usize,
    ) -> Load {
        let shared = Arc::new(Shared::default());
        let mut set = JoinSet::new();
        for _ in 0..count {
            set.spawn(client(tls.cloned(), addr, clients, Arc::clone(&shared)));
        }
        Load { shared, clients: set }
    }

    /// Whether every client has got an answer.
    pub(crate) fn is_under_way(&self) -> bool {
        self.shared.answered.load(Ordering::Relaxed) == self.clients.len()
    }

    /// Lets every request under way end, and reports.
    pub(crate) async fn stop(self) -> Report {
        self.shared.stop.store(true, Ordering::SeqCst);
        let mut report = Report::default();
        for one in self.clients.join_all().await {
            report.add(one);
        }
        report
    }
}

/// A connection, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
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

async fn client(
    tls: Option<TlsConnector>,
    addr: SocketAddr,
    clients: Clients,
    shared: Arc<Shared>,
) -> Report {
    let mut report = Report::default();
    let mut random = fastrand::Rng::new();
    let mut kept = None;
    while !shared.stop.load(Ordering::Relaxed) {
        let at = Instant::now();
        match timeout(PATIENCE, exchange(tls.as_ref(), addr, clients, &mut kept))
            .await
            .unwrap_or(Err("timeout"))
        {
            Ok(generation) => {
                if report.samples.is_empty() {
                    shared.answered.fetch_add(1, Ordering::Relaxed);
                }
                report.samples.push(Sample { at, took: at.elapsed(), generation });
            }
            Err(kind) => {
                kept = None;
                report.lost.push(Lost { kind, at, known: Instant::now() });
                // So that a server that is gone does not make millions of failures.
                sleep(Duration::from_millis(10)).await;
            }
        }
        let pause = clients.pause();
        if pause > Duration::ZERO {
            sleep(pause.mul_f64(2.0 * random.f64())).await;
        }
    }
    report
}

/// One request and its answer; gives the generation that answered.
async fn exchange(
    tls: Option<&TlsConnector>,
    addr: SocketAddr,
    clients: Clients,
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
    let request: &[u8] = match clients {
        Clients::Fresh | Clients::FreshNowAndThen { .. } => {
            b"GET / HTTP/1.1\r\nhost: load\r\nconnection: close\r\n\r\n"
        }
        Clients::KeepAlive { .. } => b"GET / HTTP/1.1\r\nhost: load\r\n\r\n",
    };
    stream.write_all(request).await.map_err(|e| broken(&e, "reset while sending"))?;
    stream.flush().await.map_err(|e| broken(&e, "reset while sending"))?;
    let mut answer = Vec::with_capacity(512);
    let (generation, closes) = loop {
        if stream.read_buf(&mut answer).await.map_err(|e| broken(&e, "reset before the answer"))? == 0 {
            return Err(if answer.is_empty() { "closed before the answer" } else { "cut within the answer" });
        }
        if let Some(done) = complete(&answer)? {
            break done;
        }
    };
    match clients {
        Clients::Fresh | Clients::FreshNowAndThen { .. } => match stream.read(&mut [0; 1]).await {
            Ok(0) => {}
            _ => return Err("not closed properly after the answer"),
        },
        Clients::KeepAlive { .. } => *kept = (!closes).then_some(stream),
    }
    Ok(generation)
}

async fn connect(tls: Option<&TlsConnector>, addr: SocketAddr) -> Result<Box<dyn Stream>, &'static str> {
    let stream = TcpStream::connect(addr).await.map_err(|e| match e.kind() {
        io::ErrorKind::ConnectionRefused => "refused",
        io::ErrorKind::ConnectionReset => "reset while connecting",
        _ => "cannot connect",
    })?;
    stream.set_nodelay(true).map_err(|_| "cannot connect")?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let stream = tls.connect(addr.ip().into(), stream).await;
    Ok(Box::new(stream.map_err(|e| broken(&e, "reset within the handshake"))?))
}

/// Whether the server has not closed it; what it sent unasked, such as a ticket, is taken note of. It is the kernel that is
/// asked: tokio knows what its last `epoll_wait` said, which may be from before the server died.
async fn is_open(stream: &mut Box<dyn Stream>) -> bool {
    while has_something_to_read(stream.socket()) {
        let mut byte = [0];
        let mut buf = ReadBuf::new(&mut byte);
        let _ = stream.socket().readable().await;
        // Unconstrained, because a task that has used up its turn would be told that there is nothing to read.
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

fn broken(error: &io::Error, reset: &'static str) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => reset,
        _ => "I/O error",
    }
}

/// Who says to have answered, in a complete answer, and whether the server closes after it; `None` if more is to come.
fn complete(answer: &[u8]) -> Result<Option<(u64, bool)>, &'static str> {
    let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
    let head = str::from_utf8(&answer[..end]).map_err(|_| "bad answer")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err("status other than 200");
    }
    let header = |name: &str| {
        let fields = head.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    };
    let length: usize = header("content-length").and_then(|v| v.parse().ok()).ok_or("bad answer")?;
    let Some(body) = answer.get(end + 4..end + 4 + length) else { return Ok(None) };
    let text = str::from_utf8(body).map_err(|_| "bad answer")?;
    let who = text.strip_prefix("generation=").or_else(|| text.strip_prefix("hello from "));
    let generation = who.and_then(|who| who.split_whitespace().next()?.parse().ok()).ok_or("bad answer")?;
    Ok(Some((generation, header("connection") == Some("close"))))
}
