//! Telling connections that the mode has turned, a few at a time. Told at once, ten thousand of them keep both processes
//! of a handover from their work for tens of milliseconds, and all would be closed in the same instant a grace later.
//! As it knows every connection, it also sums up their requests, so that no request touches a counter that all share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::time::sleep;

use super::requests::Requests;

const WAVES: usize = 256;
/// Up to so many connections are told at once.
pub(super) const FEW: usize = WAVES;
/// More of them at this pace: it takes a quarter of one core, by `cargo bench -- idle`.
const PER_MILLISECOND: usize = 16;

#[derive(Debug)]
pub(super) struct Waves {
    waves: Vec<Arc<Wave>>,
    next: AtomicUsize,
}

#[derive(Debug, Default)]
struct Wave(Mutex<Seats>);

#[derive(Debug, Default)]
struct Seats {
    /// By the number of the connection.
    taken: HashMap<usize, Seated>,
    /// The requests of those that are gone.
    past: u64,
}

#[derive(Debug)]
struct Seated {
    /// Being woken changes nothing here: a task that is woken does not always come back to ask, and must be woken the next
    /// time all the same.
    waker: Option<Waker>,
    requests: Arc<Requests>,
}

impl Wave {
    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        let wakers: Vec<_> = self.seats().taken.values().filter_map(|one| one.waker.clone()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// The place of one connection.
#[derive(Debug)]
pub(super) struct Seat {
    wave: Arc<Wave>,
    number: usize,
}

impl Seat {
    /// Has this task woken at every turn from now on, instead of the one before.
    pub(super) fn take(&self, waker: Waker) {
        self.wave.seats().taken.entry(self.number).and_modify(|one| one.waker = Some(waker));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Under one lock, so that the sum never goes down.
        let mut seats = self.wave.seats();
        if let Some(gone) = seats.taken.remove(&self.number) {
            seats.past += gone.requests.total();
        }
    }
}

impl Waves {
    pub(super) fn new() -> Waves {
        Waves { waves: (0..WAVES).map(|_| Arc::default()).collect(), next: AtomicUsize::new(0) }
    }

    /// Connections are spread evenly.
    pub(super) fn seat(&self, requests: &Arc<Requests>) -> Seat {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let wave = Arc::clone(&self.waves[number % WAVES]);
        wave.seats().taken.insert(number, Seated { waker: None, requests: Arc::clone(requests) });
        Seat { wave, number }
    }

    pub(super) fn in_flight(&self) -> u64 {
        let of = |seats: &Seats| seats.taken.values().map(|one| one.requests.in_flight()).sum::<u64>();
        self.waves.iter().map(|wave| of(&wave.seats())).sum()
    }

    /// Since the first connection.
    pub(super) fn requests(&self) -> u64 {
        let of =
            |seats: &Seats| seats.past + seats.taken.values().map(|one| one.requests.total()).sum::<u64>();
        self.waves.iter().map(|wave| of(&wave.seats())).sum()
    }

    pub(super) fn each(&self, mut each: impl FnMut(&Arc<Requests>, Option<&Waker>)) {
        for wave in &self.waves {
            wave.seats().taken.values().for_each(|one| each(&one.requests, one.waker.as_ref()));
        }
    }

    pub(super) fn tell_all(&self) {
        self.waves.iter().for_each(|wave| wave.tell());
    }

    /// Tells `connections` at their pace. Another turn meanwhile tells everybody anew.
    pub(super) async fn tell_slowly(&self, connections: usize, is_current: impl Fn() -> bool) {
        let pause = Duration::from_millis(1) * u32::try_from(connections).unwrap_or(u32::MAX)
            / (WAVES * PER_MILLISECOND) as u32;
        for wave in self.waves.iter().take_while(|_| is_current()) {
            wave.tell();
            sleep(pause).await;
        }
    }
}
