//! Telling connections that the mode has turned, a few at a time. Told at once, ten thousand of them keep both processes
//! of a handover from their work for tens of milliseconds, and all would be closed in the same instant a grace later.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::time::sleep;

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

/// Who is woken, by the number of the connection. Being woken changes nothing here: a task that is woken does not always
/// come back to ask, and must be woken the next time all the same.
#[derive(Debug, Default)]
struct Wave(Mutex<HashMap<usize, Waker>>);

impl Wave {
    fn tell(&self) {
        let wakers: Vec<_> =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
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
        self.wave.0.lock().unwrap_or_else(PoisonError::into_inner).insert(self.number, waker);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.wave.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

impl Waves {
    pub(super) fn new() -> Waves {
        Waves { waves: (0..WAVES).map(|_| Arc::default()).collect(), next: AtomicUsize::new(0) }
    }

    /// Connections are spread evenly.
    pub(super) fn seat(&self) -> Seat {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Seat { wave: Arc::clone(&self.waves[number % WAVES]), number }
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
