//! The smallest server that can be replaced without losing a request.
//!
//! `cargo run --example embed`, then `kill -HUP` the pid that it logs.

use std::convert::Infallible;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};

async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> {
    Ok(Response::new(format!("hello from {}\n", std::process::id())))
}

#[tokio::main]
async fn main() -> Result<(), handover::Error> {
    tracing_subscriber::fmt().json().flatten_event(true).with_writer(std::io::stderr).init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    handover::Server::bind(&*address).serve(service_fn(hello)).await?;
    Ok(())
}
