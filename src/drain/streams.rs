//! The send timeout of HTTP/2 streams. hyper spawns a task for each stream. If the client reads nothing of a response, hyper waits
//! forever and does not poll the body, so the timeout wraps hyper's task. Dropping that task resets the stream.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Buf, Bytes, Frame, SizeHint};
use hyper::rt::Executor;
use hyper::service::Service;
use hyper::{Request, Response};
use pin_project_lite::pin_project;
use tokio::task::spawn_local;
use tokio::task_local;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Conn, options};

/// How many bytes of a body hyper gets at a time: one frame of the usual size, so that a client that reads a little is seen to
/// make progress.
const PIECE: usize = 16 * 1024;
/// The turn of the server: there is no response yet, or the body has nothing to send, so hyper does not wait for the client.
const SERVER: u64 = 0;

task_local! {
    /// The turn in the response of the stream that is being polled: [`SERVER`], or the number of the piece that the client is to
    /// read. hyper polls the service and the body in the task of their stream.
    static TURN: Cell<u64>;
}

/// Notes that hyper has something more to send, and waits for the client to read it.
fn client_is_to_read() {
    let _ = TURN.try_with(|turn| turn.set(turn.get() + 1));
}

fn server_is_to_write() {
    let _ = TURN.try_with(|turn| turn.set(SERVER));
}

/// Spawns the streams of an HTTP/2 connection: the executor of the builder that [`Server::http2`](crate::Server::http2) changes.
#[derive(Debug, Clone)]
pub struct Http2Executor {
    send_timeout: Duration,
}

impl Http2Executor {
    pub(super) fn new<T>(conn: &Conn<T>) -> Http2Executor {
        Http2Executor { send_timeout: conn.requests().options().send_timeout }
    }
}

impl<F> Executor<F> for Http2Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        match options::limit(self.send_timeout) {
            Some(timeout) => drop(tokio::spawn(Timed::new(stream, timeout))),
            None => drop(tokio::spawn(stream)),
        }
    }
}

/// Does the same for streams that stay on their thread.
#[derive(Debug, Clone)]
pub(super) struct LocalExecutor(pub(super) Http2Executor);

impl<F> Executor<F> for LocalExecutor
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, stream: F) {
        match options::limit(self.0.send_timeout) {
            Some(timeout) => drop(spawn_local(Timed::new(stream, timeout))),
            None => drop(spawn_local(stream)),
        }
    }
}

pin_project! {
    /// A stream that ends when its client has read nothing for too long.
    struct Timed<F> {
        #[pin]
        stream: F,
        turn: u64,
        timeout: Duration,
        // Boxed, because few streams wait and every one is moved.
        waiting: Option<Box<Waiting>>,
    }
}

impl<F> Timed<F> {
    fn new(stream: F, timeout: Duration) -> Timed<F> {
        Timed { stream, turn: SERVER, timeout, waiting: None }
    }
}

/// The wait for a client to read something.
struct Waiting {
    turn: u64,
    /// When this turn began.
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Waiting {
    fn new(turn: u64, timeout: Duration) -> Waiting {
        let now = Instant::now();
        Waiting { turn, since: now, timer: Box::pin(sleep_until(now + timeout)) }
    }

    /// Ready when the turn has lasted for too long.
    fn poll(&mut self, turn: u64, timeout: Duration, cx: &mut Context<'_>) -> Poll<()> {
        if turn != self.turn {
            (self.turn, self.since) = (turn, Instant::now());
        }
        loop {
            let deadline = self.since + timeout;
            // The timer is reset only after it has expired, which is cheaper than at every turn.
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if now.saturating_duration_since(deadline) > super::PAUSED {
                // This process was not running, so the client could not make progress.
                self.since = now;
                self.timer.as_mut().reset(now + timeout);
            } else if self.timer.deadline() >= deadline {
                return Poll::Ready(());
            } else {
                self.timer.as_mut().reset(deadline);
            }
        }
    }
}

impl<F: Future<Output = ()>> Future for Timed<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let (polled, turn) = TURN.sync_scope(Cell::new(*this.turn), || {
            let polled = this.stream.poll(cx);
            (polled, TURN.with(Cell::get))
        });
        *this.turn = turn;
        if polled.is_ready() {
            return polled;
        }
        if turn == SERVER {
            if let Some(waiting) = this.waiting {
                waiting.turn = turn;
            }
            return Poll::Pending;
        }
        let waiting = this.waiting.get_or_insert_with(|| Box::new(Waiting::new(turn, *this.timeout)));
        ready!(waiting.poll(turn, *this.timeout, cx));
        tracing::debug!(timeout = ?this.timeout, "HTTP/2 stream reset: the client reads nothing");
        Poll::Ready(())
    }
}

/// A service whose responses are sent in pieces.
#[derive(Debug)]
pub(super) struct ChunkedService<S>(pub(super) S);

impl<S, R, B> Service<Request<R>> for ChunkedService<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    B: Body,
{
    type Response = Response<ChunkedBody<B>>;
    type Error = S::Error;
    type Future = ChunkedFuture<S::Future>;

    fn call(&self, request: Request<R>) -> Self::Future {
        ChunkedFuture { future: self.0.call(request) }
    }
}

pin_project! {
    #[derive(Debug)]
    pub(super) struct ChunkedFuture<F> {
        #[pin]
        future: F,
    }
}

impl<F, B: Body, E> Future for ChunkedFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ChunkedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.future.poll(cx))?;
        // The head is to be sent first.
        client_is_to_read();
        Poll::Ready(Ok(response.map(|body| ChunkedBody { rest: None, body })))
    }
}

pin_project! {
    /// A response body in pieces, which keeps track of the turn.
    #[derive(Debug)]
    pub(super) struct ChunkedBody<B: Body> {
        rest: Option<B::Data>,
        #[pin]
        body: B,
    }
}

impl<B: Body> Body for ChunkedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if this.rest.is_none() {
            let frame = match this.body.poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    server_is_to_write();
                    return Poll::Pending;
                }
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => *this.rest = Some(data),
                Some(Ok(Err(other))) => {
                    // A frame that is not data is trailers.
                    let Ok(trailers) = other.into_trailers() else { return Poll::Ready(None) };
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        client_is_to_read();
        let Some(rest) = this.rest else { return Poll::Ready(None) };
        let piece = rest.copy_to_bytes(rest.remaining().min(PIECE));
        if !rest.has_remaining() {
            *this.rest = None;
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.as_ref().map_or(0, |rest| rest.remaining() as u64);
        let hint = self.body.size_hint();
        let mut all = SizeHint::new();
        all.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            all.set_upper(upper + rest);
        }
        all
    }
}
