//! Counts one open connection of its drain, and holds its slot in a pool.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::requests::Requests;
use super::slots::{LingerPermit, Slot};

/// Counts a connection as open. The I/O object owns it, so an upgraded connection counts for as long as it lives.
#[derive(Debug)]
pub(super) struct OpenGuard {
    requests: Arc<Requests>,
    /// `None` once the slot is given up.
    slot: Option<Slot>,
    /// The permit to linger without a slot.
    leaving: Option<LingerPermit>,
}

impl OpenGuard {
    pub(super) fn new(requests: &Arc<Requests>, slot: Slot) -> OpenGuard {
        requests.drain().0.open.fetch_add(1, Ordering::SeqCst);
        OpenGuard { requests: Arc::clone(requests), slot: Some(slot), leaving: None }
    }

    pub(super) fn requests(&self) -> &Arc<Requests> {
        &self.requests
    }

    /// Notes that the connection is closed in normal mode. An RST must not destroy a response that the client has not read yet, so
    /// the connection may linger, and gives its slot to another connection once FIN is sent.
    pub(super) fn leave(&mut self) {
        if let Some(slot) = &self.slot
            && self.requests.total() > 0
        {
            self.leaving = self.requests.drain().leaving(slot.pool());
        }
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// Notes that FIN is sent. The slot is given up, unless too many connections linger without one.
    pub(super) fn sent_end(&mut self) {
        let Some(slot) = &self.slot else { return };
        if self.leaving.is_none() {
            self.leaving = self.requests.drain().leaving(slot.pool());
        }
        if self.leaving.is_some() {
            self.slot = None;
            self.requests.leave();
        }
    }

    /// Waits until the slot is needed by a new connection; forever if it has been given up.
    pub(super) async fn slot_needed(&self) {
        match &self.slot {
            Some(slot) => self.requests.drain().slot_needed(slot.pool()).await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        let shared = &self.requests.drain().0;
        // The connection is dropped before its requests are, so they can still be counted here.
        if shared.mode.borrow().told().is_cut() {
            shared.requests_cut.fetch_add(self.requests.in_flight(), Ordering::SeqCst);
        }
        shared.closed.fetch_add(1, Ordering::SeqCst);
        if shared.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            shared.changed.notify_waiters();
        }
        // The slot is free before the answer is noted, so that no other connection is asked to leave in vain.
        drop(self.slot.take());
        self.requests.leave();
    }
}
