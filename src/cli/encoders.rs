//! Permits to compress. An encoder keeps megabytes until its response has ended, and a client that does not read can delay that
//! end, so encoders are limited per connection and per process. A response without a permit is sent uncompressed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, VARY,
};
use pin_project_lite::pin_project;
use tower_http::compression::predicate::Predicate;

/// Limit of encoders in the process. A brotli encoder takes 2 MiB with its input (measured, at the level used here), a gzip
/// encoder an eighth of that.
const MAX_PER_PROCESS: usize = 48;
/// Limit of encoders for a connection. A page rarely loads more long texts than this at the same time.
const MAX_PER_CONNECTION: usize = 8;
/// Shortest length in bytes to compress; a shorter response fits into one packet uncompressed.
const WORTH_IT: u64 = 1024;

/// The count of encoders in use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Encoders(Arc<Mutex<InUse>>);

#[derive(Debug, Default)]
struct InUse {
    all: usize,
    by: HashMap<SocketAddr, usize>,
}

/// A permit to compress one response. It is an extension of the response first, and moves into its body later.
#[derive(Debug, Clone)]
pub(crate) struct Permit {
    _taken: Arc<PermitGuard>,
}

#[derive(Debug)]
struct PermitGuard {
    encoders: Encoders,
    client: SocketAddr,
}

impl Encoders {
    /// Returns a permit for a response on the connection with this client address, unless a limit is reached.
    pub(crate) fn permit(&self, client: SocketAddr) -> Option<Permit> {
        let mut taken = self.lock();
        if taken.all >= MAX_PER_PROCESS
            || taken.by.get(&client).is_some_and(|number| *number >= MAX_PER_CONNECTION)
        {
            return None;
        }
        taken.all += 1;
        *taken.by.entry(client).or_default() += 1;
        Some(Permit { _taken: Arc::new(PermitGuard { encoders: self.clone(), client }) })
    }

    fn lock(&self) -> MutexGuard<'_, InUse> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PermitGuard {
    fn drop(&mut self) {
        let mut taken = self.encoders.lock();
        taken.all -= 1;
        if let Some(number) = taken.by.get_mut(&self.client) {
            *number -= 1;
            if *number == 0 {
                taken.by.remove(&self.client);
            }
        }
    }
}

/// A predicate for tower-http: compresses exactly the responses that have a permit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IsPermitted;

impl Predicate for IsPermitted {
    fn should_compress<B: Body>(&self, response: &Response<B>) -> bool {
        response.extensions().get::<Permit>().is_some()
    }
}

/// Returns whether the response is text and long enough. Ranges and compressed responses are never compressed.
fn is_worth_it<B: Body>(response: &Response<B>) -> bool {
    let headers = response.headers();
    if headers.contains_key(CONTENT_ENCODING) || headers.contains_key(CONTENT_RANGE) {
        return false;
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // A file has the header, also in the answer to HEAD; a generated page has no such header yet, but an exact body size.
    let length = text(CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let long = length.or(response.body().size_hint().exact()).is_none_or(|length: u64| length >= WORTH_IT);
    let kind = text(CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let is_text = kind.starts_with("text/") || kind.ends_with("+json") || kind.ends_with("+xml");
    let like_text = ["json", "javascript", "xml", "wasm", "toml", "yaml"];
    let is_like_text = kind.strip_prefix("application/").is_some_and(|kind| like_text.contains(&kind));
    long && (is_text || is_like_text)
}

/// Gives the response a permit if it is worth compressing and one is left. If none is left, adds `Vary: Accept-Encoding`, as
/// tower-http does for a compressed response, because the next response may be compressed.
pub(crate) fn permitted<B: Body>(
    mut response: Response<B>,
    encoders: &Encoders,
    client: SocketAddr,
) -> Response<B> {
    if !is_worth_it(&response) {
        return response;
    }
    if let Some(permit) = encoders.permit(client) {
        response.extensions_mut().insert(permit);
        return response;
    }
    let says_so = |vary: &HeaderValue| vary.as_bytes().eq_ignore_ascii_case(b"accept-encoding");
    if !response.headers().get_all(VARY).iter().any(says_so) {
        response.headers_mut().append(VARY, ACCEPT_ENCODING.into());
    }
    response
}

pin_project! {
    /// A response body with its permit, if it is compressed.
    #[derive(Debug)]
    pub(crate) struct Permitted<B> {
        #[pin]
        body: B,
        // Must be the last field: it is dropped after the encoder in `body`.
        permit: Option<Permit>,
    }
}

impl<B> Permitted<B> {
    pub(crate) fn new(body: B, permit: Option<Permit>) -> Permitted<B> {
        Permitted { body, permit }
    }
}

impl<B: Body> Body for Permitted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
