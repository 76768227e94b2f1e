//! The registry of all connections. It tells each one when the mode changes, a few at a time: telling ten thousand connections at
//! once would keep both processes of a handover busy for tens of milliseconds, and all would be closed in the same instant one
//! grace later. It also sums up the requests of all connections, so that no request touches a shared counter.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::mode::VersionedMode;
use super::requests::Requests;

const SHARDS: usize = 256;
/// Up to this many connections are told at once.
pub(super) const TELL_AT_ONCE: usize = SHARDS;
/// The pace at which more connections are told. It takes a quarter of one core, by `cargo bench -- idle`.
const PER_MILLISECOND: usize = 16;

#[derive(Debug)]
pub(super) struct Registry {
    shards: Vec<Arc<Shard>>,
    next: AtomicUsize,
}

#[derive(Debug, Default)]
struct Shard(Mutex<Connections>);

#[derive(Debug, Default)]
struct Connections {
    /// The open connections by number.
    open: HashMap<usize, Entry>,
    /// The number of requests on connections that are gone.
    past_requests: u64,
}

#[derive(Debug)]
struct Entry {
    /// Kept after it has been used: a woken task does not always register again, and must be woken the next time all the same.
    waker: Option<Waker>,
    /// Weak, because `Requests` holds the drain, which holds the registry.
    requests: Weak<Requests>,
}

impl Shard {
    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, mode: VersionedMode) {
        let mut wakers = vec![];
        for entry in self.lock().open.values() {
            if let Some(requests) = entry.requests.upgrade() {
                requests.tell(mode);
                wakers.extend(entry.waker.clone());
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// The registration of one connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Registration {
    shard: Arc<Shard>,
    number: usize,
    requests: Arc<Requests>,
    waker: Option<Waker>,
}

impl Registration {
    /// Registers the task to wake from now on when the mode changes or the connection is asked to leave. Returns whether it is a
    /// different task than before; only then is a lock taken.
    #[inline]
    pub(super) fn wake(&mut self, waker: &Waker) -> bool {
        let is_another = !self.waker.as_ref().is_some_and(|known| known.will_wake(waker));
        if is_another {
            self.set_waker(waker);
        }
        is_another
    }

    #[cold]
    fn set_waker(&mut self, waker: &Waker) {
        self.waker = Some(waker.clone());
        self.shard.lock().open.entry(self.number).and_modify(|entry| entry.waker = Some(waker.clone()));
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Both changes are made under one lock, so that the sum never goes down.
        let mut connections = self.shard.lock();
        if connections.open.remove(&self.number).is_some() {
            connections.past_requests += self.requests.total();
        }
    }
}

impl Registry {
    pub(super) fn new() -> Registry {
        Registry { shards: (0..SHARDS).map(|_| Arc::default()).collect(), next: AtomicUsize::new(0) }
    }

    /// Registers a connection; the shards fill evenly. A connection that registers during a mode change learns the new mode either
    /// here or when its shard is told.
    pub(super) fn register(
        &self,
        requests: &Arc<Requests>,
        mode: &watch::Sender<VersionedMode>,
    ) -> Registration {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let shard = Arc::clone(&self.shards[number % SHARDS]);
        let entry = Entry { waker: None, requests: Arc::downgrade(requests) };
        let mut connections = shard.lock();
        connections.open.insert(number, entry);
        requests.tell(*mode.borrow());
        drop(connections);
        Registration { shard, number, requests: Arc::clone(requests), waker: None }
    }

    pub(super) fn in_flight(&self) -> u64 {
        let mut sum = 0;
        self.each(|requests, _| sum += requests.in_flight());
        sum
    }

    /// Returns the number of requests since the first connection.
    pub(super) fn requests(&self) -> u64 {
        let of = |connections: &Connections| {
            let open = connections.open.values().filter_map(|entry| entry.requests.upgrade());
            connections.past_requests + open.map(|requests| requests.total()).sum::<u64>()
        };
        self.shards.iter().map(|shard| of(&shard.lock())).sum()
    }

    pub(super) fn each(&self, mut each: impl FnMut(&Arc<Requests>, Option<&Waker>)) {
        for shard in &self.shards {
            for entry in shard.lock().open.values() {
                if let Some(requests) = entry.requests.upgrade() {
                    each(&requests, entry.waker.as_ref());
                }
            }
        }
    }

    pub(super) fn tell_all(&self, mode: VersionedMode) {
        self.shards.iter().for_each(|shard| shard.tell(mode));
    }

    /// Tells all connections at [`PER_MILLISECOND`], and stops once the mode has changed again.
    pub(super) async fn tell_slowly(
        &self,
        mode: VersionedMode,
        connections: usize,
        is_current: impl Fn() -> bool,
    ) {
        let pause = Duration::from_millis(1) * u32::try_from(connections).unwrap_or(u32::MAX)
            / (SHARDS * PER_MILLISECOND) as u32;
        for shard in self.shards.iter().take_while(|_| is_current()) {
            shard.tell(mode);
            sleep(pause).await;
        }
    }
}
