//! What one connection has in flight. Each connection has its own record, because a counter that all requests of a
//! process share costs more than everything else here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

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

#[derive(Debug)]
pub(super) struct Requests {
    drain: Drain,
    remote: SocketAddr,
    local: SocketAddr,
    protocol: AtomicU8,
    in_flight: AtomicUsize,
    /// Since the last request was handed out hyper has asked for more, and there was nothing. It asks only when its own
    /// buffer is empty, so there is no pipelined request that a `Connection: close` would leave unanswered.
    nothing_more: AtomicBool,
    /// Bytes were received since the last request was handed out, while none was in flight.
    head_begun: AtomicBool,
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
            in_flight: AtomicUsize::new(0),
            nothing_more: AtomicBool::new(false),
            head_begun: AtomicBool::new(false),
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

    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.nothing_more.store(false, Ordering::Relaxed);
        self.head_begun.store(false, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    pub(super) fn are_in_flight(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }

    pub(super) fn received(&self) {
        self.nothing_more.store(false, Ordering::Relaxed);
        if !self.are_in_flight() {
            self.head_begun.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn has_head_begun(&self) -> bool {
        self.head_begun.load(Ordering::Relaxed)
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
        let is = |p: &Protocol| *p as u8 == self.protocol.load(Ordering::Relaxed);
        let all = [Protocol::Unknown, Protocol::Http1, Protocol::Http2];
        all.into_iter().find(is).unwrap_or(Protocol::Other)
    }
}

/// A request that was handed to the service and whose response body has not ended.
#[derive(Debug)]
pub(super) struct InFlight(pub(super) Arc<Requests>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.0.is_cut() {
            self.0.drain.0.requests_cut.fetch_add(1, Ordering::SeqCst);
        }
    }
}
