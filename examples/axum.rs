//! An axum `Router`, served so that it can be replaced without losing a request.
//!
//! Run `cargo run --example axum`, in a second terminal `curl localhost:8080` and `curl -N localhost:8080/events`, then
//! `kill -HUP` the pid that the server logs: the event stream ends, and the next `curl` is answered by generation 2.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{ConnectInfo, State};
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::{Stream, StreamExt, stream};
use hyper_util::service::TowerToHyperService;
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), handover::Error> {
    tracing_subscriber::fmt().json().flatten_event(true).with_writer(std::io::stderr).init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());

    // Each request gets our `ConnectInfo` and, with the feature `axum`, axum's own.
    let server = handover::Server::bind(&*address).connect_info(true);
    let app = Router::new().route("/", get(hello)).route("/events", get(events)).with_state(server.handle());
    server.serve(TowerToHyperService::new(app)).await?;
    Ok(())
}

async fn hello(
    State(handle): State<handover::Handle>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
) -> String {
    format!("generation={} hello {client}\n", handle.generation())
}

/// Streams events until this generation retires. The client then connects again, to the next generation. A browser reconnects
/// by itself, but waits for seconds before that unless `retry` shortens the wait.
async fn events(
    Extension(info): Extension<handover::ConnectInfo>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut retiring = info.retiring();
    let ticks = stream::unfold(0, |n| async move {
        sleep(Duration::from_millis(200)).await;
        Some((Ok(Event::default().data(format!("{n}"))), n + 1))
    });
    let retry = stream::iter([Ok(Event::default().retry(Duration::from_millis(100)))]);
    Sse::new(retry.chain(ticks.take_until(async move { retiring.wait().await })))
}
