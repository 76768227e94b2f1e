//! What one generation answers to whoever operates it: HTTP with JSON, on its own socket in the control directory and on
//! the admin address. It holds no state but the handle of its generation.

use std::convert::Infallible;
use std::time::Instant;

use handover::{Event, Events, Handle};
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

mod describe;

use super::metrics::{Metrics, siblings};

pub(crate) type Body = Either<Full<Bytes>, Channel<Bytes, Infallible>>;

/// The type of an answer that comes line by line.
pub(crate) const LINES: &str = "application/x-ndjson";

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// The same user, on this machine.
    Socket,
    /// Whoever may use the admin address.
    Admin,
}

#[derive(Debug, Clone)]
pub(crate) struct Api {
    handle: Handle,
    metrics: Metrics,
}

impl Api {
    pub(crate) fn new(handle: Handle, metrics: Metrics) -> Api {
        Api { handle, metrics }
    }

    pub(crate) async fn answer(&self, request: Request<Incoming>, via: Via) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let allowed = match &*path {
            "/version" | "/status" | "/metrics" => Method::GET,
            "/reload" => Method::POST,
            "/stop" if via == Via::Socket => Method::POST,
            "/counters" if via == Via::Socket && *request.method() == Method::POST => Method::POST,
            "/counters" if via == Via::Socket => Method::GET,
            _ => {
                let paths = "/version, /status, /metrics or /reload";
                return error(StatusCode::NOT_FOUND, &format!("no such path: try {paths}"));
            }
        };
        if *request.method() != allowed {
            let mut response = error(StatusCode::METHOD_NOT_ALLOWED, &format!("{path} wants {allowed}"));
            response.headers_mut().insert(
                ALLOW,
                HeaderValue::from_static(match allowed {
                    Method::GET => "GET",
                    _ => "POST",
                }),
            );
            return response;
        }
        let says =
            |what: &str| request.uri().query().is_some_and(|query| query.split('&').any(|q| q == what));
        match &*path {
            "/version" => reply(StatusCode::OK, &describe::version()),
            "/status" => match self.handle.status().await {
                Some(status) => reply(StatusCode::OK, &describe::status(&status)),
                None => error(StatusCode::SERVICE_UNAVAILABLE, "this generation has left"),
            },
            "/metrics" => self.metrics(&request).await,
            "/counters" if allowed == Method::GET => {
                let ledger = serde_json::to_value(self.metrics.ledger().await);
                reply(StatusCode::OK, &ledger.unwrap_or_default())
            }
            "/counters" => self.learn(request).await,
            "/stop" => {
                self.handle.stop();
                if says("now") {
                    self.handle.stop();
                }
                reply(StatusCode::ACCEPTED, &json!({ "stopping": true }))
            }
            _ => self.reload(wants_lines(&request), says("wait=drained")).await,
        }
    }

    async fn metrics(&self, request: &Request<Incoming>) -> Response<Body> {
        let accepts =
            request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        let open_metrics = accepts.contains("application/openmetrics-text");
        let Some(text) = self.metrics.text(open_metrics).await else {
            return error(StatusCode::SERVICE_UNAVAILABLE, "this generation has left");
        };
        let mut response = Response::new(Either::Left(Full::from(text)));
        response.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static(match open_metrics {
                true => "application/openmetrics-text; version=1.0.0; charset=utf-8",
                false => "text/plain; version=0.0.4; charset=utf-8",
            }),
        );
        response
    }

    /// Another generation leaves and says what it counted.
    async fn learn(&self, request: Request<Incoming>) -> Response<Body> {
        let body = Limited::new(request.into_body(), siblings::MOST_BYTES).collect().await;
        match body.ok().and_then(|body| serde_json::from_slice(&body.to_bytes()).ok()) {
            Some(ledger) => {
                self.metrics.learn(ledger);
                reply(StatusCode::OK, &json!({}))
            }
            None => error(StatusCode::BAD_REQUEST, "these are no counters of a generation"),
        }
    }

    /// Restarts and waits for what comes of it: as lines while it happens, or as one answer.
    async fn reload(&self, lines: bool, until_drained: bool) -> Response<Body> {
        let under_way = match self.handle.hand_over().await {
            Ok(under_way) => under_way,
            Err(refused) => return error(StatusCode::CONFLICT, &refused.to_string()),
        };
        let steps =
            Steps { events: under_way.events, began: Instant::now(), until_drained, handed_over: false };
        if lines {
            let (sender, body) = Channel::new(64);
            tokio::spawn(steps.send(under_way.joined, sender));
            let mut response = Response::new(Either::Right(body));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(LINES));
            return response;
        }
        let (succeeded, last) = steps.last().await;
        reply(if succeeded { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }, &last)
    }
}

/// The steps of a handover.
struct Steps {
    events: Events,
    began: Instant,
    until_drained: bool,
    handed_over: bool,
}

impl Steps {
    /// The next step; and once it is over, whether the handover succeeded.
    async fn next(&mut self) -> (Value, Option<bool>) {
        loop {
            let Some(event) = self.events.next().await else {
                return (self.timed(describe::gone()), Some(false));
            };
            let end = match &event {
                Event::HandedOver(_) => {
                    self.handed_over = true;
                    (!self.until_drained).then_some(true)
                }
                Event::HandoverFailed(_) | Event::ServesAgain(_) => Some(false),
                Event::Stopping if !self.handed_over => Some(false),
                Event::Left(_) => Some(self.handed_over),
                _ => None,
            };
            if let Some(step) = describe::step(&event) {
                return (self.timed(step), end);
            }
        }
    }

    fn timed(&self, mut step: Value) -> Value {
        step["after_ms"] = json!((self.began.elapsed().as_secs_f64() * 1e6).round() / 1e3);
        step
    }

    async fn last(mut self) -> (bool, Value) {
        loop {
            if let (step, Some(succeeded)) = self.next().await {
                return (succeeded, step);
            }
        }
    }

    /// Whoever asked may be gone; the handover goes on all the same.
    async fn send(mut self, joined: bool, mut sender: Sender<Bytes, Infallible>) {
        let first = if joined { "joined" } else { "asked" };
        let mut step = self.timed(json!({ "step": first }));
        let mut end = None;
        while sender.send_data(format!("{step}\n").into()).await.is_ok() && end.is_none() {
            (step, end) = self.next().await;
        }
    }
}

fn wants_lines(request: &Request<Incoming>) -> bool {
    request.headers().get(ACCEPT).is_some_and(|accept| accept == LINES)
}

pub(crate) fn reply(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::from(format!("{value:#}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(crate) fn error(status: StatusCode, reason: &str) -> Response<Body> {
    reply(status, &json!({ "error": reason }))
}
