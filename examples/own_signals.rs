//! A program with a handler of its own for SIGTERM, beside that of the server: a handover means nothing to it, a stop does.
//!
//! `cargo run --example own_signals`, then `kill -HUP` the pid it logs, and last of all `kill`.

use std::convert::Infallible;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().json().flatten_event(true).with_writer(std::io::stderr).init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let server = handover::Server::bind(&*address);
    let (handle, of_status) = (server.handle(), server.handle());
    let mut told_to_stop = signal(SignalKind::terminate())?;
    let hello = service_fn(move |_: Request<Incoming>| {
        let generation = handle.generation();
        async move { Ok::<_, Infallible>(Response::new(format!("generation={generation} hello\n"))) }
    });
    let mut served = std::pin::pin!(server.serve(hello));
    tokio::select! {
        outcome = &mut served => drop(outcome?),
        _ = told_to_stop.recv() => {
            let generation = of_status.generation();
            tracing::info!(generation, pid = std::process::id(), "told to stop: the last lines are written");
            // The server has heard it as well, and finishes its connections. To drop it here would cut them.
            served.await?;
        }
    }
    Ok(())
}
