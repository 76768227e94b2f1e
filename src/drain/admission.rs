//! How a new connection comes in. When there is no room, the connections that would be missed least make it: silent ones first, then
//! those that never sent a complete request, then the one that has been idle longest, a few at a time, as nginx does it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::Drain;
use super::requests::Requests;
use super::room::{Candidate, Leaving, Place, Room, YOUNG};

/// So many at most make room at a time, and a 64th of all that may be open.
const MOST_AT_ONCE: usize = 32;
/// How soon it is looked again where no connection could make room.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// So many milliseconds is an answer waited for before others are asked.
const ANSWERS: u64 = 20;
/// So many connections whose end is sent may at least be waited for without a place.
const FEW_LEAVING: usize = 16;

impl Drain {
    /// A place whether there is room or not.
    pub(crate) fn place_anyway(&self, room: Room) -> Place {
        self.0.rooms.take_anyway(room);
        Place::new(self, room)
    }

    /// A place as soon as there is one. A lame duck always has one: its listener is steered away from or will close, and what
    /// is in the queue of a listener when it closes is lost. Cancel safe.
    pub(crate) async fn place(&self, room: Room) -> Place {
        loop {
            self.room(room).await;
            if !self.is_normal() {
                return self.place_anyway(room);
            }
            // Another accept loop may have been faster.
            if self.0.rooms.take(room) {
                return Place::new(self, room);
            }
        }
    }

    /// Returns when one more connection may be accepted. Cancel safe.
    pub(super) async fn room(&self, room: Room) {
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
        self.is_normal() && self.0.rooms.is_full(room)
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
        self.0.registry.each(|requests, waker| {
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
        Some(Leaving::new(self))
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
