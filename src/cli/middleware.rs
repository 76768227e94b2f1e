//! Optional layers around a site: listings, media types, compression, headers and the access log. A server without any of
//! them serves the site directly and does not use this module.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use clap::{ArgAction, Args};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
};
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use tower_http::CompressionLevel;
use tower_http::compression::{Compression, CompressionBody};
use tower_service::Service as _;

use super::access::{AccessLog, Record, Recorded};
use super::config::Tables;
use super::encoders::{Encoders, IsPermitted, Permitted, permitted};
use super::files::{Answer, Body, FileServer};
use super::listing::Listings;

#[derive(Debug, Args)]
pub(crate) struct MiddlewareOptions {
    /// Show the names in a directory without index.html
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", hide_possible_values = true)]
    directory_listing: bool,
    /// Compress text with brotli or gzip on the fly, unless a compressed file lies beside it
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", hide_possible_values = true)]
    compression: bool,
}

/// A level at which both encoders are fast; higher ones hardly make pages smaller.
const LEVEL: CompressionLevel = CompressionLevel::Precise(4);

/// A response body, plain or compressed. The second is boxed, because an encoder is large and every response is moved.
type Sent = Either<Body, Pin<Box<Permitted<CompressionBody<Body>>>>>;
type Compressed = Compression<FilesWithListings, IsPermitted>;

#[derive(Clone)]
pub(crate) struct Middleware {
    found: FilesWithListings,
    compressed: Option<Compressed>,
    headers: Option<Arc<HeaderMap>>,
    access: Option<Arc<AccessLog>>,
}

impl Middleware {
    /// Wraps the site; `None` if no option adds anything.
    pub(crate) fn of(
        site: &FileServer,
        root: Option<PathBuf>,
        options: &MiddlewareOptions,
        tables: Tables,
        access: Option<Arc<AccessLog>>,
    ) -> Option<Middleware> {
        let listed = root.filter(|_| options.directory_listing);
        let plain = listed.is_none() && tables.mime.is_empty() && tables.headers.is_empty();
        if plain && !options.compression && access.is_none() {
            return None;
        }
        let (listings, client) = (listed.map(Listings::of), SocketAddr::from(([0; 4], 0)));
        let found = FilesWithListings {
            site: site.clone(),
            listings,
            mime: Arc::new(tables.mime),
            encoders: None,
            client,
        };
        let encoders = Some(Encoders::default());
        let compressed = options.compression.then(|| {
            let found = FilesWithListings { encoders, ..found.clone() };
            Compression::new(found).quality(LEVEL).compress_when(IsPermitted)
        });
        let headers = Some(tables.headers).filter(|headers| !headers.is_empty()).map(Arc::new);
        Some(Middleware { found, compressed, headers, access })
    }

    /// Returns the same for the connection of this client.
    pub(crate) fn for_client(&self, client: SocketAddr) -> Middleware {
        let mut own = self.clone();
        own.found.client = client;
        if let Some(compressed) = &mut own.compressed {
            compressed.get_mut().client = client;
        }
        own
    }
}

impl Service<Request<Incoming>> for Middleware {
    type Response = Response<Recorded<Sent>>;
    type Error = Infallible;
    type Future = MiddlewareFuture;

    fn call(&self, request: Request<Incoming>) -> MiddlewareFuture {
        let record = self.access.as_ref().map(|log| Record::begin(log, self.found.client, &request));
        let answer = match self.compressed.clone() {
            // A client without Accept-Encoding gets everything uncompressed.
            Some(mut compressed) if request.headers().contains_key(ACCEPT_ENCODING) => {
                PlainOrCompressed::Compressed(Box::pin(compressed.call(request)))
            }
            _ => PlainOrCompressed::Plain(self.found.answer(request)),
        };
        MiddlewareFuture { answer, record, headers: self.headers.clone() }
    }
}

/// Adds headers and the record of the request to a response.
pub(crate) struct MiddlewareFuture {
    answer: PlainOrCompressed,
    record: Option<Record>,
    headers: Option<Arc<HeaderMap>>,
}

/// Boxed for the same reason as [`Sent`].
enum PlainOrCompressed {
    Plain(Answer),
    Compressed(Pin<Box<<Compressed as tower_service::Service<Request<Incoming>>>::Future>>),
}

