//! Room for new connections. When there is none, the connections that would be missed least make it: silent ones first, then those that
//! never sent a complete request, then the one that has been idle longest, a few at a time, as nginx does it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::requests::Requests;
use super::{Drain, NORMAL};

/// A connection that has been idle for less makes no room: its client may pause for so long between two requests.
const PAUSE: Duration = Duration::from_secs(1);
/// One that is younger makes none either: its first request follows the handshake at once.
const YOUNG: Duration = Duration::from_millis(100);
/// So many at most make room at a time, and a 64th of all that may be open.
const MOST_AT_ONCE: usize = 32;
/// How soon it is looked again where no connection could make room.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// So many milliseconds is an answer waited for before others are asked.
const ANSWERS: u64 = 20;
/// So many connections whose end is sent may at least be waited for without a place.
const FEW_LEAVING: usize = 16;
/// Connections to addresses that have room of their own.
const RESERVED: usize = 64;

/// Which room a connection takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Public,
    /// For those who operate the server.
    Reserved,
}

#[derive(Debug)]
pub(super) struct Rooms {
    /// Open connections, in each room.
    open: [AtomicUsize; 2],
    /// At so many a new one has to wait.
    limits: [usize; 2],
    /// Those that were asked to make room and have not answered.
    asked: AtomicUsize,
    /// When some were last asked, by the clock of the drain.
    asked_at: AtomicU64,
    /// Those whose end is sent and whose client's is waited for, without a place.
    leaving: AtomicUsize,
    /// The same with a place: in each room, how many, and who tells the one that has waited longest that its place is needed.
    lingering: [(AtomicUsize, Notify); 2],
    evicted: AtomicU64,
}

