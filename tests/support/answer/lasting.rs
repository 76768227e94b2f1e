//! Exchanges without a natural end: server-sent events and a WebSocket. A drain waits for both, so the server ends each once
//! its generation retires. Under a server without [`ConnectInfo`] that signal never comes.

use std::future::pending;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use handover::ConnectInfo;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::ext::Protocol;
use hyper::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::time::{Interval, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use super::{Reply, status};

/// How long a WebSocket client may take to answer our close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Completes when the generation that serves this request retires.
fn retiring(info: Option<&ConnectInfo>) -> impl Future<Output = ()> + Send + use<> {
    let retiring = info.map(ConnectInfo::retiring);
    async {
        match retiring {
            Some(mut retiring) => retiring.wait().await,
            None => pending().await,
        }
    }
}

pub(super) fn events(info: Option<&ConnectInfo>, apart: Duration) -> Response<Reply> {
    let events = Events { next: Some(0), tick: interval(apart), retiring: Box::pin(retiring(info)) };
    let mut response = Response::new(Reply::Events(Box::new(events)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A body of numbered events that ends when its generation retires.
pub struct Events {
    /// The number of the next event; `None` after the last one.
    next: Option<u64>,
    tick: Interval,
    retiring: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Body for Events {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(n) = self.next else { return Poll::Ready(None) };
        let event = if self.retiring.as_mut().poll(cx).is_ready() {
            self.next = None;
            // A browser reconnects by itself, by default only after some seconds in which it would see no events. The
            // successor serves already, so `retry` shortens that time.
            Bytes::from_static(b"retry: 100\nevent: retiring\ndata: bye\n\n")
        } else {
            ready!(self.tick.poll_tick(cx));
            self.next = Some(n + 1);
            format!("data: {n}\n\n").into()
        };
        Poll::Ready(Some(Ok(Frame::data(event))))
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none()
    }
}

/// Answers the opening handshake (RFC 6455, section 4.2) and leaves the connection to a task that echoes messages.
pub(super) fn websocket(request: Request<Incoming>, info: Option<&ConnectInfo>) -> Response<Reply> {
    let headers = request.headers();
    let asks = request.version() == Version::HTTP_11
        && has_token(headers, CONNECTION, "upgrade")
        && has_token(headers, UPGRADE, "websocket")
        && headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    if !asks {
        let mut response = upgrade(status(StatusCode::UPGRADE_REQUIRED));
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return response;
    }
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY) else { return status(StatusCode::BAD_REQUEST) };
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).expect("base64 is a header value");

    begin(request, info);
    let mut response = upgrade(Response::new(Reply::Text(None)));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// Answers the opening handshake of a WebSocket on a stream of HTTP/2 (RFC 8441, section 5).
pub(super) fn websocket_on_a_stream(
    request: Request<Incoming>,
    info: Option<&ConnectInfo>,
) -> Response<Reply> {
    let protocol = request.extensions().get::<Protocol>();
    if protocol.is_none_or(|protocol| protocol.as_str() != "websocket") {
        return status(StatusCode::BAD_REQUEST);
    }
    begin(request, info);
    Response::new(Reply::Text(None))
}

/// Leaves the connection or the stream to a task once the answer is sent.
fn begin(request: Request<Incoming>, info: Option<&ConnectInfo>) {
    let retiring = retiring(info);
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        // An error means that the client left before the answer.
        if let Ok(upgraded) = upgraded.await {
            let io = TokioIo::new(upgraded);
            converse(WebSocketStream::from_raw_socket(io, Role::Server, None).await, retiring).await;
        }
    });
}

fn upgrade(mut response: Response<Reply>) -> Response<Reply> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let values = headers.get_all(name);
    let mut tokens = values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    tokens.any(|t| t.trim().eq_ignore_ascii_case(token))
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

async fn converse(mut socket: Socket, retiring: impl Future<Output = ()>) {
    // An echo that is cancelled halfway stays in the socket's buffer, and is sent before the close frame.
    tokio::select! {
        () = echo(&mut socket) => return,
        () = pin!(retiring) => {}
    }
    let away = CloseFrame { code: CloseCode::Away, reason: "retiring".into() };
    let _ = timeout(CLOSE_TIMEOUT, async {
        socket.send(Message::Close(Some(away))).await?;
        // Ends with the client's close frame. Messages before that came too late.
        while socket.next().await.transpose()?.is_some() {}
        Ok::<(), tokio_tungstenite::tungstenite::Error>(())
    })
    .await;
}

/// Echoes messages until the client closes or leaves. The socket itself answers pings and close frames.
async fn echo(socket: &mut Socket) {
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}
