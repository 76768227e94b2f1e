//! The requests in flight on one connection. Each connection has its own record, because a counter that all requests of a
//! process share costs more than everything else here.

use std::net::SocketAddr;
#[cfg(feature = "tls")]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Instant;

#[cfg(feature = "tls")]
use super::TlsInfo;
use super::mode::{ToldMode, VersionedMode};
use super::options::DrainOptions;
use super::slots::{EvictionPriority, Pool, SlotState};
use super::{Drain, Retiring};
use crate::sock_diag;

/// Information about a connection: for the service that [`Server::serve_with`] makes for each, from [`Conn::connect_info`], or
/// with [`Server::connect_info`] in the extensions of each request.
///
/// [`Server::serve_with`]: crate::Server::serve_with
/// [`Server::connect_info`]: crate::Server::connect_info
/// [`Conn::connect_info`]: crate::Conn::connect_info
///
/// # Examples
///
/// ```no_run
/// # use {hyper::{Request, Response, body::Incoming}, std::convert::Infallible};
/// async fn hello(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
///     let client = request.extensions().get::<handover::ConnectInfo>().map(|info| info.remote());
///     Ok(Response::new(format!("hello {client:?}\n")))
/// }
/// ```
#[derive(Debug, Clone)]
pub struct ConnectInfo(pub(super) Arc<Requests>);

impl ConnectInfo {
    /// Returns the address of the client.
    pub fn remote(&self) -> SocketAddr {
        self.0.remote()
    }

    /// Returns the address of this server that the client connected to.
    pub fn local(&self) -> SocketAddr {
        self.0.local()
    }

    /// Returns a handle that tells a long response (a stream of events, an upgraded connection) when to end.
    pub fn retiring(&self) -> Retiring {
        self.0.drain.retiring()
    }

    /// Returns what the TLS handshake has shown of the client; `None` without TLS.
    ///
    /// # Examples
    ///
    /// ```
    /// fn is_known(info: &handover::ConnectInfo) -> bool {
    ///     info.tls().is_some_and(|tls| !tls.peer_certificates.is_empty())
    /// }
    /// ```
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.0.tls.get()
    }

    /// Returns whether the client has half-closed the connection, or the connection is gone. The kernel is asked (sock_diag(7)),
    /// which knows it before the server has read that far. If the kernel does not say, the result is false.
    ///
    /// Such a client may still wait for its response (see [`Server::half_close_timeout`]). Use this to skip the work for an
    /// expensive request when its client may be gone.
    ///
    /// [`Server::half_close_timeout`]: crate::Server::half_close_timeout
    pub fn client_has_ended(&self) -> bool {
        sock_diag::connection(self.0.local, self.0.remote).is_some_and(|found| found.has_ended)
    }
}

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// The TLS handshake is not over.
    Handshake,
    /// Too little was received to tell HTTP/1 from HTTP/2.
    Unknown,
    Http1,
    Http2,
    /// A protocol (such as an upgraded one) that only the application may close.
    Other,
}

/// A connection that waits for its requests to end.
#[derive(Debug, Default)]
struct Waiting {
    /// The task to wake when no request is in flight any more: hyper does not always read again by itself.
    waker: Option<Waker>,
    last_end: Option<Instant>,
}

/// The record of one connection. Aligned, so that workers that serve different connections share no cache line.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Requests {
    drain: Drain,
    remote: SocketAddr,
    local: SocketAddr,
    /// See [`ToldMode`].
    told: AtomicU64,
    protocol: AtomicU8,
    /// Requests since the connection was accepted. Only the task of the connection writes it, so no locked instruction is needed.
    begun: AtomicU64,
    ended: AtomicU64,
    waiting: Mutex<Waiting>,
    /// HTTP/1 heads that have arrived. If there are more than `begun`, hyper has some of them in its buffer.
    heads: AtomicU64,
    /// A part of the next head has arrived, or has reached the kernel.
    more: AtomicBool,
    /// The client said that its request is the last.
    client_closes: AtomicBool,
    /// The response in flight has no length: only the end of the connection ends it.
    unframed: AtomicBool,
    /// The HTTP/2 connection may send GOAWAY.
    goaway: AtomicBool,
    /// The response to the last request has begun.
    answered: AtomicBool,
    /// An HTTP/2 stream is a tunnel (CONNECT); only its two ends know when it is over.
    tunnel: AtomicBool,
    slot_state: SlotState,
    #[cfg(feature = "tls")]
    tls: OnceLock<TlsInfo>,
}

