//! Wraps the service of one connection: counts requests in flight, and adds `Connection: close` on a lame duck.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue};
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode, Version};
use pin_project_lite::pin_project;

use super::requests::{ConnectInfo, InFlight, Protocol, Requests};

/// Wraps the application's service for one connection.
#[derive(Debug)]
pub(super) struct Tracked<S> {
    service: S,
    requests: Arc<Requests>,
    /// Whether each request gets a [`ConnectInfo`].
    connect_info: bool,
}

impl<S> Tracked<S> {
    pub(super) fn new(service: S, requests: Arc<Requests>) -> Tracked<S> {
        let connect_info = requests.options().connect_info;
        Tracked { service, requests, connect_info }
    }
}

impl<S, B> Service<Request<Incoming>> for Tracked<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    B: Body,
{
    type Response = Response<TrackedBody<B>>;
    type Error = S::Error;
    type Future = TrackedFuture<S::Future>;

    #[inline]
    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let version = request.version();
        // Only a lame duck needs to know, and searching the headers takes time.
        if !self.requests.is_normal() && !wants_keep_alive(version, request.headers()) {
            self.requests.set_client_closes();
        }
        if self.connect_info {
            let extensions = request.extensions_mut();
            extensions.insert(ConnectInfo(Arc::clone(&self.requests)));
            #[cfg(feature = "axum")]
            extensions.insert(axum::extract::ConnectInfo(self.requests.remote()));
            #[cfg(feature = "tonic")]
            extensions.insert(tonic::transport::server::TcpConnectInfo {
                local_addr: Some(self.requests.local()),
                remote_addr: Some(self.requests.remote()),
            });
        }
        TrackedFuture {
            version,
            is_connect: request.method() == Method::CONNECT,
            in_flight: Some(self.requests.begin()),
            future: self.service.call(request),
        }
    }
}

fn wants_keep_alive(version: Version, headers: &HeaderMap) -> bool {
    !has_connection_option(headers, "close")
        && (version != Version::HTTP_10 || has_connection_option(headers, "keep-alive"))
}

fn has_connection_option(headers: &HeaderMap, name: &str) -> bool {
    let values = headers.get_all(CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case(name))
}

pin_project! {
    #[derive(Debug)]
    pub(super) struct TrackedFuture<F> {
        version: Version,
        is_connect: bool,
        in_flight: Option<InFlight>,
        #[pin]
        future: F,
    }
}

impl<F, B: Body, E> Future for TrackedFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<TrackedBody<B>>, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.future.poll(cx))?;
        let in_flight = this.in_flight.take();
        if let Some(InFlight(requests)) = &in_flight
            && *this.version >= Version::HTTP_2
            && *this.is_connect
            && response.status().is_success()
        {
            requests.set_tunnel();
        }
        if let Some(InFlight(requests)) = &in_flight
            && *this.version < Version::HTTP_2
        {
            requests.set_answered();
            let status = response.status();
            if status == StatusCode::SWITCHING_PROTOCOLS || (*this.is_connect && status.is_success()) {
                requests.set_protocol(Protocol::Other);
            } else {
                if requests.is_lame_duck() && requests.is_last() {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                if *this.version == Version::HTTP_10 && has_connection_option(response.headers(), "close") {
                    // hyper adds `keep-alive` for an HTTP/1.0 client, unless the response has that version too.
                    *response.version_mut() = Version::HTTP_10;
                }
                requests.set_unframed(is_unframed(*this.version, &response));
            }
        }
        Poll::Ready(Ok(response.map(|body| TrackedBody { _in_flight: in_flight, body })))
    }
}

/// Returns whether only the end of the connection ends the response: chunks need HTTP/1.1 at both ends.
fn is_unframed<B: Body>(version: Version, response: &Response<B>) -> bool {
    (version == Version::HTTP_10 || response.version() == Version::HTTP_10)
        && response.body().size_hint().exact().is_none()
        && !response.headers().contains_key(CONTENT_LENGTH)
}

pin_project! {
    /// A response body. Its request is in flight while the body exists.
    #[derive(Debug)]
    pub(super) struct TrackedBody<B> {
        _in_flight: Option<InFlight>,
        #[pin]
        body: B,
    }
}

impl<B: Body> Body for TrackedBody<B> {
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
