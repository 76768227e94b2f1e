//! The control interface of one generation: HTTP with JSON, on the generation's own socket in the control directory and on
//! the admin address. Its only state of its own is whether an upgrade is under way; all else comes from the [`Handle`].

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http_body_util::{Either, Full};
use hyper::body::{Bytes, Frame};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tracing::Instrument;

use crate::handle::Handle;

pub mod client;
mod descriptors;
pub mod listening;
mod probe_binary;
pub mod protocol;
pub mod runtime_dir;
mod siblings;
pub mod socket;
mod steps;
mod upgrade;

use crate::error;
use crate::metrics::Metrics;
use crate::report;
use protocol::{LINES, Outcome, Refusal, Reopened, Step, Stopping, from_report};
use steps::{Steps, Until};

pub type Body = Either<Full<Bytes>, Lines>;

/// A response body that is streamed line by line, one JSON line per [`Step`]. It ends when the sender is dropped.
#[derive(Debug)]
pub struct Lines(mpsc::UnboundedReceiver<Step>);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(json_line(&line)))))
    }
}

/// The log files of the program.
pub trait LogFiles: std::fmt::Debug + Send + Sync {
    /// Reopens every log file and returns their paths. A file that cannot be opened stays as it is.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong with a file.
    fn reopen(&self) -> Result<Vec<PathBuf>, String>;
}

/// The way a request came in, which decides the paths it may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The control socket: the client is a process of the same user or of root on this machine.
    Socket,
    /// The admin address: the client has been authorised.
    Admin,
}

#[derive(Debug, Clone)]
pub struct Api {
    handle: Handle,
    metrics: Metrics,
    files: Arc<dyn LogFiles>,
    /// The directory with the control sockets of the other generations, once it is known.
    siblings: Arc<Mutex<Option<PathBuf>>>,
    upgrading: Arc<tokio::sync::Mutex<()>>,
}

impl Api {
    pub fn new(handle: Handle, metrics: Metrics, files: Arc<dyn LogFiles>) -> Api {
        Api { handle, metrics, files, siblings: Arc::default(), upgrading: Arc::default() }
    }

    /// Sets the directory in which the other generations have their control sockets. Without it the totals of the metrics cover
    /// this generation only. Another server may use the same directory, so a successor asks its predecessor for the id
    /// of their service.
    async fn join(&self, dir: PathBuf, predecessor: Option<u32>) {
        let service = match predecessor {
            None => Some(format!("{}-{}", std::process::id(), runtime_dir::random_suffix())),
            Some(pid) => siblings::of(&dir, pid).await.and_then(|ledger| ledger.service),
        };
        if let Some(service) = service {
            self.metrics.set_service(service);
        }
        self.moved(dir);
    }

    /// Sets the directory after the control sockets have moved to another one.
    fn moved(&self, dir: PathBuf) {
        *self.siblings.lock().unwrap_or_else(PoisonError::into_inner) = Some(dir);
    }

    fn siblings(&self) -> Option<PathBuf> {
        self.siblings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells the other generations to reopen their log files.
    pub async fn reopen_others(&self) {
        if let Some(dir) = self.siblings() {
            siblings::reopen(&dir).await;
        }
    }

    /// Passes the counts of this generation, which has left, to the other generations.
    pub async fn leave(&self, outcome: &report::Outcome) {
        let ledger = self.metrics.leave(outcome);
        if let Some(dir) = self.siblings() {
            siblings::tell(&dir, &ledger).await;
        }
    }

    /// Returns when no upgrade is under way.
    pub(crate) async fn idle(&self) {
        drop(self.upgrading.lock().await);
    }

    /// Answers one request. `gave_up` returns whether the client has closed the connection. If it has, no action is started:
    /// after this process was stopped or starved for a while, the client may no longer want the action, or may have asked
    /// another generation for it.
    pub async fn answer(
        &self,
        request: Request<Bytes>,
        via: Via,
        gave_up: impl Fn() -> bool,
    ) -> Response<Body> {
        let lines = accepts(&request, LINES);
        let (method, path) = (request.method(), request.uri().path());
        let allowed: &[Method] = match path {
            "/version" | "/status" | "/metrics" => &[Method::GET],
            "/reload" | "/upgrade" => &[Method::POST],
            "/stop" | "/reopen" if via == Via::Socket => &[Method::POST],
            "/counters" if via == Via::Socket => &[Method::GET, Method::POST],
            _ => {
                let paths = "/version, /status, /metrics, /reload or /upgrade";
                return error(StatusCode::NOT_FOUND, &format!("no such path: try {paths}"));
            }
        };
        if !allowed.contains(method) {
            let allowed = if allowed[0] == Method::GET { "GET" } else { "POST" };
            let mut response = error(StatusCode::METHOD_NOT_ALLOWED, &format!("{path} requires {allowed}"));
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            return response;
        }
        // Counters are merged all the same: they are right whether or not the client still waits.
        if *method == Method::POST && path != "/counters" && gave_up() {
            tracing::info!(path, "request not started: the client has closed the connection");
            return error(StatusCode::REQUEST_TIMEOUT, "the connection was closed, so nothing was started");
        }
        let query = request.uri().query().unwrap_or_default().to_owned();
        let says = |what: &str| query.split('&').any(|q| q == what);
        match path {
            "/version" => reply(StatusCode::OK, &from_report::version()),
            "/status" => match self.handle.status().await {
                Some(status) => reply(StatusCode::OK, &from_report::status(&status, self.metrics.service())),
                None => error(StatusCode::GONE, "this generation has left"),
            },
            "/metrics" => self.metrics(accepts(&request, "application/openmetrics-text")).await,
            "/counters" if *method == Method::GET => reply(StatusCode::OK, &self.metrics.ledger().await),
            "/counters" => match serde_json::from_slice(request.body()) {
                Ok(ledger) => {
                    self.metrics.learn(ledger);
                    reply(StatusCode::OK, &serde_json::Map::new())
                }
                Err(_) => error(StatusCode::BAD_REQUEST, "the body is not the counters of a generation"),
            },
            "/stop" => {
                self.handle.stop();
                if says("now") {
                    self.handle.stop();
                }
                reply(StatusCode::ACCEPTED, &Stopping { stopping: true })
            }
            "/reopen" => self.reopen().await,
            "/upgrade" => {
                let file = query.split('&').find_map(|q| q.strip_prefix("file=")).unwrap_or_default();
                self.upgrade(file.to_owned(), lines).await
            }
            _ => self.reload(lines, if says("wait=drained") { Until::Drained } else { Until::Served }).await,
        }
    }

    /// Reopens the log files of this generation.
    async fn reopen(&self) -> Response<Body> {
        let files = Arc::clone(&self.files);
        match spawn_blocking(move || files.reopen()).await.unwrap_or_else(|panic| Err(panic.to_string())) {
            Ok(opened) => {
                let reopened = opened.iter().map(|path| path.to_string_lossy().into_owned()).collect();
                reply(StatusCode::OK, &Reopened { reopened })
            }
            Err(problem) => error(StatusCode::INTERNAL_SERVER_ERROR, &problem),
        }
    }

    #[cfg(not(feature = "metrics"))]
    async fn metrics(&self, _: bool) -> Response<Body> {
        error(StatusCode::NOT_FOUND, "this program was built without metrics")
    }

    #[cfg(feature = "metrics")]
    async fn metrics(&self, open_metrics: bool) -> Response<Body> {
        if let Some(dir) = self.siblings() {
            siblings::gather(&dir).await.into_iter().for_each(|ledger| self.metrics.learn(ledger));
        }
        let Some(text) = self.metrics.text(open_metrics).await else {
            return error(StatusCode::GONE, "this generation has left");
        };
        let mut response = Response::new(Either::Left(Full::from(text)));
        let of_type = if open_metrics {
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        } else {
            "text/plain; version=0.0.4; charset=utf-8"
        };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(of_type));
        response
    }

