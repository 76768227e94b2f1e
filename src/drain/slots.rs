//! The pools of a drain that limit its connections, and the slot of each connection.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::Drain;

/// How long a connection must be idle before it may be evicted: a client may pause this long between two requests.
const PAUSE: Duration = Duration::from_secs(1);
/// How old a connection without a request must be before it may be evicted: the first request usually follows the handshake at once.
pub(super) const YOUNG: Duration = Duration::from_millis(100);
/// The limit of the reserved pool.
const RESERVED: usize = 64;

/// The pool to which a connection belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pool {
    Public,
    /// Connections to separate addresses for the operators of the server.
    Reserved,
}

#[derive(Debug)]
pub(super) struct Pools {
    /// Taken slots, by pool.
    open: [AtomicUsize; 2],
    /// The number of taken slots at which a new connection has to wait, by pool.
    pub(super) limits: [usize; 2],
    /// How many connections were asked to leave and have not answered.
    pub(super) asked: AtomicUsize,
    /// When connections were last asked, by the clock of the drain.
    pub(super) asked_at: AtomicU64,
    /// How many connections linger without a slot.
    pub(super) leaving: AtomicUsize,
    /// How many connections linger with a slot, by pool, and what wakes the one that has waited longest when its slot is needed.
    pub(super) lingering: [(AtomicUsize, Notify); 2],
    pub(super) evicted: AtomicU64,
}

impl Pools {
    pub(super) fn new(limit: usize) -> Pools {
        Pools {
            open: Default::default(),
            limits: [limit, RESERVED],
            asked: AtomicUsize::new(0),
            asked_at: AtomicU64::new(0),
            leaving: AtomicUsize::new(0),
            lingering: Default::default(),
            evicted: AtomicU64::new(0),
        }
    }

    /// Returns how many connections have been evicted.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    pub(super) fn is_full(&self, pool: Pool) -> bool {
        self.open[pool as usize].load(Ordering::SeqCst) >= self.limits[pool as usize]
    }

    #[cfg(test)]
    pub(super) fn open(&self, pool: Pool) -> usize {
        self.open[pool as usize].load(Ordering::SeqCst)
    }

    /// Takes a slot if one is free. Returns whether it did.
    pub(super) fn take(&self, pool: Pool) -> bool {
        let limit = self.limits[pool as usize];
        let taken = |open: usize| (open < limit).then(|| open + 1);
        self.open[pool as usize].fetch_update(Ordering::SeqCst, Ordering::SeqCst, taken).is_ok()
    }

    pub(super) fn take_anyway(&self, pool: Pool) {
        self.open[pool as usize].fetch_add(1, Ordering::SeqCst);
    }

    /// Gives a slot back. Returns whether a new connection may have waited for it.
    fn give_back(&self, pool: Pool) -> bool {
        self.open[pool as usize].fetch_sub(1, Ordering::SeqCst) == self.limits[pool as usize]
    }
}

/// The slot of one connection in a pool, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    drain: Drain,
    pool: Pool,
}

impl Slot {
    /// Wraps a slot that has already been taken.
    pub(super) fn new(drain: &Drain, pool: Pool) -> Slot {
        Slot { drain: drain.clone(), pool }
    }

    pub(super) fn pool(&self) -> Pool {
        self.pool
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.drain.0.pools.give_back(self.pool) {
            self.drain.0.changed.notify_waiters();
        }
    }
}

/// Allows a connection that has given up its slot to linger while its client may still be sending.
#[derive(Debug)]
pub(super) struct LingerPermit(Drain);

impl LingerPermit {
    /// Wraps a permit that has already been counted.
    pub(super) fn new(drain: &Drain) -> LingerPermit {
        LingerPermit(drain.clone())
    }
}

impl Drop for LingerPermit {
    fn drop(&mut self) {
        self.0.0.pools.leaving.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The state of a connection with regard to its slot.
#[derive(Debug)]
pub(super) struct SlotState {
    pool: Pool,
    /// When the connection was accepted or last became idle, by the clock of the drain; [`BUSY`] while it is not idle.
    idle_since: AtomicU64,
    /// The connection was asked to leave, and has not answered.
    asked: AtomicBool,
}

const BUSY: u64 = u64::MAX;

impl SlotState {
    pub(super) fn new(pool: Pool, now: u64) -> SlotState {
        SlotState { pool, idle_since: AtomicU64::new(now), asked: AtomicBool::new(false) }
    }

    pub(super) fn set_busy(&self) {
        self.idle_since.store(BUSY, Ordering::Relaxed);
    }

    pub(super) fn set_idle(&self, now: u64) {
        self.idle_since.store(now, Ordering::Relaxed);
    }

    pub(super) fn idle_since(&self) -> Option<u64> {
        Some(self.idle_since.load(Ordering::Relaxed)).filter(|since| *since != BUSY)
    }

    pub(super) fn may_be_asked(&self, pool: Pool) -> bool {
        self.pool == pool && !self.is_asked()
    }

    /// Asks the connection to leave. Returns whether it had not been asked already.
    pub(super) fn ask(&self) -> bool {
        !self.asked.swap(true, Ordering::SeqCst)
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Clears the request to leave. Returns whether there was one.
    pub(super) fn answer(&self) -> bool {
        self.asked.swap(false, Ordering::SeqCst)
    }
}

/// The eviction priority of a connection, and since when it has been idle.
pub(super) type Candidate = (EvictionPriority, u64);

/// The order of eviction; the first is evicted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EvictionPriority {
    Silent,
    Incomplete,
    Idle,
}

impl EvictionPriority {
    /// Returns for how many milliseconds a connection must be idle before it may be evicted.
    pub(super) fn waits(self) -> u64 {
        let time = if self == EvictionPriority::Idle { PAUSE } else { YOUNG };
        time.as_millis() as u64
    }
}
