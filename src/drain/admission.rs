//! Admission of new connections. When the pool is full, the least valuable connections are evicted: silent ones first, then those that
//! never sent a complete request, then those that have been idle longest, a few at a time, as nginx does it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::Drain;
use super::requests::Requests;
use super::slots::{Candidate, LingerPermit, Pool, Slot, YOUNG};

/// The most connections that are asked to leave at a time. A smaller pool asks a 64th of its limit, but at least one.
const MOST_AT_ONCE: usize = 32;
/// How soon the pool is checked again when no connection could be evicted.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How many milliseconds the connections that were asked have to answer before others are asked.
const ANSWERS: u64 = 20;
/// How many connections may always linger without a slot after their FIN, however small the pool is.
const FEW_LEAVING: usize = 16;

impl Drain {
    /// Takes a slot even if the pool is full.
    pub(crate) fn slot_anyway(&self, pool: Pool) -> Slot {
        self.0.pools.take_anyway(pool);
        Slot::new(self, pool)
    }

    /// Waits for a slot and takes it. A lame duck always gives one: new connections are steered away from its listener or the
    /// listener will close, and connections in the queue of a listener are lost when it closes. Cancel safe.
    pub(crate) async fn slot(&self, pool: Pool) -> Slot {
        loop {
            self.wait_for_slot(pool).await;
            if !self.is_normal() {
                return self.slot_anyway(pool);
            }
            // Another accept loop may have been faster.
            if self.0.pools.take(pool) {
                return Slot::new(self, pool);
            }
        }
    }

    /// Waits until one more connection may be accepted. Cancel safe.
    pub(super) async fn wait_for_slot(&self, pool: Pool) {
        while self.is_full(pool) {
            let changed = self.0.changed.notified();
            if !self.is_full(pool) {
                return;
            }
            self.evict(pool);
            // Connections that were asked may answer late on a busy machine, and more connections become old enough to ask.
            let _ = timeout(LOOK_AGAIN, changed).await;
        }
    }

    pub(crate) fn is_full(&self, pool: Pool) -> bool {
        self.is_normal() && self.0.pools.is_full(pool)
    }

    /// Asks a few connections to leave, unless an earlier request to leave is still unanswered.
    pub(crate) fn evict(&self, pool: Pool) {
        let (pools, now) = (&self.0.pools, self.millis(Instant::now()));
        let waits = now < pools.asked_at.load(Ordering::SeqCst) + ANSWERS;
        if pools.asked.load(Ordering::SeqCst) > 0 && waits {
            return;
        }
        pools.asked_at.store(now, Ordering::SeqCst);
        let most = (pools.limits[pool as usize] / 64).clamp(1, MOST_AT_ONCE);
        let mut best: Vec<(Candidate, Arc<Requests>, Waker)> = Vec::with_capacity(most + 1);
        self.0.registry.each(|requests, waker| {
            let Some(waker) = waker.filter(|_| requests.slot_state().may_be_asked(pool)) else { return };
            let old_enough = |(priority, since): &Candidate| now >= since + priority.waits();
            let Some(candidate) = requests.candidate().filter(old_enough) else { return };
            let at = best.partition_point(|(other, ..)| *other <= candidate);
            if at < most {
                best.insert(at, (candidate, Arc::clone(requests), waker.clone()));
                best.truncate(most);
            }
        });
        let (lingering, needed) = &pools.lingering[pool as usize];
        if best.is_empty() && lingering.load(Ordering::SeqCst) > 0 {
            needed.notify_one();
        }
        for (_, requests, waker) in best {
            // Counted first, because the connection may answer at once.
            pools.asked.fetch_add(1, Ordering::SeqCst);
            if requests.slot_state().ask() {
                waker.wake();
            } else {
                pools.asked.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// Records the answer of a connection that was asked to leave: it leaves, or it stays because data has arrived.
    pub(super) fn answered(&self, leaves: bool) {
        self.0.pools.asked.fetch_sub(1, Ordering::SeqCst);
        if leaves {
            self.0.pools.evicted.fetch_add(1, Ordering::Relaxed);
        } else {
            self.0.changed.notify_waiters();
        }
    }

    /// Returns a permit to linger without a slot, if one is free. There are as many permits as an eighth of the pool's limit, but
    /// at least 16.
    pub(super) fn leaving(&self, pool: Pool) -> Option<LingerPermit> {
        let most = (self.0.pools.limits[pool as usize] / 8).max(FEW_LEAVING);
        let one_more = |leaving: usize| (leaving < most).then(|| leaving + 1);
        let leaving = &self.0.pools.leaving;
        leaving.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        Some(LingerPermit::new(self))
    }

    /// Waits until a new connection needs the slot of a connection that lingers. Cancel safe.
    pub(super) async fn slot_needed(&self, pool: Pool) {
        sleep(YOUNG).await;
        let (lingering, needed) = &self.0.pools.lingering[pool as usize];
        lingering.fetch_add(1, Ordering::SeqCst);
        let _one_less = OneLess(lingering);
        needed.notified().await;
    }
}

struct OneLess<'a>(&'a AtomicUsize);

impl Drop for OneLess<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