impl Future for MiddlewareFuture {
    type Output = Result<Response<Recorded<Sent>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let mut response = match &mut this.answer {
            PlainOrCompressed::Plain(answer) => ready!(Pin::new(answer).poll(cx))?.map(Either::Left),
            PlainOrCompressed::Compressed(answer) => {
                let mut response = ready!(answer.as_mut().poll(cx))?;
                let permit = response.extensions_mut().remove().filter(|_| is_compressed(&response));
                weakly_tagged(response).map(|body| Either::Right(Box::pin(Permitted::new(body, permit))))
            }
        };
        for (name, value) in this.headers.iter().flat_map(|headers| &**headers) {
            response.headers_mut().entry(name).or_insert_with(|| value.clone());
        }
        let mut record = this.record.take();
        if let Some(record) = &mut record {
            record.status = Some(response.status());
        }
        Poll::Ready(Ok(response.map(|body| Recorded::new(record, body))))
    }
}

/// Returns whether tower-http has compressed the response: it removes the length.
fn is_compressed<B>(response: &Response<B>) -> bool {
    response.headers().contains_key(CONTENT_ENCODING) && !response.headers().contains_key(CONTENT_LENGTH)
}

/// Makes the ETag weak, because a response that is compressed on the fly does not have the same bytes as the file (RFC 9110,
/// section 8.8.1). The same applies to the tag of a 304, which may be for such a response.
fn weakly_tagged<B>(mut response: Response<B>) -> Response<B> {
    if (is_compressed(&response) || response.status() == StatusCode::NOT_MODIFIED)
        && let Some(tag) = response.headers_mut().get_mut(ETAG)
        && !tag.as_bytes().starts_with(b"W/")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        *tag = weak;
    }
    response
}

/// The site with listings and media types, and with permits for compression if that is on.
#[derive(Debug, Clone)]
struct FilesWithListings {
    site: FileServer,
    listings: Option<Listings>,
    mime: Arc<HashMap<String, HeaderValue>>,
    encoders: Option<Encoders>,
    /// The client of the connection: see [`Middleware::for_client`].
    client: SocketAddr,
}

/// What is needed of a request once its response is there.
struct Asked {
    path: String,
    reads: bool,
}

impl FilesWithListings {
    fn answer(&self, request: Request<Incoming>) -> Answer {
        if self.listings.is_none() && self.mime.is_empty() && self.encoders.is_none() {
            return self.site.call(request);
        }
        let asked = Asked {
            path: request.uri().path().to_owned(),
            reads: matches!(*request.method(), Method::GET | Method::HEAD),
        };
        match self.site.call(request) {
            Answer::Now(Some(response)) if self.listings_for(&asked, &response).is_none() => {
                Answer::now(self.extended(&asked, response))
            }
            answer => {
                let own = self.clone();
                Answer::Later(Box::pin(async move {
                    let Ok(mut response) = answer.await;
                    if let Some(listings) = own.listings_for(&asked, &response)
                        && let Some(page) = listings.page(&asked.path).await
                    {
                        response = page.map(Either::Right);
                    }
                    own.extended(&asked, response)
                }))
            }
        }
    }

    /// Returns the listings if one of them may be the response.
    fn listings_for(&self, asked: &Asked, response: &Response<Body>) -> Option<&Listings> {
        let is_missing = response.status() == StatusCode::NOT_FOUND;
        self.listings.as_ref().filter(|_| is_missing && asked.reads && asked.path.ends_with('/'))
    }

    fn extended(&self, asked: &Asked, mut response: Response<Body>) -> Response<Body> {
        if !self.mime.is_empty()
            && let Some(kind) = extension(&asked.path).and_then(|extension| self.mime.get(&extension))
            && matches!(response.body(), Either::Left(_))
            && let Some(found) = response.headers_mut().get_mut(CONTENT_TYPE)
        {
            *found = kind.clone();
        }
        match &self.encoders {
            Some(encoders) => permitted(response, encoders, self.client),
            None => response,
        }
    }
}

/// Returns the extension of the file that a request path names, in lower case.
fn extension(path: &str) -> Option<String> {
    let name = match path.rsplit('/').next()? {
        "" => "index.html",
        name => name,
    };
    let name = percent_decode_str(name).decode_utf8().ok()?;
    name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase())
}

impl tower_service::Service<Request<Incoming>> for FilesWithListings {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Answer {
        self.answer(request)
    }
}
