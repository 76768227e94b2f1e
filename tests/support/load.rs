//! A load generator that never retries and counts every way a request can fail.
//!
//! Its clients behave like real ones: they keep a connection as long as the server lets them, check before each request whether
//! it was closed, and open a new one if so. Anything that goes wrong after that is a failure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;

mod body;
mod exchange;
mod http2;
mod target;
mod websocket;
pub use body::{connect_narrow, download};
use exchange::exchange;
pub use target::Target;
use target::Targets;

/// How clients treat their connections.
#[derive(Debug, Clone, Copy)]
pub enum Clients {
    /// A new connection for each request, closed by the server.
    Fresh,
    /// A new connection for each request, with pauses evenly spread between zero and twice this mean.
    FreshNowAndThen { pause: Duration },
    /// Many requests on a connection, with pauses of this mean.
    KeepAlive { pause: Duration },
    /// HTTP/2 with prior knowledge: `streams` requests at a time on a connection, until the server sends GOAWAY. A pause of
    /// this mean follows each request.
    Http2 { streams: usize, pause: Duration },
    /// An open loop: a request is due on a kept connection at every interval, even if the previous one is unanswered, and a
    /// request that is sent late counts from its due time. So a stalled server is charged for all requests that had to wait.
    Paced { every: Duration },
    /// A new connection for each body of this size. The client sends the body in pieces, over a time evenly spread between
    /// zero and twice this mean, and the server must echo it.
    Upload { bytes: usize, over: Duration },
    /// A new connection for each body of this size, which the client reads in pieces, over such a time, from a server without
    /// TLS.
    Download { bytes: usize, over: Duration },
    /// A new connection for each file of [`Load::fetch`], which the client reads like such a body.
    Slow { over: Duration },
    /// Messages that must be echoed, with pauses of this mean. A WebSocket lasts until the server sends a close frame.
    WebSocket { pause: Duration },
}

impl Clients {
    fn pause(self) -> Duration {
        match self {
            Clients::FreshNowAndThen { pause }
            | Clients::KeepAlive { pause }
            | Clients::Http2 { pause, .. }
            | Clients::WebSocket { pause } => pause,
            Clients::Fresh
            | Clients::Paced { .. }
            | Clients::Upload { .. }
            | Clients::Download { .. }
            | Clients::Slow { .. } => Duration::ZERO,
        }
    }

    fn pace(self) -> Duration {
        if let Clients::Paced { every } = self { every } else { Duration::ZERO }
    }
}

/// The timeout of a request. Over a network that loses packets some requests take long: the kernel retransmits a SYN after 1 s,
/// 3 s, 7 s, 15 s and 31 s. With half of this timeout one run in a hundred fails over the worst network of the tests, with any
/// server.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pause after a failure, so that an unreachable server does not cause millions of failures.
const AFTER_A_FAILURE: Duration = Duration::from_millis(10);

/// One answered request.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// When the request was sent.
    pub at: Instant,
    /// The time until the answer was complete, including the connect on a new connection.
    pub took: Duration,
    /// The generation that answered, or its pid if the server tells only that.
    pub generation: u64,
}

/// The outcome of a load.
#[derive(Debug, Default, Clone)]
pub struct Report {
    pub samples: Vec<Sample>,
    pub lost: Vec<Lost>,
}

/// One request that failed.
#[derive(Debug, Clone, Copy)]
pub struct Lost {
    pub kind: &'static str,
    /// When the request was sent.
    pub at: Instant,
    /// When the client noticed the failure.
    pub known: Instant,
}

impl Report {
    pub fn failed(&self) -> u64 {
        self.lost.len() as u64
    }

    /// The failed requests, counted by kind.
    pub fn failures(&self) -> BTreeMap<&'static str, u64> {
        let mut kinds = BTreeMap::new();
        for lost in &self.lost {
            *kinds.entry(lost.kind).or_default() += 1;
        }
        kinds
    }

    /// The time of each generation's first answer.
    pub fn first_answers(&self) -> BTreeMap<u64, Instant> {
        let mut first = BTreeMap::new();
        for sample in &self.samples {
            let answered = sample.at + sample.took;
            first.entry(sample.generation).and_modify(|at| *at = answered.min(*at)).or_insert(answered);
        }
        first
    }

    pub fn add(&mut self, other: Report) {
        self.samples.extend(other.samples);
        self.lost.extend(other.lost);
    }
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    failed: AtomicU64,
    /// The number of clients that have received an answer.
    answered: AtomicUsize,
}

