//! A load generator that never retries and counts every way a request can fail.
//!
//! Its clients behave as real ones do: they keep a connection as long as the server lets them, look whether it was
//! closed before they send the next request, and open a new one if so. Anything that goes wrong after that is a failure.

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
mod websocket;
use exchange::exchange;

/// How clients treat their connections.
#[derive(Debug, Clone, Copy)]
pub enum Clients {
    /// A connection for each request, closed by the server.
    Fresh,
    /// The same with pauses, evenly spread between nothing and twice this mean.
    FreshNowAndThen { pause: Duration },
    /// Many requests on a connection, with such pauses.
    KeepAlive { pause: Duration },
    /// HTTP/2 with prior knowledge: so many requests at a time on a connection, until the server says GOAWAY. Each is
    /// followed by such a pause.
    Http2 { streams: usize, pause: Duration },
    /// An open loop: a request on a kept connection is due so often, whether the one before it is answered or not, and one
    /// that is sent late counts from when it was due. So a server that stands still is blamed for all that had to wait.
    Paced { every: Duration },
    /// A connection for each body of this size. It is sent in pieces, over a time evenly spread between nothing and twice
    /// this mean, and must come back.
    Upload { bytes: usize, over: Duration },
    /// The same for a body that the client reads in pieces, from a server without TLS.
    Download { bytes: usize, over: Duration },
    /// Messages that must come back, with such pauses. A WebSocket lasts until the server sends a close frame.
    WebSocket { pause: Duration },
}

impl Clients {
    fn pause(self) -> Duration {
        match self {
            Clients::FreshNowAndThen { pause }
            | Clients::KeepAlive { pause }
            | Clients::Http2 { pause, .. }
            | Clients::WebSocket { pause } => pause,
            Clients::Fresh | Clients::Paced { .. } | Clients::Upload { .. } | Clients::Download { .. } => {
                Duration::ZERO
            }
        }
    }

    fn pace(self) -> Duration {
        if let Clients::Paced { every } = self { every } else { Duration::ZERO }
    }
}

/// A request takes no longer than this, or it has failed. Over a network that loses packets some take long: the kernel
/// sends a SYN again after 1 s, 3 s, 7 s, 15 s and 31 s, and half of that patience fails one run in a hundred over the
/// worst network of the tests, whoever serves.
const PATIENCE: Duration = Duration::from_secs(60);

/// So that a server that is gone does not make millions of failures.
const AFTER_A_FAILURE: Duration = Duration::from_millis(10);

/// One answered request.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// When it was sent.
    pub at: Instant,
    /// From then until the answer was complete, with the connect if it had a connection of its own.
    pub took: Duration,
    /// Who answered: the generation, or its pid where a server tells only that.
    pub generation: u64,
}

/// What came of a load.
#[derive(Debug, Default, Clone)]
pub struct Report {
    pub samples: Vec<Sample>,
    pub lost: Vec<Lost>,
}

/// One request that failed.
#[derive(Debug, Clone, Copy)]
pub struct Lost {
    pub kind: &'static str,
    /// When it was sent.
    pub at: Instant,
    /// When the client knew.
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

    /// The first answer of each generation.
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
    /// So many clients have got an answer.
    answered: AtomicUsize,
}

impl Shared {
    /// What came of a request: the generation that answered, or in which way it failed.
    fn note(&self, report: &mut Report, at: Instant, came: Result<u64, &'static str>) {
        if came.is_ok() && report.samples.is_empty() {
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        self.note_beside(report, at, came);
    }

    /// Of a client that has noted the first of those it makes at a time, or will.
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

    /// The same over TLS, if there is a connector; the server must be the one for its address.
    pub fn start_with(tls: Option<&TlsConnector>, addr: SocketAddr, clients: Clients, count: usize) -> Load {
        let shared = Arc::new(Shared::default());
        let mut set = JoinSet::new();
        for _ in 0..count {
            let shared = Arc::clone(&shared);
            match clients {
                Clients::Http2 { streams, pause } => set.spawn(http2::client(addr, streams, pause, shared)),
                Clients::WebSocket { pause } => {
                    set.spawn(websocket::client(tls.cloned(), addr, pause, shared))
                }
                _ => set.spawn(client(tls.cloned(), addr, clients, shared)),
            };
        }
        Load { shared, clients: set }
    }

    /// So many requests have failed so far.
    pub fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Whether every client has got an answer.
    pub fn is_under_way(&self) -> bool {
        self.shared.answered.load(Ordering::Relaxed) == self.clients.len()
    }

    /// Lets every request under way end, and reports.
    pub async fn stop(self) -> Report {
        self.shared.stop.store(true, Ordering::SeqCst);
        let mut report = Report::default();
        for one in self.clients.join_all().await {
            report.add(one);
        }
        report
    }
}

/// Who answered, by the body.
fn generation(body: &[u8]) -> Option<u64> {
    let text = str::from_utf8(body).ok()?;
    let who = text.strip_prefix("generation=").or_else(|| text.strip_prefix("hello from "))?;
    who.split_whitespace().next()?.parse().ok()
}

async fn client(
    tls: Option<TlsConnector>,
    addr: SocketAddr,
    clients: Clients,
    shared: Arc<Shared>,
) -> Report {
    let mut report = Report::default();
    let mut kept = None;
    // The first ones are spread over the time between two.
    let mut due = tokio::time::Instant::now() + clients.pace().mul_f64(fastrand::f64());
    while !shared.stop.load(Ordering::Relaxed) {
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
                Clients::Download { bytes, over } => body::download(addr, bytes, about(over)).await,
                _ => exchange(tls.as_ref(), addr, clients, &mut kept).await,
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

/// Evenly spread between nothing and twice this mean.
fn about(mean: Duration) -> Duration {
    mean.mul_f64(2.0 * fastrand::f64())
}
