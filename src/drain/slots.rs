//! The places that connections have in the rooms of a drain, and what each knows of its own.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::Drain;

/// A connection that has been idle for less makes no room: its client may pause for so long between two requests.
const PAUSE: Duration = Duration::from_secs(1);
/// One that is younger makes none either: its first request follows the handshake at once.
pub(super) const YOUNG: Duration = Duration::from_millis(100);
/// Connections to addresses that have room of their own.
const RESERVED: usize = 64;

/// Which room a connection takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pool {
    Public,
    /// For those who operate the server.
    Reserved,
}

#[derive(Debug)]
pub(super) struct Pools {
    /// Open connections, in each room.
    open: [AtomicUsize; 2],
    /// At so many a new one has to wait.
    pub(super) limits: [usize; 2],
    /// Those that were asked to make room and have not answered.
    pub(super) asked: AtomicUsize,
    /// When some were last asked, by the clock of the drain.
    pub(super) asked_at: AtomicU64,
    /// Those whose end is sent and whose client's is waited for, without a place.
    pub(super) leaving: AtomicUsize,
    /// Those that hold a slot meanwhile: in each pool, how many, and what wakes the one that has waited longest when its slot is needed.
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

    /// Connections that have made room.
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

    /// One more, if there is room.
    pub(super) fn take(&self, pool: Pool) -> bool {
        let limit = self.limits[pool as usize];
        let taken = |open: usize| (open < limit).then(|| open + 1);
        self.open[pool as usize].fetch_update(Ordering::SeqCst, Ordering::SeqCst, taken).is_ok()
    }

    pub(super) fn take_anyway(&self, pool: Pool) {
        self.open[pool as usize].fetch_add(1, Ordering::SeqCst);
    }

    /// Returns whether a new connection may have waited for it.
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
    /// Of one that has been taken.
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
            self.drain.0.gone.notify_waiters();
        }
    }
}

/// Counts a connection that has made room and whose client may still be sending.
#[derive(Debug)]
pub(super) struct LingerPermit(Drain);

impl LingerPermit {
    /// Of one that has been counted.
    pub(super) fn new(drain: &Drain) -> LingerPermit {
        LingerPermit(drain.clone())
    }
}

impl Drop for LingerPermit {
    fn drop(&mut self) {
        self.0.0.pools.leaving.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What a connection knows of its place.
#[derive(Debug)]
pub(super) struct SlotState {
    pool: Pool,
    /// When it was accepted, or has last become idle, by the clock of the drain; [`BUSY`] while it is not.
    idle_since: AtomicU64,
    /// It is asked to make room, and has not answered.
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

    /// Returns whether it was not asked yet.
    pub(super) fn ask(&self) -> bool {
        !self.asked.swap(true, Ordering::SeqCst)
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Returns whether it was asked.
    pub(super) fn answer(&self) -> bool {
        self.asked.swap(false, Ordering::SeqCst)
    }
}

/// How gladly a connection is asked to make room, and since when it could be.
pub(super) type Candidate = (EvictionPriority, u64);

/// In this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EvictionPriority {
    Silent,
    Incomplete,
    Idle,
}

impl EvictionPriority {
    /// After how many milliseconds.
    pub(super) fn waits(self) -> u64 {
        let time = if self == EvictionPriority::Idle { PAUSE } else { YOUNG };
        time.as_millis() as u64
    }
}
