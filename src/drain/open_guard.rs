//! One open connection among those of its drain, and its place in a room.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::requests::Requests;
use super::slots::{LingerPermit, Slot};

/// What is counted is the I/O object, so an upgraded connection counts for as long as it lives.
#[derive(Debug)]
pub(super) struct OpenGuard {
    requests: Arc<Requests>,
    /// `None` once it has made room.
    slot: Option<Slot>,
    /// It has made room, and its client's end is waited for.
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

    /// It is closed in normal times. What its client has not read yet of an earlier response must not be destroyed, so it may
    /// linger, and once it has sent its end another connection has its place.
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

    /// Its end is sent: another connection has its place, unless too many linger without one.
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

    /// Returns when its place is needed, if it has one.
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
        // A connection goes before the requests on it do, so here they can still be counted.
        if shared.turn.borrow().told().is_cut() {
            shared.requests_cut.fetch_add(self.requests.in_flight(), Ordering::SeqCst);
        }
        shared.closed.fetch_add(1, Ordering::SeqCst);
        if shared.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            shared.gone.notify_waiters();
        }
        // In this order: no other connection is asked to make room that is there.
        drop(self.slot.take());
        self.requests.leave();
    }
}
