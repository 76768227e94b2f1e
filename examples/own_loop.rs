//! A custom accept loop around hyper with a graceful shutdown: `Drain` does for its connections what `Server` does, so no request
//! in flight is cut, and the program ends after the last client has left.
//!
//! Run `cargo run --example own_loop`, then press Ctrl-C. It has no successor; see `raw_tcp` for a custom accept loop with one.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use handover::Drain;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use tokio::net::TcpListener;

async fn hello(_: Request<Incoming>, client: SocketAddr) -> Result<Response<String>, Infallible> {
    Ok(Response::new(format!("hello {client}\n")))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind(std::env::args().nth(1).as_deref().unwrap_or("127.0.0.1:8080")).await?;
    eprintln!("listening on {}", listener.local_addr()?);
    let drain = Drain::new();
    // Created outside of the loop: a new future in each iteration would miss a signal that arrives together with a connection.
    let mut told = pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, remote) = accepted?;
                let service = service_fn(move |request| hello(request, remote));
                tokio::spawn(drain.conn(stream, remote).serve(service));
            }
            told = &mut told => break told?,
        }
    }
    drop(listener);
    drain.lame_duck(Duration::from_secs(5));
    eprintln!("no longer listening");
    let drained = drain.finish(Duration::from_secs(25)).await;
    eprintln!("{} connections finished, {} cut", drained.finished, drained.cut);
    Ok(())
}
