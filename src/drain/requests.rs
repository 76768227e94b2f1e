//! What one connection has in flight. Each connection has its own record, because a counter that all requests of a
//! process share costs more than everything else here.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};

use tokio::time::Instant;

use super::{CUT, Drain, LAME_DUCK, NORMAL, Retiring};

/// What a request says of its connection: an extension of every request that [`Server::serve`] and [`Conn::serve`] hand
/// to the service.
///
/// [`Server::serve`]: crate::Server::serve
/// [`Conn::serve`]: crate::Conn::serve
#[derive(Debug, Clone)]
pub struct ConnectInfo(pub(super) Arc<Requests>);

impl ConnectInfo {
    /// The client.
    pub fn remote(&self) -> SocketAddr {
        self.0.remote
    }

    /// The address of this server that the client connected to.
    pub fn local(&self) -> SocketAddr {
        self.0.local
    }

    /// Tells a response that lasts (a stream of events, an upgraded connection) when to end.
    pub fn retiring(&self) -> Retiring {
        self.0.drain.retiring()
    }
}

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Too little was received to tell HTTP/1 from HTTP/2.
    Unknown,
    Http1,
    Http2,
    /// It has no moment at which the server may close without asking.
    Other,
}

/// What has come of the next head: nothing, a part, a part whose time runs.
const NOTHING: u8 = 0;
const BEGUN: u8 = 1;
const KNOWN: u8 = 2;

/// A connection that waits for its requests to end.
#[derive(Debug, Default)]
struct Waiting {
    /// Who is told when none is in flight any more: hyper does not always read again by itself then.
    waker: Option<Waker>,
    last_end: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Requests {
    drain: Drain,
    remote: SocketAddr,
    local: SocketAddr,
    protocol: AtomicU8,
    /// Requests since the connection was accepted. Only its task writes it, so that this needs no locked instruction.
    begun: AtomicU64,
    ended: AtomicU64,
    /// The request in flight has a body, so what arrives is not the next head.
    has_body: AtomicBool,
    waiting: Mutex<Waiting>,
    /// Since the last request was handed out hyper has asked for more, and there was nothing. It asks only when its own
    /// buffer is empty, so there is no pipelined request that a `Connection: close` would leave unanswered.
    nothing_more: AtomicBool,
    /// Of the request after the last one that was handed out.
    next_head: AtomicU8,
    /// The client said that its request is the last.
    client_closes: AtomicBool,
}

impl Requests {
    pub(super) fn new(drain: &Drain, remote: SocketAddr, local: SocketAddr) -> Requests {
        Requests {
            drain: drain.clone(),
            remote,
            local,
            protocol: AtomicU8::new(Protocol::Other as u8),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            has_body: AtomicBool::new(false),
            waiting: Mutex::default(),
            nothing_more: AtomicBool::new(false),
            next_head: AtomicU8::new(NOTHING),
            client_closes: AtomicBool::new(false),
        }
    }

    pub(super) fn drain(&self) -> &Drain {
        &self.drain
    }

    pub(super) fn is_normal(&self) -> bool {
        self.drain.is(NORMAL)
    }

    pub(super) fn is_lame_duck(&self) -> bool {
        self.drain.is(LAME_DUCK)
    }

    pub(super) fn is_cut(&self) -> bool {
        self.drain.is(CUT)
    }

    pub(super) fn begin(self: &Arc<Self>, has_body: bool) -> InFlight {
        self.has_body.store(has_body, Ordering::Relaxed);
        self.begun.store(self.begun.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.nothing_more.store(false, Ordering::Relaxed);
        self.next_head.store(NOTHING, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    pub(super) fn in_flight(&self) -> u64 {
        // In this order, or one that begins and ends between the two looks would count as less than none.
        let ended = self.ended.load(Ordering::Acquire);
        self.begun.load(Ordering::Relaxed) - ended
    }

    pub(super) fn total(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    pub(super) fn are_in_flight(&self) -> bool {
        self.in_flight() > 0
    }

    pub(super) fn received(&self, bytes: &[u8]) {
        self.nothing_more.store(false, Ordering::Relaxed);
        let is_body = self.are_in_flight() && self.has_body.load(Ordering::Relaxed);
        // Empty lines before a request are to be ignored (RFC 9112, section 2.2).
        if !is_body && !self.has_head_begun() && bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
            self.begin_head();
        }
    }

    pub(super) fn begin_head(&self) {
        self.next_head.store(BEGUN, Ordering::Relaxed);
    }

    /// The last request had a body, which may still be arriving.
    pub(super) fn had_body(&self) -> bool {
        self.has_body.load(Ordering::Relaxed)
    }

    /// Has the task woken when no request is in flight any more.
    pub(super) fn wait(&self, cx: &Context<'_>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            waiting.waker = Some(cx.waker().clone());
        }
    }

    /// When the last request of a lame duck ended. What it answered may not be written yet.
    pub(super) fn last_end(&self) -> Option<Instant> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).last_end
    }

    pub(super) fn has_head_begun(&self) -> bool {
        self.next_head.load(Ordering::Relaxed) != NOTHING
    }

    /// Whether a head has begun that was not asked about before.
    pub(super) fn is_new_head(&self) -> bool {
        self.next_head.compare_exchange(BEGUN, KNOWN, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    pub(super) fn set_nothing_more(&self, nothing: bool) {
        self.nothing_more.store(nothing, Ordering::Relaxed);
    }

    pub(super) fn is_nothing_more(&self) -> bool {
        self.nothing_more.load(Ordering::Relaxed)
    }

    pub(super) fn set_client_closes(&self) {
        self.client_closes.store(true, Ordering::Relaxed);
    }

    pub(super) fn client_closes(&self) -> bool {
        self.client_closes.load(Ordering::Relaxed)
    }

    pub(super) fn set_protocol(&self, protocol: Protocol) {
        self.protocol.store(protocol as u8, Ordering::Relaxed);
    }

    pub(super) fn protocol(&self) -> Protocol {
        const UNKNOWN: u8 = Protocol::Unknown as u8;
        const HTTP1: u8 = Protocol::Http1 as u8;
        const HTTP2: u8 = Protocol::Http2 as u8;
        match self.protocol.load(Ordering::Relaxed) {
            UNKNOWN => Protocol::Unknown,
            HTTP1 => Protocol::Http1,
            HTTP2 => Protocol::Http2,
            _ => Protocol::Other,
        }
    }
}

/// A request that was handed to the service and whose response body has not ended.
#[derive(Debug)]
pub(super) struct InFlight(pub(super) Arc<Requests>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let requests = &self.0;
        // Streams of HTTP/2 end on any thread: whoever is last there sees what the others saw begin.
        let ended = requests.ended.fetch_add(1, Ordering::AcqRel) + 1;
        let last = ended == requests.begun.load(Ordering::Relaxed);
        // hyper did not ask for more, so it has some of the next head already.
        if last && !requests.has_body.load(Ordering::Relaxed) && !requests.is_nothing_more() {
            requests.begin_head();
        }
        if last && !requests.is_normal() {
            let mut waiting = requests.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.last_end = Some(Instant::now());
            if let Some(waker) = waiting.waker.take() {
                waker.wake();
            }
        }
    }
}
