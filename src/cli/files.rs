//! The site of the binary: the files of ROOT, or a page that names the answering generation.

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use handover::Handle;
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode};
use rustix::io::Errno;

use super::static_files::{FileBody, StaticFiles};

#[derive(Debug, Clone)]
pub(crate) struct FileServer {
    files: Option<StaticFiles>,
    probes: bool,
    handle: Handle,
}

/// A generated page.
pub(crate) type Page = Full<Bytes>;
pub(crate) type Body = Either<FileBody, Page>;

impl FileServer {
    pub(crate) fn new(root: Option<PathBuf>, probes: bool, handle: Handle) -> FileServer {
        FileServer { files: root.map(StaticFiles::new), probes, handle }
    }
}

impl FileServer {
    /// Answers a probe. A retiring generation still answers 200, because its successor serves the address; only a stop makes
    /// `/readyz` fail.
    fn probe(&self, request: &Request<Incoming>) -> Option<Response<Page>> {
        if !self.probes || !matches!(*request.method(), Method::GET | Method::HEAD) {
            return None;
        }
        let (status, text) = match request.uri().path() {
            "/readyz" if self.handle.is_stopping() => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            "/healthz" | "/readyz" => (StatusCode::OK, "ok\n"),
            _ => return None,
        };
        let mut response = plain(text.to_owned());
        *response.status_mut() = status;
        Some(response)
    }
}

impl Service<Request<Incoming>> for FileServer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        if let Some(probe) = self.probe(&request) {
            return Answer::now(probe.map(Either::Right));
        }
        let Some(files) = &self.files else {
            return Answer::now(page(&request, &self.handle).map(Either::Right));
        };
        // A target such as `GET name`: only CONNECT may use the authority form (RFC 9112, section 3.2.3).
        if request.uri().path().is_empty() && matches!(*request.method(), Method::GET | Method::HEAD) {
            return Answer::now(status(StatusCode::BAD_REQUEST));
        }
        let (head, _) = request.into_parts();
        match files.answer(&head) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let later = files.clone().answer_later(head);
                Answer::Later(Box::pin(async move { response(later.await) }))
            }
            found => Answer::now(response(found)),
        }
    }
}

/// The future of a response, which is usually there at once.
pub(crate) enum Answer {
    Now(Option<Response<Body>>),
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

impl Answer {
    pub(crate) fn now(response: Response<Body>) -> Answer {
        Answer::Now(Some(response))
    }
}

impl Future for Answer {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Answer::Now(response) => Poll::Ready(Ok(response.take().expect("a future is polled once"))),
            Answer::Later(later) => later.as_mut().poll(cx).map(Ok),
        }
    }
}

fn response(found: io::Result<Response<FileBody>>) -> Response<Body> {
    found.map_or_else(|error| status(status_of(&error)), |response| response.map(Either::Left))
}

/// Returns the page without ROOT: HTML for a browser, plain text for other clients such as curl.
fn page(request: &Request<Incoming>, handle: &Handle) -> Response<Page> {
    let (generation, pid) = (handle.generation(), std::process::id());
    let text = format!(
        "handover: generation {generation}, pid {pid}\n\n\
         This server can be replaced without losing a request. Try it:\n\n    \
         kill -HUP {pid}            start a new generation, which takes over\n    \
         handover PATH/TO/FILES     serve a directory instead of this page\n    \
         handover --help            all options\n"
    );
    let accept = request.headers().get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !accept.contains("text/html") {
        return plain(text);
    }

    let style = "color-scheme: light dark; font: 1rem/1.6 system-ui; max-width: 44rem; margin: 15vh auto; padding: 0 1rem";
    let html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>handover</title><body style=\"{style}\"><pre style=\"overflow: auto\">{text}</pre>\n"
    );
    uncached(html, "text/html; charset=utf-8")
}

/// Returns 404 for a name that no file has or can have, and 500 for every other error.
fn status_of(error: &io::Error) -> StatusCode {
    use ErrorKind::{InvalidFilename, NotADirectory, NotFound, PermissionDenied};
    match error.kind() {
        NotFound | PermissionDenied | NotADirectory | InvalidFilename => StatusCode::NOT_FOUND,
        _ if Errno::from_io_error(error) == Some(Errno::LOOP) => StatusCode::NOT_FOUND,
        _ => {
            tracing::debug!(%error, "cannot read a file");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Either::Right(Full::default()));
    *response.status_mut() = status;
    response
}

fn plain(text: String) -> Response<Page> {
    uncached(text, "text/plain; charset=utf-8")
}

/// Returns a page with `Cache-Control: no-store`, because the next answer may come from another generation.
pub(crate) fn uncached(body: impl Into<Bytes>, kind: &'static str) -> Response<Page> {
    let mut response = Response::new(Full::new(body.into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
