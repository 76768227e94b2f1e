//! Telling connections that the mode has turned, a few at a time. Told at once, ten thousand of them keep both processes
//! of a handover from their work for tens of milliseconds, and all would be closed in the same instant a grace later.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

const WAVES: usize = 256;
/// Up to so many connections are told at once.
pub(super) const FEW: usize = WAVES;
/// More of them at this pace: it takes a quarter of one core, by `cargo bench -- idle`.
const PER_MILLISECOND: usize = 16;

#[derive(Debug)]
pub(super) struct Waves {
    waves: Vec<Arc<Notify>>,
    next: AtomicUsize,
}

impl Waves {
    pub(super) fn new() -> Waves {
        Waves { waves: (0..WAVES).map(|_| Arc::default()).collect(), next: AtomicUsize::new(0) }
    }

    /// Connections are spread evenly.
    pub(super) fn next(&self) -> Arc<Notify> {
        Arc::clone(&self.waves[self.next.fetch_add(1, Ordering::Relaxed) % WAVES])
    }

    pub(super) fn tell_all(&self) {
        self.waves.iter().for_each(|wave| wave.notify_waiters());
    }

    /// Tells `connections` at their pace. Another turn meanwhile tells everybody anew.
    pub(super) async fn tell_slowly(&self, connections: usize, is_current: impl Fn() -> bool) {
        let pause = Duration::from_millis(1) * u32::try_from(connections).unwrap_or(u32::MAX)
            / (WAVES * PER_MILLISECOND) as u32;
        for wave in self.waves.iter().take_while(|_| is_current()) {
            wave.notify_waiters();
            sleep(pause).await;
        }
    }
}