impl Rooms {
    pub(super) fn new(limit: usize) -> Rooms {
        Rooms {
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

    fn is_full(&self, room: Room) -> bool {
        self.open[room as usize].load(Ordering::SeqCst) >= self.limits[room as usize]
    }

    #[cfg(test)]
    pub(super) fn open(&self, room: Room) -> usize {
        self.open[room as usize].load(Ordering::SeqCst)
    }

    /// One more, if there is room.
    fn take(&self, room: Room) -> bool {
        let limit = self.limits[room as usize];
        let taken = |open: usize| (open < limit).then(|| open + 1);
        self.open[room as usize].fetch_update(Ordering::SeqCst, Ordering::SeqCst, taken).is_ok()
    }

    fn take_anyway(&self, room: Room) {
        self.open[room as usize].fetch_add(1, Ordering::SeqCst);
    }

    /// Returns whether a new connection may have waited for it.
    fn give_back(&self, room: Room) -> bool {
        self.open[room as usize].fetch_sub(1, Ordering::SeqCst) == self.limits[room as usize]
    }
}

/// The place of one connection in a room, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    drain: Drain,
    room: Room,
}

impl Place {
    pub(super) fn room(&self) -> Room {
        self.room
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.drain.0.rooms.give_back(self.room) {
            self.drain.0.gone.notify_waiters();
        }
    }
}

/// Counts a connection that has made room and whose client may still be sending.
#[derive(Debug)]
pub(super) struct Leaving(Drain);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.0.rooms.leaving.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What a connection knows of its place.
#[derive(Debug)]
pub(super) struct Tenancy {
    room: Room,
    /// When it was accepted, or has last become idle, by the clock of the drain; [`BUSY`] while it is not.
    idle_since: AtomicU64,
    /// It is asked to make room, and has not answered.
    asked: AtomicBool,
}

const BUSY: u64 = u64::MAX;

impl Tenancy {
    pub(super) fn new(room: Room, now: u64) -> Tenancy {
        Tenancy { room, idle_since: AtomicU64::new(now), asked: AtomicBool::new(false) }
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

    fn may_be_asked(&self, room: Room) -> bool {
        self.room == room && !self.is_asked()
    }

    /// Returns whether it was not asked yet.
    fn ask(&self) -> bool {
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
type Candidate = (Gladness, u64);

/// In this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Gladness {
    Silent,
    Incomplete,
    Idle,
}

impl Gladness {
    /// After how many milliseconds.
    fn waits(self) -> u64 {
        let time = if self == Gladness::Idle { PAUSE } else { YOUNG };
        time.as_millis() as u64
    }
}

impl Drain {
    /// A place whether there is room or not.
    pub(crate) fn place_anyway(&self, room: Room) -> Place {
        self.0.rooms.take_anyway(room);
        Place { drain: self.clone(), room }
    }

    /// A place as soon as there is one. A lame duck always has one: its listener is steered away from or will close, and what
    /// is in the queue of a listener when it closes is lost. Cancel safe.
    pub(crate) async fn place(&self, room: Room) -> Place {
        loop {
            self.room(room).await;
            if !self.is(NORMAL) {
                return self.place_anyway(room);
            }
            // Another accept loop may have been faster.
            if self.0.rooms.take(room) {
                return Place { drain: self.clone(), room };
            }
        }
    }

    /// Returns when one more connection may be accepted. Cancel safe.
    pub(crate) async fn room(&self, room: Room) {
        while self.is_full(room) {
            let gone = self.0.gone.notified();
            if !self.is_full(room) {
                return;
            }
            self.make_room(room);
            // Those who were asked may take long to answer on a busy machine, and others become old enough.
            let _ = timeout(LOOK_AGAIN, gone).await;
        }
    }

    pub(crate) fn is_full(&self, room: Room) -> bool {
        self.is(NORMAL) && self.0.rooms.is_full(room)
    }

    /// Asks a few of those that can make room, unless some have been asked that have not answered.
    pub(crate) fn make_room(&self, room: Room) {
        let (rooms, now) = (&self.0.rooms, self.millis(Instant::now()));
        let waits = now < rooms.asked_at.load(Ordering::SeqCst) + ANSWERS;
        if rooms.asked.load(Ordering::SeqCst) > 0 && waits {
            return;
        }
        rooms.asked_at.store(now, Ordering::SeqCst);
        let most = (rooms.limits[room as usize] / 64).clamp(1, MOST_AT_ONCE);
        let mut best: Vec<(Candidate, Arc<Requests>, Waker)> = Vec::with_capacity(most + 1);
        self.0.waves.each(|requests, waker| {
            let Some(waker) = waker.filter(|_| requests.tenancy().may_be_asked(room)) else { return };
            let old_enough = |(gladness, since): &Candidate| now >= since + gladness.waits();
            let Some(candidate) = requests.candidate().filter(old_enough) else { return };
            let at = best.partition_point(|(other, ..)| *other <= candidate);
            if at < most {
                best.insert(at, (candidate, Arc::clone(requests), waker.clone()));
                best.truncate(most);
            }
        });
        let (lingering, crowded) = &rooms.lingering[room as usize];
        if best.is_empty() && lingering.load(Ordering::SeqCst) > 0 {
            crowded.notify_one();
        }
        for (_, requests, waker) in best {
            // In this order, because it may answer at once.
            rooms.asked.fetch_add(1, Ordering::SeqCst);
            if requests.tenancy().ask() {
                waker.wake();
            } else {
                rooms.asked.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// One that was asked has answered: it leaves, or something has arrived on it.
    pub(super) fn answered(&self, leaves: bool) {
        self.0.rooms.asked.fetch_sub(1, Ordering::SeqCst);
        if leaves {
            self.0.rooms.evicted.fetch_add(1, Ordering::Relaxed);
        } else {
            self.0.gone.notify_waiters();
        }
    }

    /// Whether one more connection may be waited for until its client has ended, without a place: as many as an eighth of those
    /// that may be open, or 16.
    pub(super) fn leaving(&self, room: Room) -> Option<Leaving> {
        let most = (self.0.rooms.limits[room as usize] / 8).max(FEW_LEAVING);
        let one_more = |leaving: usize| (leaving < most).then(|| leaving + 1);
        let leaving = &self.0.rooms.leaving;
        leaving.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        Some(Leaving(self.clone()))
    }

    /// Returns when a connection whose client's end is waited for had better be closed, because a new one needs its place.
    /// Cancel safe.
    pub(super) async fn crowded_out(&self, room: Room) {
        sleep(YOUNG).await;
        let (lingering, crowded) = &self.0.rooms.lingering[room as usize];
        lingering.fetch_add(1, Ordering::SeqCst);
        let _one_less = OneLess(lingering);
        crowded.notified().await;
    }
}

struct OneLess<'a>(&'a AtomicUsize);

impl Drop for OneLess<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
