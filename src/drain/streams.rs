//! The streams of HTTP/2, of which hyper makes a task each. Where the client takes nothing of a response, hyper waits for it
//! for ever and does not ask the body, so the time is kept around hyper's task. To drop it resets the stream.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread::{self, ThreadId};
use std::time::Duration;

use hyper::body::{Body, Buf, Bytes, Frame, SizeHint};
use hyper::rt::Executor;
use hyper::service::Service;
use hyper::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::options;

/// What hyper gets at a time, so that a client that takes a little shows that it gets on: one frame of the usual size.
const PIECE: usize = 16 * 1024;
/// The body has nothing to send yet, or there is none: hyper does not wait for the client.
const ITS_TURN: u64 = 0;

/// Whose turn it is in the response to one request.
#[derive(Debug, Default)]
pub(super) struct Turn(AtomicU64);

impl Turn {
    /// hyper has something to send, and waits for the client to take it.
    fn of_client(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn of_server(&self) {
        self.0.store(ITS_TURN, Ordering::Relaxed);
    }
}

/// Of the request that is handed over on this thread.
type Next = (ThreadId, Arc<Turn>);

/// Makes the tasks of one connection, and knows for which request the next one is.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    /// hyper calls the service and makes the task right after it, on the same thread. The task of an upgraded stream is made
    /// on any.
    next: Arc<Mutex<Option<Next>>>,
    send_timeout: Duration,
}

impl Streams {
    pub(super) fn new(send_timeout: Duration) -> Streams {
        Streams { next: Arc::default(), send_timeout }
    }

    /// Of the request that is handed to the service now.
    fn begin(&self) -> Arc<Turn> {
        let turn = Arc::<Turn>::default();
        *self.next() = Some((thread::current().id(), Arc::clone(&turn)));
        turn
    }

    fn next(&self) -> MutexGuard<'_, Option<Next>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let here = thread::current().id();
        let next = self.next().take_if(|(thread, _)| *thread == here);
        match (next, options::limit(self.send_timeout)) {
            (Some((_, turn)), Some(timeout)) => {
                tokio::spawn(Timed { stream, turn, seen: ITS_TURN, since: None, timer: None, timeout });
            }
            // There is no timeout, or it is an upgraded stream.
            _ => {
                tokio::spawn(stream);
            }
        }
    }
}

pin_project! {
    /// A stream that ends when its client has taken nothing for too long.
    struct Timed<F> {
        #[pin]
        stream: F,
        turn: Arc<Turn>,
        // The turn that lasts, and since when.
        seen: u64,
        since: Option<Instant>,
        timer: Option<Pin<Box<Sleep>>>,
        timeout: Duration,
    }
}

impl<F: Future<Output = ()>> Future for Timed<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.stream.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let turn = this.turn.0.load(Ordering::Relaxed);
        if turn == ITS_TURN {
            *this.seen = turn;
            return Poll::Pending;
        }
        if turn != *this.seen {
            (*this.seen, *this.since) = (turn, None);
        }
        let deadline = *this.since.get_or_insert_with(Instant::now) + *this.timeout;
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            // It is set anew only when it has expired.
            ready!(timer.as_mut().poll(cx));
            let late = Instant::now().saturating_duration_since(deadline);
            if late > super::PAUSED {
                // This process did not run, so the client could not get on.
                let now = Instant::now();
                *this.since = Some(now);
                timer.as_mut().reset(now + *this.timeout);
            } else if timer.deadline() >= deadline {
                tracing::debug!(timeout = ?this.timeout, "a stream whose client takes nothing is reset");
                return Poll::Ready(());
            } else {
                timer.as_mut().reset(deadline);
            }
        }
    }
}

/// A service whose responses are sent in pieces.
#[derive(Debug)]
pub(super) struct InPieces<S> {
    pub(super) service: S,
    pub(super) streams: Streams,
}

impl<S, R, B> Service<Request<R>> for InPieces<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    B: Body,
{
    type Response = Response<Pieces<B>>;
    type Error = S::Error;
    type Future = InPiecesFuture<S::Future>;

    fn call(&self, request: Request<R>) -> Self::Future {
        let turn = self.streams.begin();
        InPiecesFuture { turn, future: self.service.call(request) }
    }
}

pin_project! {
    #[derive(Debug)]
    pub(super) struct InPiecesFuture<F> {
        turn: Arc<Turn>,
        #[pin]
        future: F,
    }
}

impl<F, B: Body, E> Future for InPiecesFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<Pieces<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.future.poll(cx))?;
        // Its head is to be sent first.
        this.turn.of_client();
        let turn = Arc::clone(this.turn);
        Poll::Ready(Ok(response.map(|body| Pieces { turn, rest: None, body })))
    }
}

pin_project! {
    /// A response body in pieces, which tells whose turn it is.
    #[derive(Debug)]
    pub(super) struct Pieces<B: Body> {
        turn: Arc<Turn>,
        rest: Option<B::Data>,
        #[pin]
        body: B,
    }
}

impl<B: Body> Body for Pieces<B> {
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
                    this.turn.of_server();
                    return Poll::Pending;
                }
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => *this.rest = Some(data),
                Some(Ok(Err(other))) => {
                    // Not data, so trailers.
                    let Ok(trailers) = other.into_trailers() else { return Poll::Ready(None) };
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        this.turn.of_client();
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
