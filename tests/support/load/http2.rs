//! Clients that speak HTTP/2. A request counts once it is handed to the connection, unless the connection never sends it
//! because GOAWAY arrived first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use h2::client::SendRequest;
use hyper::body::Bytes;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::target::{Arriving, GENERATION, Targets};
use super::{AFTER_A_FAILURE, PATIENCE, Report, Shared, about};

const NOT_SENT: &str = "not sent";

/// The flow-control window of a stream, and of a connection. With the 64 KiB of h2 large files would wait for the client.
const WINDOW: u32 = 1 << 20;

/// Opens one connection after another, each with `streams` parallel sequences of requests and pauses.
pub(super) async fn client(
    addr: SocketAddr,
    streams: usize,
    pause: Duration,
    targets: Targets,
    shared: Arc<Shared>,
) -> Report {
    let mut report = Report::default();
    while !shared.stop.load(Ordering::Relaxed) {
        let at = Instant::now();
        let connected = async {
            let stream = TcpStream::connect(addr).await.map_err(|_| "cannot connect")?;
            stream.set_nodelay(true).map_err(|_| "cannot connect")?;
            let mut builder = h2::client::Builder::new();
            builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
            builder.handshake(stream).await.map_err(|_| "no HTTP/2")
        };
        match connected.await {
            Ok((requests, connection)) => {
                let connection = tokio::spawn(connection);
                // Only one stream may count this client as answered.
                let is_first = report.samples.is_empty();
                let stream = |n| {
                    let (targets, shared) = (Arc::clone(&targets), Arc::clone(&shared));
                    stream(requests.clone(), addr, pause, targets, shared, is_first && n == 0)
                };
                let all: JoinSet<Report> = (0..streams).map(stream).collect();
                drop(requests);
                all.join_all().await.into_iter().for_each(|one| report.add(one));
                // All streams have ended and all handles are dropped, so the client closes the connection.
                let _ = timeout(PATIENCE, connection).await;
            }
            Err(kind) => {
                shared.note(&mut report, at, Err(kind));
                sleep(AFTER_A_FAILURE).await;
            }
        }
    }
    report
}

/// Sends one request after another. `counts`: the first answer counts the client as answered.
async fn stream(
    mut requests: SendRequest<Bytes>,
    addr: SocketAddr,
    pause: Duration,
    targets: Targets,
    shared: Arc<Shared>,
    counts: bool,
) -> Report {
    let mut report = Report::default();
    while !shared.stop.load(Ordering::Relaxed) {
        // The server has sent GOAWAY before this request was sent.
        let Ok(mut ready) = requests.ready().await else { break };
        let target = targets();
        let at = Instant::now();
        let url = format!("http://{addr}{}", target.path());
        let request = hyper::Request::get(url).body(()).expect("a request");
        let Ok((response, _)) = ready.send_request(request, true) else { break };
        let answered = timeout(PATIENCE, async {
            let response = response.await.map_err(|e| match e.is_go_away() && e.is_remote() {
                // GOAWAY arrived before the connection had sent the request.
                true if e.reason() == Some(h2::Reason::NO_ERROR) => NOT_SENT,
                _ => "reset before the answer",
            })?;
            if response.status() != 200 {
                return Err("status other than 200");
            }
            let named = response.headers().get(GENERATION);
            let named = named.and_then(|who| who.to_str().ok()?.parse().ok());
            let (mut body, mut arriving) = (response.into_body(), Arriving::of(&target));
            while let Some(chunk) = body.data().await {
                let chunk = chunk.map_err(|_| "cut within the answer")?;
                arriving.take(&chunk)?;
                let _ = body.flow_control().release_capacity(chunk.len());
            }
            arriving.end(named)
        });
        match answered.await.unwrap_or(Err("timeout")) {
            Err(NOT_SENT) => break,
            came if counts => shared.note(&mut report, at, came),
            came => shared.note_beside(&mut report, at, came),
        }
        requests = ready;
        if pause > Duration::ZERO {
            sleep(about(pause)).await;
        }
    }
    report
}