    /// Starts a handover, or joins the one under way, and reports its steps up to `until`.
    async fn reload(&self, lines: bool, until: Until) -> Response<Body> {
        let under_way = match self.handle.hand_over().await {
            Ok(under_way) => under_way,
            Err(refused) => return error(StatusCode::CONFLICT, &refused.to_string()),
        };
        let (told, steps) = mpsc::unbounded_channel();
        let mut under_way_steps = Steps::new(under_way.events, until);
        let _ =
            told.send(under_way_steps.timed(Step::named(if under_way.joined { "joined" } else { "asked" })));
        tokio::spawn(async move {
            loop {
                let (step, end) = under_way_steps.next().await;
                // A client that disconnects does not stop the handover.
                if told.send(step).is_err() || end.is_some() {
                    return;
                }
            }
        });
        told_by(steps, lines).await
    }

    /// Replaces the program by `file`, which is in the same directory, and hands over to it.
    async fn upgrade(&self, file: String, lines: bool) -> Response<Body> {
        let Ok(alone) = Arc::clone(&self.upgrading).try_lock_owned() else {
            return error(StatusCode::CONFLICT, "another upgrade is under way");
        };
        let ready = match upgrade::Upgrade::prepare(self.handle.clone(), &file).await {
            Ok(ready) => ready,
            Err((status, reason)) => return error(status, &reason),
        };
        let (told, steps) = mpsc::unbounded_channel();
        // In a separate task: the upgrade is completed or undone even if the client disconnects.
        let upgraded = async move {
            ready.perform(|step| drop(told.send(step))).await;
            drop(alone);
        };
        tokio::spawn(upgraded.in_current_span());
        told_by(steps, lines).await
    }
}

/// Answers with every step as it comes if the client accepts lines, otherwise with the last step.
async fn told_by(mut steps: mpsc::UnboundedReceiver<Step>, lines: bool) -> Response<Body> {
    if lines {
        let mut response = Response::new(Either::Right(Lines(steps)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(LINES));
        return response;
    }
    let mut last = from_report::gone();
    while let Some(step) = steps.recv().await {
        last = step;
    }
    let failed = last.outcome.is_some_and(Outcome::is_failure);
    reply(if failed { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }, &last)
}

/// Serialises a step as one line. This cannot fail because every key is a string.
fn json_line(step: &Step) -> Bytes {
    (serde_json::to_string(step).unwrap_or_default() + "\n").into()
}

fn accepts(request: &Request<Bytes>, media_type: &str) -> bool {
    let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains(media_type))
}

fn reply(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    // Cannot fail because every key is a string and the output goes to memory.
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let mut response = Response::new(Either::Left(Full::from(text + "\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Returns the system's message without Rust's "(os error 98)".
pub fn plain(error: &std::io::Error) -> String {
    error::plain(error)
}

pub fn error(status: StatusCode, reason: &str) -> Response<Body> {
    reply(status, &Refusal { error: reason.to_owned() })
}
