//! The clients that must not notice the siege: honest clients that request a small file, and operators of the server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::load::{Clients, Load, Report};

/// The mean pause. Pauses are evenly spread up to twice the mean, so none exceeds a second.
const PAUSE: Duration = Duration::from_millis(500);
/// The first part of a load, left out of the latencies: clients are still connecting, and a new server is cold.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long an operator waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The clients of the load generator, by kind.
pub(super) struct Honest(Vec<(&'static str, Load)>);

/// The outcome of the requests of one kind of client.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Answers {
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) failures: BTreeMap<&'static str, u64>,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) slowest_ms: f64,
}

impl Honest {
    pub(super) fn start(addr: SocketAddr) -> Honest {
        let fresh = Clients::FreshNowAndThen { pause: Duration::from_millis(20) };
        let kinds = [
            ("fresh", fresh, 4),
            ("keep-alive", Clients::KeepAlive { pause: PAUSE }, 16),
            ("http2", Clients::Http2 { streams: 4, pause: PAUSE }, 4),
        ];
        Honest(kinds.into_iter().map(|(name, kind, n)| (name, Load::start(addr, kind, n))).collect())
    }

    /// Stops the clients; returns the outcome of each kind, and of all kinds together.
    pub(super) async fn stop(self) -> BTreeMap<&'static str, Answers> {
        let stop = |(name, load): (_, Load)| (name, tokio::spawn(load.stop()));
        let stopping: Vec<_> = self.0.into_iter().map(stop).collect();
        let (mut whole, mut answers) = (Report::default(), BTreeMap::new());
        for (name, report) in stopping {
            let report = report.await.expect("clients do not panic");
            answers.insert(name, Answers::of(&report));
            whole.add(report);
        }
        answers.insert("all", Answers::of(&whole));
        answers
    }
}

impl Answers {
    fn of(report: &Report) -> Answers {
        let began = report.samples.iter().map(|sample| sample.at).min();
        let warm = report.samples.iter().filter(|s| began.is_some_and(|began| s.at >= began + WARM_UP));
        let mut took: Vec<_> = warm.map(|sample| sample.took.as_secs_f64() * 1000.0).collect();
        took.sort_unstable_by(f64::total_cmp);
        let at = |quantile: f64| {
            let rank = (took.len() as f64 * quantile) as usize;
            took.get(rank.min(took.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
        };
        Answers {
            requests: report.samples.len() as u64 + report.failed(),
            failed: report.failed(),
            failures: report.failures(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            slowest_ms: at(1.0),
        }
    }
}

/// The outcome of a question that was asked repeatedly.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Asked {
    pub(super) asked: u64,
    pub(super) failures: BTreeMap<String, u64>,
    pub(super) slowest_ms: f64,
}

/// Operators that poll the probe, the admin address and the status.
pub(super) struct Operators {
    stop: Arc<AtomicBool>,
    asking: Vec<(&'static str, JoinHandle<Asked>)>,
}

impl Operators {
    pub(super) fn start(site: SocketAddr, admin: SocketAddr, handover: &Path, control: &Path) -> Operators {
        let stop = Arc::new(AtomicBool::new(false));
        let (handover, control) = (handover.to_owned(), control.to_owned());
        let probe = again_and_again(&stop, Duration::from_millis(500), move || get(site, "/healthz"));
        let metrics = again_and_again(&stop, Duration::from_secs(2), move || get(admin, "/metrics"));
        let status = again_and_again(&stop, Duration::from_secs(3), move || {
            let mut command = Command::new(&handover);
            command.args(["status", "--json", "--control"]).arg(&control).kill_on_drop(true);
            status(command)
        });
        Operators { stop, asking: vec![("GET /healthz", probe), ("admin", metrics), ("status", status)] }
    }

    pub(super) async fn stop(self) -> BTreeMap<&'static str, Asked> {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = BTreeMap::new();
        for (name, asking) in self.asking {
            all.insert(name, asking.await.expect("operators do not panic"));
        }
        all
    }
}

fn again_and_again<A>(
    stop: &Arc<AtomicBool>,
    every: Duration,
    ask: impl Fn() -> A + Send + 'static,
) -> JoinHandle<Asked>
where
    A: Future<Output = Result<(), String>> + Send,
{
    let stop = Arc::clone(stop);
    tokio::spawn(async move {
        let mut asked = Asked::default();
        while !stop.load(Ordering::SeqCst) {
            let at = Instant::now();
            let answer = timeout(PATIENCE, ask()).await.unwrap_or_else(|_| Err("timeout".into()));
            asked.asked += 1;
            asked.slowest_ms = asked.slowest_ms.max(at.elapsed().as_secs_f64() * 1000.0);
            if let Err(kind) = answer {
                *asked.failures.entry(kind).or_default() += 1;
            }
            sleep(every).await;
        }
        asked
    })
}

async fn get(addr: SocketAddr, target: &str) -> Result<(), String> {
    let exchange = async {
        let mut stream = TcpStream::connect(addr).await?;
        let request = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(answer)
    };
    let answer: Vec<u8> = exchange.await.map_err(|error: std::io::Error| error.to_string())?;
    if answer.starts_with(b"HTTP/1.1 200 ") { Ok(()) } else { Err("no 200".into()) }
}

async fn status(mut command: Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().await.map_err(|error| error.to_string())?;
    let all: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    // In the middle of a handover one process may have no phase yet.
    if all.iter().any(|one| one["phase"].is_string()) {
        return Ok(());
    }
    let why = all.first().and_then(|one| one["error"].as_str()).map(str::to_owned);
    Err(why.unwrap_or_else(|| String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
