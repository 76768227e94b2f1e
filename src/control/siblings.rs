//! The other generations of the same server, by their sockets in the control directory: what they counted, and what they are
//! told. One that does not answer in time is not waited for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::listening::sockets;
use super::protocol::Status;
use crate::metrics::Ledger;

const COUNTERS: &str = "/counters";
const PATIENCE: Duration = Duration::from_millis(500);
/// More than 64 generations with every status there is.
pub(super) const MOST_BYTES: usize = 4 << 20;

/// What the others know.
#[cfg(feature = "metrics")]
pub(super) async fn gather(dir: &Path) -> Vec<Ledger> {
    let answers = ask_all(dir, Method::GET, COUNTERS, Bytes::new()).await;
    answers.iter().filter_map(|answer| serde_json::from_slice(answer).ok()).collect()
}

/// What this one knows.
pub(super) async fn of(dir: &Path, pid: u32) -> Option<Ledger> {
    let socket = dir.join(format!("{pid}.sock"));
    let asked = ask(socket, Method::GET, COUNTERS, Bytes::new());
    let answer = timeout(PATIENCE, asked).await.ok().flatten()?;
    serde_json::from_slice(&answer).ok()
}

/// Has the others know this.
pub(super) async fn tell(dir: &Path, ledger: &Ledger) {
    if let Ok(text) = serde_json::to_vec(ledger) {
        ask_all(dir, Method::POST, COUNTERS, text.into()).await;
    }
}

/// Has the others open their log files anew.
pub(super) async fn reopen(dir: &Path) {
    ask_all(dir, Method::POST, "/reopen", Bytes::new()).await;
}

/// The pids of those that serve, or will: for a first generation, other servers.
pub(super) async fn servers(dir: &Path) -> Vec<u32> {
    let answers = ask_all(dir, Method::GET, "/status", Bytes::new()).await;
    let statuses = answers.iter().filter_map(|answer| serde_json::from_slice::<Status>(answer).ok());
    let serving = statuses.filter(|status| status.phase != "draining" && !status.stopping);
    serving.map(|status| status.pid).collect()
}

/// Has the others do this.
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

async fn ask(socket: PathBuf, method: Method, target: &str, body: Bytes) -> Option<Bytes> {
    let stream = UnixStream::connect(socket).await.ok()?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
    let request = Request::builder().method(method).uri(target).header("host", "localhost");
    let answered = sender.send_request(request.body(Full::new(body)).ok()?);
    let answer = async {
        let response = answered.await.ok().filter(|response| response.status().is_success())?;
        Some(Limited::new(response.into_body(), MOST_BYTES).collect().await.ok()?.to_bytes())
    };
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}
