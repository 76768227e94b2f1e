//! What the binary serves: the files of ROOT, or a page that says who answers.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;

use handover::Handle;
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::Service;
use hyper::{Request, Response};
use tower_http::services::ServeDir;
use tower_http::services::fs::ServeFileSystemResponseBody;

#[derive(Debug, Clone)]
pub(crate) struct Site {
    files: Option<ServeDir>,
    handle: Handle,
}

type Body = Either<ServeFileSystemResponseBody, Full<Bytes>>;

impl Site {
    pub(crate) fn new(root: Option<PathBuf>, handle: Handle) -> Site {
        let files = |root| ServeDir::new(root).precompressed_br().precompressed_gzip().precompressed_zstd();
        Site { files: root.map(files), handle }
    }
}

impl Service<Request<Incoming>> for Site {
    type Response = Response<Body>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Response<Body>>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let Some(mut files) = self.files.clone() else {
            let page = page(&request, &self.handle);
            return Box::pin(async { Ok(page.map(Either::Right)) });
        };
        Box::pin(async move { Ok(files.try_call(request).await?.map(Either::Left)) })
    }
}

/// For a browser a page, for anything else (curl) the same in plain text.
fn page(request: &Request<Incoming>, handle: &Handle) -> Response<Full<Bytes>> {
    let (generation, pid) = (handle.generation(), std::process::id());
    let text = format!(
        "handover: generation {generation}, pid {pid}\n\n\
         This server can be replaced without losing a request. Try it:\n\n    \
         kill -HUP {pid}            start a new generation, which takes over\n    \
         handover PATH/TO/FILES     serve a directory instead of this page\n    \
         handover --help            all options\n"
    );
    let accept = request.headers().get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let (kind, body) = if accept.contains("text/html") {
        let style = "color-scheme: light dark; font: 1rem/1.6 system-ui; max-width: 44rem; margin: 15vh auto; padding: 0 1rem";
        let html = format!(
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
             <title>handover</title><body style=\"{style}\"><pre style=\"overflow: auto\">{text}</pre>\n"
        );
        ("text/html; charset=utf-8", html)
    } else {
        ("text/plain; charset=utf-8", text)
    };
    let mut response = Response::new(Full::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // The next answer may come from another generation.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
