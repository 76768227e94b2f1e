//! The answers of the playground, independent of the server that delivers them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use handover::ConnectInfo;
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::{Interval, interval, sleep};

mod lasting;

/// The header that names the generation where the body does not.
const GENERATION: HeaderName = HeaderName::from_static("generation");

/// Answers a request. `info` is missing under a server without this crate.
pub async fn answer(
    request: Request<Incoming>,
    generation: u64,
    info: Option<ConnectInfo>,
) -> Result<Response<Reply>, Infallible> {
    let number = |name: &str| {
        let query = request.uri().query().unwrap_or_default();
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse::<u64>().ok()).unwrap_or(0)
    };
    let who = || format!("generation={generation} pid={}\n", std::process::id());
    let reply = match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => return Ok(Response::new(Reply::text(who()))),
        (&Method::GET, "/slow") => {
            sleep(Duration::from_millis(number("ms"))).await;
            return Ok(Response::new(Reply::text(who())));
        }
        (&Method::GET, "/addresses") => {
            let Some(info) = info else { return Ok(status(StatusCode::NOT_FOUND)) };
            Reply::text(format!("remote={} local={}\n", info.remote(), info.local()))
        }
        (&Method::GET, "/bytes") => Reply::bytes(number("n")),
        (&Method::GET, "/stream") => Reply::stream(number("n"), Duration::from_millis(number("ms").max(1))),
        (&Method::GET, "/events") => {
            let ms = Some(number("ms")).filter(|ms| *ms > 0).unwrap_or(100);
            return Ok(named(lasting::events(info.as_ref(), Duration::from_millis(ms)), generation));
        }
        (&Method::GET, "/ws") => return Ok(named(lasting::websocket(request, info.as_ref()), generation)),
        (&Method::CONNECT, "/ws") => {
            return Ok(named(lasting::websocket_on_a_stream(request, info.as_ref()), generation));
        }
        (&Method::POST, "/echo") => Reply::Echo(request.into_body()),
        (&Method::POST, "/count") => match request.into_body().collect().await {
            Ok(body) => Reply::text(format!("{} bytes\n", body.to_bytes().len())),
            Err(_) => return Ok(status(StatusCode::BAD_REQUEST)),
        },
        (_, "/" | "/addresses" | "/slow" | "/bytes" | "/stream" | "/events" | "/ws" | "/echo" | "/count") => {
            return Ok(status(StatusCode::METHOD_NOT_ALLOWED));
        }
        _ => return Ok(status(StatusCode::NOT_FOUND)),
    };
    Ok(named(Response::new(reply), generation))
}

fn named(mut response: Response<Reply>, generation: u64) -> Response<Reply> {
    response.headers_mut().insert(GENERATION, HeaderValue::from(generation));
    response
}

fn status(status: StatusCode) -> Response<Reply> {
    let mut response = Response::new(Reply::text(format!("{status}\n")));
    *response.status_mut() = status;
    response
}

/// The response bodies of the playground.
pub enum Reply {
    Text(Option<Bytes>),
    Whole(VecDeque<Bytes>),
    Stream { left: u64, tick: Box<Interval> },
    Events(Box<lasting::Events>),
    Echo(Incoming),
}

impl Reply {
    fn text(text: String) -> Reply {
        Reply::Text(Some(text.into()))
    }

    fn bytes(n: u64) -> Reply {
        const CHUNK: Bytes = Bytes::from_static(&[b'x'; 16 * 1024]);
        let whole = n / CHUNK.len() as u64;
        let rest = (n % CHUNK.len() as u64) as usize;
        Reply::Whole(
            (0..whole).map(|_| CHUNK).chain([CHUNK.slice(..rest)]).filter(|b| !b.is_empty()).collect(),
        )
    }

    fn stream(left: u64, apart: Duration) -> Reply {
        Reply::Stream { left, tick: Box::new(interval(apart)) }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Reply::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Reply::Whole(chunks) => Poll::Ready(chunks.pop_front().map(|chunk| Ok(Frame::data(chunk)))),
            Reply::Stream { left: 0, .. } => Poll::Ready(None),
            Reply::Stream { left, tick } => {
                ready!(tick.poll_tick(cx));
                *left -= 1;
                Poll::Ready(Some(Ok(Frame::data(format!("{left} to go\n").into()))))
            }
            Reply::Events(events) => Pin::new(events).poll_frame(cx),
            Reply::Echo(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Reply::Text(text) => text.is_none(),
            Reply::Whole(chunks) => chunks.is_empty(),
            Reply::Stream { left, .. } => *left == 0,
            Reply::Events(events) => events.is_end_stream(),
            Reply::Echo(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Reply::Text(text) => SizeHint::with_exact(text.iter().map(|t| t.len() as u64).sum()),
            Reply::Whole(chunks) => SizeHint::with_exact(chunks.iter().map(|c| c.len() as u64).sum()),
            Reply::Stream { .. } | Reply::Events(_) => SizeHint::default(),
            Reply::Echo(body) => body.size_hint(),
        }
    }
}
