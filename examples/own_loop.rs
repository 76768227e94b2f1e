//! An accept loop of one's own around hyper, with everything that `Server` does for connections: nobody is cut off, and
//! the loop ends when the last client has gone.
//!
//! `cargo run --example own_loop`, then Ctrl-C. It has no successor; see `raw_tcp` for a loop of one's own that has.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use handover::{ConnectInfo, Drain};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use tokio::net::TcpListener;

async fn hello(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let who = request.extensions().get::<ConnectInfo>().map(ConnectInfo::remote);
    Ok(Response::new(format!("hello {who:?}\n")))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind(std::env::args().nth(1).as_deref().unwrap_or("127.0.0.1:8080")).await?;
    eprintln!("listening on {}", listener.local_addr()?);
    let drain = Drain::new();
    // Outside of the loop: one that is made anew each time misses a signal that comes together with a connection.
    let mut told = pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, remote) = accepted?;
                tokio::spawn(drain.conn(stream, remote).serve(service_fn(hello)));
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
