//! The service of one connection: requests in flight are marked, and a lame duck says `Connection: close`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderMap, HeaderValue};
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode, Version};
use pin_project_lite::pin_project;

use super::requests::{ConnectInfo, InFlight, Protocol, Requests};

/// Wraps the application's service for one connection.
#[derive(Debug)]
pub(super) struct Attended<S> {
    service: S,
    requests: Arc<Requests>,
}

impl<S> Attended<S> {
    pub(super) fn new(service: S, requests: Arc<Requests>) -> Attended<S> {
        Attended { service, requests }
    }
}

impl<S, B> Service<Request<Incoming>> for Attended<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
{
    type Response = Response<AttendedBody<B>>;
    type Error = S::Error;
    type Future = AttendedFuture<S::Future>;

    #[inline]
    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        // Only a lame duck needs to know, and looking for a header takes time.
        if !self.requests.is_normal()
            && (says_close(request.headers()) || request.version() == Version::HTTP_10)
        {
            self.requests.set_client_closes();
        }
        request.extensions_mut().insert(ConnectInfo(Arc::clone(&self.requests)));
        let has_body = !request.body().is_end_stream();
        AttendedFuture {
            is_http1: request.version() < Version::HTTP_2,
            has_body,
            is_connect: request.method() == Method::CONNECT,
            in_flight: Some(self.requests.begin(has_body)),
            future: self.service.call(request),
        }
    }
}

fn says_close(headers: &HeaderMap) -> bool {
    let tokens =
        headers.get_all(CONNECTION).into_iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    tokens.into_iter().any(|token| token.trim().eq_ignore_ascii_case("close"))
}

pin_project! {
    #[derive(Debug)]
    pub(super) struct AttendedFuture<F> {
        is_http1: bool,
        has_body: bool,
        is_connect: bool,
        in_flight: Option<InFlight>,
        #[pin]
        future: F,
    }
}

impl<F, B, E> Future for AttendedFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<AttendedBody<B>>, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.future.poll(cx))?;
        let in_flight = this.in_flight.take();
        if let Some(InFlight(requests)) = &in_flight
            && *this.is_http1
        {
            let status = response.status();
            if status == StatusCode::SWITCHING_PROTOCOLS || (*this.is_connect && status.is_success()) {
                requests.set_protocol(Protocol::Other);
            } else if requests.is_lame_duck() && (*this.has_body || requests.is_nothing_more()) {
                // No client may pipeline behind a request that is not safe to repeat (RFC 9112, section 9.3.2), so
                // behind a body nothing is looked for; it may not even have arrived yet.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
        Poll::Ready(Ok(response.map(|body| AttendedBody { _in_flight: in_flight, body })))
    }
}

pin_project! {
    /// A response body; while it exists its request is in flight.
    #[derive(Debug)]
    pub(super) struct AttendedBody<B> {
        _in_flight: Option<InFlight>,
        #[pin]
        body: B,
    }
}

impl<B: Body> Body for AttendedBody<B> {
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
