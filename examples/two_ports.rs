//! A public service on one address and an internal one on another, handed over together.
//!
//! Run `cargo run --example two_ports`, in a second terminal `curl localhost:8080` (public) and `curl localhost:8081`
//! (internal: the serving process and its open connections), then `curl -X POST localhost:8081/restart`.

use std::convert::Infallible;

use handover::{ConnectInfo, Handle, Server};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};

#[tokio::main]
async fn main() -> Result<(), handover::Error> {
    tracing_subscriber::fmt().json().flatten_event(true).with_writer(std::io::stderr).init();
    let mut args = std::env::args().skip(1);
    let public = args.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let internal = args.next().unwrap_or_else(|| "127.0.0.1:8081".to_owned());

    let server = Server::bind(&*public).also_bind(&*internal);
    let handle = server.handle();
    server
        .serve_with(move |info| {
            let (info, handle) = (info.clone(), handle.clone());
            service_fn(move |request| answer(request, info.clone(), handle.clone()))
        })
        .await?;
    Ok(())
}

async fn answer(
    request: Request<Incoming>,
    info: ConnectInfo,
    handle: Handle,
) -> Result<Response<String>, Infallible> {
    // `addresses` keeps the order in which the addresses were given. Only ports are compared, because with 0.0.0.0 the local
    // address of a connection is one of many.
    let is_internal = handle.addresses().last().is_some_and(|last| last.port() == info.local().port());
    let text = match (is_internal, request.method(), request.uri().path()) {
        (false, _, _) => "hello".to_owned(),
        (true, &Method::POST, "/restart") => match handle.hand_over().await {
            Ok(mut underway) => match underway.events.outcome().await {
                Ok(handover) => format!("{} serves after {:?}", handover.successor, handover.took),
                Err(failure) => format!("failed: {failure}"),
            },
            Err(failure) => format!("refused: {failure}"),
        },
        (true, _, _) => {
            let open = handle.status().await.map_or(0, |status| status.connections.open);
            format!("pid={} {:?}, {open} connections", std::process::id(), handle.phase())
        }
    };
    Ok(Response::new(format!("generation={} {text}\n", handle.generation())))
}