impl Shared {
    /// Records the outcome of a request: the generation that answered, or the kind of failure.
    fn note(&self, report: &mut Report, at: Instant, came: Result<u64, &'static str>) {
        if came.is_ok() && report.samples.is_empty() {
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        self.note_beside(report, at, came);
    }

    /// Records the outcome of a request without counting its client as answered: one of a client's parallel streams does that.
    fn note_beside(&self, report: &mut Report, at: Instant, came: Result<u64, &'static str>) {
        match came {
            Ok(generation) => {
                report.samples.push(Sample { at, took: at.elapsed(), generation });
            }
            Err(kind) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                report.lost.push(Lost { kind, at, known: Instant::now() });
            }
        }
    }
}

/// Clients at work until [`Load::stop`].
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<Report>,
}

impl Load {
    pub fn start(addr: SocketAddr, clients: Clients, count: usize) -> Load {
        Load::start_with(None, addr, clients, count)
    }

    /// Starts clients that use TLS if there is a connector; the server's certificate must be valid for its IP address.
    pub fn start_with(tls: Option<&TlsConnector>, addr: SocketAddr, clients: Clients, count: usize) -> Load {
        Load::fetch(tls, addr, clients, count, || Target::Root)
    }

    /// Starts clients that call `target` before each request. Uploads, downloads and WebSockets have targets of their own.
    pub fn fetch(
        tls: Option<&TlsConnector>,
        addr: SocketAddr,
        clients: Clients,
        count: usize,
        target: impl Fn() -> Target + Send + Sync + 'static,
    ) -> Load {
        let shared = Arc::new(Shared::default());
        let targets: Targets = Arc::new(target);
        let mut set = JoinSet::new();
        for _ in 0..count {
            let (shared, targets) = (Arc::clone(&shared), Arc::clone(&targets));
            match clients {
                Clients::Http2 { streams, pause } => {
                    set.spawn(http2::client(addr, streams, pause, targets, shared))
                }
                Clients::WebSocket { pause } => {
                    set.spawn(websocket::client(tls.cloned(), addr, pause, shared))
                }
                _ => set.spawn(client(tls.cloned(), addr, clients, targets, shared)),
            };
        }
        Load { shared, clients: set }
    }

    /// The number of requests that have failed so far.
    pub fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Returns whether every client has received an answer.
    pub fn is_under_way(&self) -> bool {
        self.shared.answered.load(Ordering::Relaxed) == self.clients.len()
    }

    /// Waits until every request in flight has ended, and reports.
    pub async fn stop(self) -> Report {
        self.shared.stop.store(true, Ordering::SeqCst);
        let mut report = Report::default();
        for one in self.clients.join_all().await {
            report.add(one);
        }
        report
    }
}

async fn client(
    tls: Option<TlsConnector>,
    addr: SocketAddr,
    clients: Clients,
    targets: Targets,
    shared: Arc<Shared>,
) -> Report {
    let mut report = Report::default();
    let mut kept = None;
    // Spreads the first requests of all clients over one interval.
    let mut due = tokio::time::Instant::now() + clients.pace().mul_f64(fastrand::f64());
    while !shared.stop.load(Ordering::Relaxed) {
        let target = targets();
        let at = match clients {
            Clients::Paced { every } => {
                sleep_until(due).await;
                due += every;
                (due - every).into_std()
            }
            _ => Instant::now(),
        };
        let came = timeout(PATIENCE, async {
            match clients {
                Clients::Upload { bytes, over } => body::upload(tls.as_ref(), addr, bytes, about(over)).await,
                Clients::Download { bytes, over } => {
                    let path = format!("/bytes?n={bytes}");
                    download(addr, &path, &vec![b'x'; bytes], about(over)).await
                }
                Clients::Slow { over } => download(addr, target.path(), target.content(), about(over)).await,
                _ => exchange(tls.as_ref(), addr, clients, &target, &mut kept).await,
            }
        });
        let came = came.await.unwrap_or(Err("timeout"));
        shared.note(&mut report, at, came);
        if came.is_err() {
            kept = None;
            sleep(AFTER_A_FAILURE).await;
        }
        let pause = clients.pause();
        if pause > Duration::ZERO {
            sleep(about(pause)).await;
        }
    }
    report
}

/// A random time, evenly spread between zero and twice this mean.
fn about(mean: Duration) -> Duration {
    mean.mul_f64(2.0 * fastrand::f64())
}
