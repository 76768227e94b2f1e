//! Requests to the other generations of the same server through their sockets in the control directory. A generation that does
//! not answer within the timeout is skipped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client;
use super::listening::sockets;
use super::protocol::Status;
use crate::metrics::Ledger;

const COUNTERS: &str = "/counters";
const PATIENCE: Duration = Duration::from_millis(500);

/// Collects the ledgers of the other generations.
#[cfg(feature = "metrics")]
pub(super) async fn gather(dir: &Path) -> Vec<Ledger> {
    let answers = ask_all(dir, Method::GET, COUNTERS, Bytes::new()).await;
    answers.iter().filter_map(|answer| serde_json::from_slice(answer).ok()).collect()
}

/// Returns the ledger of the generation with this pid.
pub(super) async fn of(dir: &Path, pid: u32) -> Option<Ledger> {
    let socket = dir.join(format!("{pid}.sock"));
    let asked = ask(socket, Method::GET, COUNTERS, Bytes::new());
    let answer = timeout(PATIENCE, asked).await.ok().flatten()?;
    serde_json::from_slice(&answer).ok()
}

/// Sends our ledger to the other generations.
pub(super) async fn tell(dir: &Path, ledger: &Ledger) {
    if let Ok(text) = serde_json::to_vec(ledger) {
        ask_all(dir, Method::POST, COUNTERS, text.into()).await;
    }
}

/// Tells the other generations to reopen their log files.
pub(super) async fn reopen(dir: &Path) {
    ask_all(dir, Method::POST, "/reopen", Bytes::new()).await;
}

/// The pids of the generations that are not draining or stopping. To a first generation these are other servers.
pub(super) async fn servers(dir: &Path) -> Vec<u32> {
    let answers = ask_all(dir, Method::GET, "/status", Bytes::new()).await;
    let statuses = answers.iter().filter_map(|answer| serde_json::from_slice::<Status>(answer).ok());
    let serving = statuses.filter(|status| status.phase != "draining" && !status.stopping);
    serving.map(|status| status.pid).collect()
}

/// Sends a request to every other socket at the same time, and returns the bodies of the successful answers.
async fn ask_all(dir: &Path, method: Method, target: &'static str, body: Bytes) -> Vec<Bytes> {
    let others = sockets(dir).into_iter().filter(|(pid, _)| pid.cast_unsigned() != std::process::id());
    let asked =
        others.map(|(_, socket)| timeout(PATIENCE, ask(socket, method.clone(), target, body.clone())));
    let mut asked: JoinSet<_> = asked.collect();
    let mut answers = vec![];
    while let Some(answer) = asked.join_next().await {
        answers.extend(answer.ok().and_then(Result::ok).flatten());
    }
    answers
}

async fn ask(socket: PathBuf, method: Method, target: &'static str, body: Bytes) -> Option<Bytes> {
    let answer = client::ask(&socket, method, target, body).await.ok()?;
    if answer.status.is_success() { answer.bytes().await.ok() } else { None }
}
