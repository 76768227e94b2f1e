//! HTTP client for one request to one control socket.

use std::io;
use std::path::Path;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::handshake;
use hyper::header::{ACCEPT, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::protocol::LINES;

/// The size limit of a body that is read as a whole: enough for the counters of 64 generations with every HTTP status.
pub(super) const MOST_BYTES: usize = 4 << 20;

/// A response whose head has arrived.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    body: Incoming,
    /// Bytes that have been received and not returned yet: the beginning of a line.
    line: Vec<u8>,
}

/// Sends a request and waits for the head of the response.
pub async fn ask(socket: &Path, method: Method, target: &str, body: Bytes) -> io::Result<Answer> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // The task ends when the response is complete or dropped.
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(target).header(HOST, "localhost");
    let request = request.header(ACCEPT, LINES).body(Full::new(body)).map_err(io::Error::other)?;
    let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
    Ok(Answer { status: head.status, body, line: vec![] })
}

impl Answer {
    /// Reads the whole body.
    pub async fn bytes(self) -> io::Result<Bytes> {
        let body = Limited::new(self.body, MOST_BYTES).collect().await;
        body.map(|body| body.to_bytes()).map_err(io::Error::other)
    }

    /// Returns the next line, or `None` at the end of the body, which comes early if the server dies.
    pub async fn line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                let rest = self.line.split_off(end + 1);
                return Some(std::mem::replace(&mut self.line, rest));
            }
            let frame = self.body.frame().await?.ok()?;
            self.line.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
    }
}

/// Maps the error of a server that dies before it answers to `UnexpectedEof`, as if it had closed its socket.
fn broken(error: hyper::Error) -> io::Error {
    let kind =
        if error.is_incomplete_message() { io::ErrorKind::UnexpectedEof } else { io::ErrorKind::Other };
    io::Error::new(kind, error)
}
