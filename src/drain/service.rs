//! The service of one connection: requests in flight are marked, and a lame duck says `Connection: close`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode, Version};
use pin_project_lite::pin_project;

use super::conn::{Conn, ConnectInfo, InFlight, Requests};

/// Wraps the application's service for one connection.
#[derive(Debug)]
pub(crate) struct Attended<S> {
    service: S,
    info: ConnectInfo,
    requests: Arc<Requests>,
}

impl<S> Attended<S> {
    pub(crate) fn new(service: S, conn: &Conn) -> Attended<S> {
        Attended { service, info: conn.connect_info(), requests: Arc::clone(conn.requests()) }
    }
}

impl<S, B> Service<Request<Incoming>> for Attended<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
{
    type Response = Response<AttendedBody<B>>;
    type Error = S::Error;
    type Future = AttendedFuture<S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.info);
        AttendedFuture {
            version: request.version(),
            connect: request.method() == Method::CONNECT,
            in_flight: Some(self.requests.begin()),
            future: self.service.call(request),
        }
    }
}

pin_project! {
    #[derive(Debug)]
    pub(crate) struct AttendedFuture<F> {
        version: Version,
        connect: bool,
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

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.future.poll(cx))?;
        let in_flight = this.in_flight.take();
        let upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS
            || (*this.connect && response.status().is_success());
        if upgrade {
            in_flight.iter().for_each(InFlight::upgraded);
        } else if *this.version < Version::HTTP_2 && in_flight.as_ref().is_some_and(InFlight::is_lame_duck) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response.map(|body| AttendedBody { _in_flight: in_flight, body })))
    }
}

pin_project! {
    /// A response body; while it exists its request is in flight.
    #[derive(Debug)]
    pub(crate) struct AttendedBody<B> {
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
