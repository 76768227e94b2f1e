//! A program with its own handlers for SIGTERM and SIGINT beside the server's: a handover does not trigger them, a stop does.
//!
//! Run `cargo run --example own_signals`, then `kill -HUP` the pid that it logs, and finally `kill` the pid of the successor.

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
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told_to_stop = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // The server gets the signal as well, and finishes its connections meanwhile.
        let generation = of_status.generation();
        tracing::info!(generation, pid = std::process::id(), "told to stop: the last lines are written");
    });
    let hello = service_fn(move |_: Request<Incoming>| {
        let generation = handle.generation();
        async move { Ok::<_, Infallible>(Response::new(format!("generation={generation} hello\n"))) }
    });
    let outcome = server.serve(hello).await?;
    // After a handover no such signal arrives, so this task would never end.
    if outcome.end == handover::GenerationEnd::Stopped {
        told_to_stop.await?;
    }
    Ok(())
}
