//! A WebSocket that echoes. A WebSocket does not end by itself like a request, so a retiring generation closes it with 1001
//! (going away), and its client connects again, to the next generation.
//!
//! Run `cargo run --example websocket`, in a second terminal `websocat ws://localhost:8080` (or any other client), then
//! `kill -HUP` the pid that the server logs.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use handover::{Handle, Retiring, Server};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message};

#[tokio::main]
async fn main() -> Result<(), handover::Error> {
    tracing_subscriber::fmt().json().flatten_event(true).with_writer(std::io::stderr).init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let server = Server::bind(&*address);
    let handle = server.handle();
    server
        .serve_with(move |info| {
            let (handle, retiring) = (handle.clone(), info.retiring());
            service_fn(move |request| answer(request, handle.clone(), retiring.clone()))
        })
        .await?;
    Ok(())
}

async fn answer(
    mut request: Request<Incoming>,
    handle: Handle,
    retiring: Retiring,
) -> Result<Response<String>, Infallible> {
    let Ok(response) = create_response_with_body(&request, String::new) else {
        let mut plain = Response::new(format!("generation={} speaks WebSocket\n", handle.generation()));
        *plain.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return Ok(plain);
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        if let Err(error) = echo(socket, retiring).await {
            tracing::debug!(%error, "a WebSocket ended early");
        }
    });
    Ok(response)
}

async fn echo<S>(mut socket: WebSocketStream<S>, mut retiring: Retiring) -> Result<(), Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    loop {
        tokio::select! {
            message = socket.next() => match message.transpose()? {
                Some(message @ (Message::Text(_) | Message::Binary(_))) => socket.send(message).await?,
                Some(_) => {} // The socket itself answers pings and closes.
                None => return Ok(()),
            },
            () = retiring.wait() => break,
        }
    }
    socket
        .send(Message::Close(Some(CloseFrame { code: CloseCode::Away, reason: "retiring".into() })))
        .await?;
    // Ends with the close of the client. Messages that it sent before it received ours are not answered; it has to send them to
    // the next generation.
    let _ = timeout(Duration::from_secs(5), async { while let Some(Ok(_)) = socket.next().await {} }).await;
    Ok(())
}