impl Requests {
    pub(super) fn new(
        drain: &Drain,
        remote: SocketAddr,
        local: SocketAddr,
        pool: Pool,
        now: Instant,
    ) -> Requests {
        Requests {
            drain: drain.clone(),
            remote,
            local,
            told: AtomicU64::new(VersionedMode::first().told().0),
            protocol: AtomicU8::new(Protocol::Other as u8),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            waiting: Mutex::default(),
            heads: AtomicU64::new(0),
            more: AtomicBool::new(false),
            client_closes: AtomicBool::new(false),
            unframed: AtomicBool::new(false),
            goaway: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            tunnel: AtomicBool::new(false),
            slot_state: SlotState::new(pool, drain.millis(now)),
            #[cfg(feature = "tls")]
            tls: OnceLock::new(),
        }
    }

    #[cfg(feature = "tls")]
    pub(super) fn set_tls(&self, info: TlsInfo) {
        // A connection has one handshake.
        let _ = self.tls.set(info);
    }

    pub(super) fn remote(&self) -> SocketAddr {
        self.remote
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(super) fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Tells the connection its mode from now on, unless it was already told a later one.
    pub(super) fn tell(&self, mode: VersionedMode) {
        self.told.fetch_max(mode.told().0, Ordering::SeqCst);
    }

    pub(super) fn told(&self) -> ToldMode {
        ToldMode(self.told.load(Ordering::Relaxed))
    }

    pub(super) fn is_normal(&self) -> bool {
        self.told().is_normal()
    }

    pub(super) fn is_lame_duck(&self) -> bool {
        self.told().is_lame_duck()
    }

    pub(super) fn is_cut(&self) -> bool {
        self.told().is_cut()
    }

    pub(super) fn options(&self) -> &DrainOptions {
        &self.drain.0.options
    }

    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        self.begun.store(self.begun.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.slot_state.set_busy();
        self.answered.store(false, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    pub(super) fn in_flight(&self) -> u64 {
        // `ended` is read first: a request that begins and ends between the two reads would otherwise make the difference negative.
        let ended = self.ended.load(Ordering::Acquire);
        self.begun.load(Ordering::Relaxed) - ended
    }

    pub(super) fn total(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    pub(super) fn are_in_flight(&self) -> bool {
        self.in_flight() > 0
    }

    pub(super) fn received(&self, heads: u64, is_within_head: bool) {
        self.heads.store(heads, Ordering::Relaxed);
        self.more.store(is_within_head, Ordering::Relaxed);
    }

    pub(super) fn set_more(&self, more: bool) {
        self.more.store(more, Ordering::Relaxed);
    }

    /// Returns whether no request is pipelined behind those that have begun. `Connection: close` would leave it unanswered.
    pub(super) fn is_last(&self) -> bool {
        !self.more.load(Ordering::Relaxed)
            && self.heads.load(Ordering::Relaxed) <= self.begun.load(Ordering::Relaxed)
    }

    /// Registers the task to wake when no request is in flight any more.
    pub(super) fn wait(&self, cx: &Context<'_>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            waiting.waker = Some(cx.waker().clone());
        }
    }

    /// Returns when the last request of a lame duck ended. Its response may not be written yet.
    pub(super) fn last_end(&self) -> Option<Instant> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).last_end
    }

    pub(super) fn set_client_closes(&self) {
        self.client_closes.store(true, Ordering::Relaxed);
    }

    pub(super) fn client_closes(&self) -> bool {
        self.client_closes.load(Ordering::Relaxed)
    }

    /// Notes that the response to the latest request has begun.
    pub(super) fn set_answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    pub(super) fn set_tunnel(&self) {
        self.tunnel.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_tunnel(&self) -> bool {
        self.tunnel.load(Ordering::Relaxed)
    }

    pub(super) fn slot_state(&self) -> &SlotState {
        &self.slot_state
    }

    /// Notes that all requests are answered.
    pub(super) fn set_idle(&self, now: Instant) {
        self.slot_state.set_idle(self.drain.millis(now));
    }

    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.slot_state.idle_since().map(|since| self.drain.0.epoch + Duration::from_millis(since))
    }

    /// Returns the eviction priority, and since when the connection has been idle, if it may be evicted.
    pub(super) fn candidate(&self) -> Option<(EvictionPriority, u64)> {
        let since = self.slot_state.idle_since()?;
        let (begun, heads) = (self.begun.load(Ordering::Relaxed), self.heads.load(Ordering::Relaxed));
        if self.are_in_flight() || heads > begun {
            return None;
        }
        let priority = match self.protocol() {
            Protocol::Other => return None,
            Protocol::Unknown => EvictionPriority::Silent,
            // A handshake with a distant client takes some time, so it is not treated as silent.
            Protocol::Handshake => EvictionPriority::Incomplete,
            Protocol::Http1 | Protocol::Http2 if begun == 0 => EvictionPriority::Incomplete,
            Protocol::Http1 | Protocol::Http2 => EvictionPriority::Idle,
        };
        Some((priority, since))
    }

    /// Refuses the request to leave, because data has arrived meanwhile.
    pub(super) fn stay(&self, now: Instant) {
        if self.slot_state.answer() {
            // The idle time starts again, so the connection is not asked again at once.
            self.set_idle(now);
            self.drain.answered(false);
        }
    }

    /// Notes that the connection is closed, which also answers a request to leave.
    pub(super) fn leave(&self) {
        if self.slot_state.answer() {
            self.drain.answered(true);
        }
    }

    pub(super) fn set_unframed(&self, unframed: bool) {
        self.unframed.store(unframed, Ordering::Relaxed);
    }

    pub(super) fn is_unframed(&self) -> bool {
        self.unframed.load(Ordering::Relaxed)
    }

    pub(super) fn set_goaway(&self) {
        self.goaway.store(true, Ordering::Relaxed);
    }

    pub(super) fn says_goaway(&self) -> bool {
        self.goaway.load(Ordering::Relaxed)
    }

    pub(super) fn set_protocol(&self, protocol: Protocol) {
        self.protocol.store(protocol as u8, Ordering::Relaxed);
    }

    pub(super) fn protocol(&self) -> Protocol {
        const HANDSHAKE: u8 = Protocol::Handshake as u8;
        const UNKNOWN: u8 = Protocol::Unknown as u8;
        const HTTP1: u8 = Protocol::Http1 as u8;
        const HTTP2: u8 = Protocol::Http2 as u8;
        match self.protocol.load(Ordering::Relaxed) {
            HANDSHAKE => Protocol::Handshake,
            UNKNOWN => Protocol::Unknown,
            HTTP1 => Protocol::Http1,
            HTTP2 => Protocol::Http2,
            _ => Protocol::Other,
        }
    }
}

/// A request in flight: the service has it, and its response body has not ended.
#[derive(Debug)]
pub(super) struct InFlight(pub(super) Arc<Requests>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let requests = &self.0;
        // HTTP/2 streams end on any thread. AcqRel makes all that the others saw begin visible to the last one.
        let ended = requests.ended.fetch_add(1, Ordering::AcqRel) + 1;
        let last = ended == requests.begun.load(Ordering::Relaxed);
        if last && requests.protocol() == Protocol::Http2 {
            // The connection checks separately whether all output is written.
            requests.set_idle(Instant::now());
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
