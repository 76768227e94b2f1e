//! Clients that talk over a WebSocket until the server closes it with a close frame, and then open the next.
//!
//! A server may send nothing after its close frame (RFC 6455, section 5.5.1), so a message that crosses the close frame is
//! neither answered nor processed: the client repeats it on the next WebSocket, and it counts from when it was first sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::exchange::{Stream, broken, connect};
use super::{AFTER_A_FAILURE, PATIENCE, Report, Shared, about};

const WITHOUT_CLOSE_FRAME: &str = "closed without a close frame";

struct Open {
    socket: WebSocketStream<Box<dyn Stream>>,
    generation: u64,
}

pub(super) async fn client(
    tls: Option<TlsConnector>,
    addr: SocketAddr,
    pause: Duration,
    shared: Arc<Shared>,
) -> Report {
    let mut report = Report::default();
    let mut kept = None;
    while !shared.stop.load(Ordering::Relaxed) {
        let at = Instant::now();
        let said = format!("message {}", report.samples.len());
        let mut came = within_patience(exchange(tls.as_ref(), addr, &mut kept, &said)).await;
        shared.note(&mut report, at, came);
        if came.is_ok()
            && let Err(kind) = listen(&mut kept, about(pause)).await
        {
            came = Err(kind);
            shared.note(&mut report, at, came);
        }
        if came.is_err() {
            kept = None;
            sleep(AFTER_A_FAILURE).await;
        }
    }
    if let Some(mut open) = kept {
        let at = Instant::now();
        let goodbye = async {
            let _ = open.socket.close(None).await;
            open.ended().await
        };
        if let Err(kind) = within_patience(goodbye).await {
            shared.note(&mut report, at, Err(kind));
        }
    }
    report
}

async fn within_patience<T>(what: impl Future<Output = Result<T, &'static str>>) -> Result<T, &'static str> {
    timeout(PATIENCE, what).await.unwrap_or(Err("timeout"))
}

/// Sends one message and reads its echo; returns the generation that answered.
async fn exchange(
    tls: Option<&TlsConnector>,
    addr: SocketAddr,
    kept: &mut Option<Open>,
    said: &str,
) -> Result<u64, &'static str> {
    loop {
        let mut open = match kept.take() {
            Some(open) => open,
            None => Open::to(tls, addr).await?,
        };
        // If sending fails, reading gives the reason.
        let _ = open.socket.send(Message::text(said)).await;
        match open.socket.next().await {
            Some(Ok(Message::Close(why))) => open.closed(why).await?,
            Some(Ok(Message::Text(heard))) if heard.as_str() == said => {
                let generation = open.generation;
                *kept = Some(open);
                return Ok(generation);
            }
            other => return Err(unexpected(other)),
        }
    }
}

/// Pauses. During the pause only a close frame may arrive.
async fn listen(kept: &mut Option<Open>, time: Duration) -> Result<(), &'static str> {
    let Some(open) = kept else { return Ok(()) };
    match timeout(time, open.socket.next()).await {
        Err(_) => Ok(()),
        Ok(Some(Ok(Message::Close(why)))) => {
            let open = kept.take().expect("it was checked above");
            within_patience(open.closed(why)).await
        }
        Ok(other) => Err(unexpected(other)),
    }
}

impl Open {
    async fn to(tls: Option<&TlsConnector>, addr: SocketAddr) -> Result<Open, &'static str> {
        let stream = connect(tls, addr).await?;
        let shaken = client_async(format!("ws://{addr}/ws"), stream).await;
        let (socket, response) = shaken.map_err(|e| match e {
            Error::Http(_) => "status other than 101",
            Error::Protocol(ProtocolError::HandshakeIncomplete) => "closed before the answer",
            e => failure(&e),
        })?;
        let who = response.headers().get("generation").and_then(|who| who.to_str().ok()?.parse().ok());
        Ok(Open { socket, generation: who.ok_or("bad answer")? })
    }

    /// Answers the server's close frame.
    async fn closed(mut self, why: Option<CloseFrame>) -> Result<(), &'static str> {
        if why.is_none_or(|why| why.code != CloseCode::Away) {
            return Err("closed with a code other than 1001");
        }
        self.ended().await
    }

    /// Waits until the server closes the connection, after both close frames.
    async fn ended(&mut self) -> Result<(), &'static str> {
        while let Some(last) = self.socket.next().await {
            last.map_err(|_| "not closed properly after the close frame")?;
        }
        Ok(())
    }
}

fn unexpected(came: Option<Result<Message, Error>>) -> &'static str {
    match came {
        Some(Ok(_)) => "wrong message",
        Some(Err(e)) => failure(&e),
        None => WITHOUT_CLOSE_FRAME,
    }
}

fn failure(error: &Error) -> &'static str {
    match error {
        Error::Io(e) => broken(e, "reset before the answer"),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => WITHOUT_CLOSE_FRAME,
        _ => "bad answer",
    }
}
