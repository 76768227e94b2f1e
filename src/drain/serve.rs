//! Serves HTTP on one connection: detects the version, and ends the connection gracefully.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use hyper::body::{Body, Incoming};
use hyper::rt::bounds::Http2ServerConnExec;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::Conn;
use super::frames::PREFACE;
use super::options::Configure;
use super::requests::Protocol;
use super::streams::{ChunkedBody, ChunkedFuture, ChunkedService, Http2Executor, LocalExecutor};
use super::tracked_service::{Tracked, TrackedBody, TrackedFuture};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Conn<T> {
    /// Serves HTTP/1 or HTTP/2, depending on the client, until the connection ends. Once its [`Drain`](crate::Drain) is a lame
    /// duck, the connection ends as its HTTP version allows. Upgrades work, and an upgraded connection still counts.
    ///
    /// # Errors
    ///
    /// Fails if the client violates the protocol or goes away in the middle of an exchange.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use {hyper::{Request, Response, body::Incoming, service::service_fn}, std::convert::Infallible};
    /// # async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> { Ok(Response::new("".into())) }
    /// # async fn run() -> Result<(), handover::Error> {
    /// let mut listener = handover::Server::bind("0.0.0.0:8080").listen().await?;
    /// listener.ready();
    /// while let Some(conn) = listener.accept().await {
    ///     tokio::spawn(conn.serve(service_fn(hello)));
    /// }
    /// listener.finish().await?;
    /// # Ok(()) }
    /// ```
    pub fn serve<S, B>(self, service: S) -> impl Future<Output = Result<(), BoxError>>
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let (executor, change) = (Http2Executor::new(&self), self.requests().options().http2.clone());
        serve(self, service, executor, change)
    }

    /// Does the same as [`serve`](Conn::serve) for a service that is not [`Send`]. Call it within a
    /// [`LocalSet`](tokio::task::LocalSet), which also runs the streams of HTTP/2. The changes of
    /// [`DrainOptions::http2`](crate::DrainOptions::http2) do not apply.
    ///
    /// # Errors
    ///
    /// Fails if the client violates the protocol or goes away in the middle of an exchange.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use {hyper::{Request, Response, body::Incoming, service::service_fn}, std::{cell::Cell, convert::Infallible, rc::Rc}};
    /// # async fn run() -> Result<(), handover::Error> {
    /// let mut listener = handover::Server::bind("0.0.0.0:8080").listen().await?;
    /// listener.ready();
    /// let count = Rc::new(Cell::new(0));
    /// let local = tokio::task::LocalSet::new();
    /// local
    ///     .run_until(async {
    ///         while let Some(conn) = listener.accept().await {
    ///             let count = Rc::clone(&count);
    ///             tokio::task::spawn_local(conn.serve_local(service_fn(move |_: Request<Incoming>| {
    ///                 count.set(count.get() + 1);
    ///                 let text = format!("request {}\n", count.get());
    ///                 async { Ok::<_, Infallible>(Response::new(text)) }
    ///             })));
    ///         }
    ///         listener.finish().await
    ///     })
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn serve_local<S, B>(self, service: S) -> impl Future<Output = Result<(), BoxError>>
    where
        S: Service<Request<Incoming>, Response = Response<B>> + 'static,
        S::Error: Into<BoxError>,
        B: Body + 'static,
        B::Error: Into<BoxError>,
    {
        let executor = LocalExecutor(Http2Executor::new(&self));
        serve(self, service, executor, Configure::none())
    }

    /// Detects the protocol by its first bytes, not by ALPN alone: a client that agreed on HTTP/2 and has not sent anything yet is
    /// idle like any other. Reads until the bytes differ from the preface of HTTP/2 or complete it; they will be read again.
    async fn find_out_protocol(&mut self) -> io::Result<Protocol> {
        let mut received = Vec::with_capacity(1024);
        let protocol = loop {
            let has_ended = self.read_buf(&mut received).await? == 0;
            let n = received.len().min(PREFACE.len());
            if has_ended {
                break Protocol::Http1;
            }
            if received[..n] != PREFACE[..n] {
                break self.default_protocol();
            }
            if n == PREFACE.len() {
                break Protocol::Http2;
            }
        };
        self.begin(protocol, received);
        Ok(protocol)
    }
}

async fn serve<T, S, B, E>(
    mut conn: Conn<T>,
    service: S,
    executor: E,
    change: Configure<http2::Builder<E>>,
) -> Result<(), BoxError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Error: Into<BoxError>,
    B: Body + 'static,
    B::Error: Into<BoxError>,
    E: Http2ServerConnExec<ChunkedFuture<TrackedFuture<S::Future>>, ChunkedBody<TrackedBody<B>>>,
{
    conn.requests().set_protocol(Protocol::Unknown);
    let protocol = conn.find_out_protocol().await?;
    let requests = Arc::clone(conn.requests());
    let service = Tracked::new(service, Arc::clone(&requests));
    let io = TokioIo::new(conn);
    if protocol == Protocol::Http1 {
        let mut builder = http1::Builder::new();
        requests.options().http1.apply(&mut builder);
        let mut conn = pin!(builder.serve_connection(io, service).with_upgrades());
        return poll_fn(|cx| {
            if requests.is_cut() { Poll::Ready(Ok(())) } else { conn.as_mut().poll(cx).map_err(Into::into) }
        })
        .await;
    }
    let options = requests.options();
    let mut builder = http2::Builder::new(executor);
    builder.timer(TokioTimer::new());
    builder.max_concurrent_streams(options.http2_max_concurrent_streams);
    // These are hyper's defaults today, fixed here so that they stay: a client that keeps opening and resetting streams, or sends
    // endless headers, is disconnected. hyper's keep-alive PING is not used, because hyper could not tell a client that is gone
    // from one that has answered while the answer is withheld (see `goaway`).
    builder.max_header_list_size(16 * 1024);
    builder.max_pending_accept_reset_streams(20).max_local_error_reset_streams(1024);
    if options.http2_extended_connect {
        builder.enable_connect_protocol();
    }
    change.apply(&mut builder);
    // Boxed, because it is many times as large as the state of an HTTP/1 connection.
    let mut conn = Box::pin(builder.serve_connection(io, ChunkedService(service)));
    let mut told = false;
    poll_fn(|cx| {
        loop {
            if requests.is_cut() {
                return Poll::Ready(Ok(()));
            }
            let polled = conn.as_mut().poll(cx).map_err(Into::into);
            if polled.is_ready() || told || !requests.says_goaway() {
                return polled;
            }
            // Sends GOAWAY, and a PING; its acknowledgement shows that no stream is on its way any more.
            conn.as_mut().graceful_shutdown();
            told = true;
        }
    })
    .await
}
