//! Permits to compress. An encoder keeps megabytes for as long as its response lasts, and a client that does not read lets
//! it last, so there are only so many, for a connection and in the process. A response without permit is sent as it is.

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

/// An encoder for brotli takes 2 MiB with what it has read (measured, at the level used here), one for gzip an eighth of it.
const MOST: usize = 48;
/// A page has so many texts at once; more of them are small, or are sent at once.
const FOR_EACH: usize = 8;
/// Less than this fits a packet as it is.
const WORTH_IT: u64 = 1024;

#[derive(Debug, Clone, Default)]
pub(crate) struct Encoders(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<Option<SocketAddr>, usize>,
}

/// An extension of a response that may be compressed, and then a part of it.
#[derive(Debug, Clone)]
pub(crate) struct Permit {
    _taken: Arc<One>,
}

#[derive(Debug)]
struct One {
    encoders: Encoders,
    client: Option<SocketAddr>,
}

impl Encoders {
    /// For a response to this client, as the address of its connection.
    pub(crate) fn permit(&self, client: Option<SocketAddr>) -> Option<Permit> {
        let mut taken = self.lock();
        if taken.all >= MOST || taken.by.get(&client).is_some_and(|number| *number >= FOR_EACH) {
            return None;
        }
        taken.all += 1;
        *taken.by.entry(client).or_default() += 1;
        Some(Permit { _taken: Arc::new(One { encoders: self.clone(), client }) })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for One {
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

/// What has a permit, which only what is worth it has asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IsPermitted;

impl Predicate for IsPermitted {
    fn should_compress<B: Body>(&self, response: &Response<B>) -> bool {
        response.extensions().get::<Permit>().is_some()
    }
}

/// Whether it is text that is long enough. A part of a file is never compressed, nor what is compressed already.
fn is_worth_it<B: Body>(response: &Response<B>) -> bool {
    let headers = response.headers();
    if headers.contains_key(CONTENT_ENCODING) || headers.contains_key(CONTENT_RANGE) {
        return false;
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // Of a file, also when only its head is asked for; the size of a page is not in a header yet.
    let length = text(CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let long = length.or(response.body().size_hint().exact()).is_none_or(|length: u64| length >= WORTH_IT);
    let kind = text(CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let is_text = kind.starts_with("text/") || kind.ends_with("+json") || kind.ends_with("+xml");
    let like_text = ["json", "javascript", "xml", "wasm", "toml", "yaml"];
    let is_like_text = kind.strip_prefix("application/").is_some_and(|kind| like_text.contains(&kind));
    long && (is_text || is_like_text)
}

/// Gives it a permit to be compressed, if it is worth it and there is one. Otherwise says that the next one may be compressed,
/// as tower-http does of one that is.
pub(crate) fn permitted<B: Body>(
    mut response: Response<B>,
    encoders: &Encoders,
    client: Option<SocketAddr>,
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
    /// A response body with the permit that it needs, if it needs one.
    #[derive(Debug)]
    pub(crate) struct Permitted<B> {
        #[pin]
        body: B,
        // Given back after the encoder is gone: fields are dropped in this order.
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
