//! Metrics for Prometheus. Totals continue across generations: each generation stores the counts that the others send, and sends
//! its own final counts when it leaves. `control` does the exchange.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::handle::Handle;
use crate::report::{Connections, Event, Outcome};

mod counts;
#[cfg(feature = "metrics")]
mod prometheus;
use counts::Counts;
pub(crate) use counts::Ledger;

/// The counts of this generation, and the last known counts of the others.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    handle: Handle,
    /// Requests by response status, from 100 to 999.
    requests: Vec<AtomicU64>,
    /// The other counts of this generation.
    own: Mutex<Counts>,
    others: Mutex<Ledger>,
    /// The service id that all generations of this server share, once it is known.
    service: OnceLock<String>,
}

impl Metrics {
    /// Creates the metrics and starts a task that counts the handovers until this generation has left.
    pub fn new(handle: &Handle) -> Metrics {
        let metrics = Metrics(Arc::new(Shared {
            handle: handle.clone(),
            requests: (0..900).map(|_| AtomicU64::new(0)).collect(),
            own: Mutex::default(),
            others: Mutex::default(),
            service: OnceLock::new(),
        }));
        let (mut events, counting) = (handle.events(), metrics.clone());
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                counting.happened(&event);
            }
        });
        metrics
    }

    /// Sets the service id that all generations share. Only the first call has an effect.
    pub(crate) fn set_service(&self, service: String) {
        let _ = self.0.service.set(service);
    }

    /// The service id that all generations share, if it is known.
    pub(crate) fn service(&self) -> Option<&str> {
        self.0.service.get().map(String::as_str)
    }

    pub fn answered(&self, status: hyper::StatusCode) {
        if let Some(count) = self.0.requests.get(usize::from(status.as_u16()).wrapping_sub(100)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn happened(&self, event: &Event) {
        let mut own = lock(&self.0.own);
        let outcome = match event {
            Event::HandedOver(handover) => {
                own.took(handover.took.as_secs_f64());
                "took over"
            }
            Event::HandoverFailed(_) => "failed",
            Event::ServesAgain(_) => "taken back",
            _ => return,
        };
        *own.handovers.entry(outcome.to_owned()).or_default() += 1;
    }

    /// The counts of this generation as of now, and those of the others as last received.
    pub(crate) async fn ledger(&self) -> Ledger {
        if let Some(status) = self.0.handle.status().await {
            self.count(&status.connections);
        }
        self.with_own()
    }

    fn count(&self, connections: &Connections) {
        let mut own = lock(&self.0.own);
        own.connections = own.connections.max(connections.accepted);
        own.evicted = own.evicted.max(connections.evicted);
        own.finished = own.finished.max(connections.finished);
    }

    fn with_own(&self) -> Ledger {
        let mut own = lock(&self.0.own).clone();
        for (status, count) in (100..).zip(&self.0.requests) {
            let n = count.load(Ordering::Relaxed);
            if n > 0 {
                own.requests.insert(status, n);
            }
        }
        let mut ledger = lock(&self.0.others);
        ledger.learn(self.0.handle.generation(), std::process::id(), &own);
        let mut ledger = ledger.clone();
        ledger.service = self.service().map(str::to_owned);
        ledger
    }

    /// Merges the ledger of another generation. A ledger of another service is ignored. An older version does not name its
    /// service, and its ledger is merged.
    pub(crate) fn learn(&self, other: Ledger) {
        let is_ours = |service: &String| self.service().is_none_or(|ours| ours == service);
        if other.service.as_ref().is_none_or(is_ours) {
            lock(&self.0.others).merge(other);
        }
    }

    /// The final ledger of this generation, which has left, for the others to continue from.
    pub(crate) fn leave(&self, outcome: &Outcome) -> Ledger {
        self.count(&outcome.connections);
        {
            let mut own = lock(&self.0.own);
            own.finished = outcome.drained.finished;
            own.cut = outcome.drained.cut;
            own.requests_cut = outcome.drained.requests_cut;
        }
        let mut ledger = self.with_own();
        ledger.condense(self.0.handle.generation());
        ledger
    }

    /// The exposition text, in the OpenMetrics format or else in the older Prometheus text format. `None` if this generation has
    /// left.
    #[cfg(feature = "metrics")]
    pub(crate) async fn text(&self, open_metrics: bool) -> Option<String> {
        let status = self.0.handle.status().await?;
        self.count(&status.connections);
        Some(prometheus::text(status, self.with_own().total(), open_metrics))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
