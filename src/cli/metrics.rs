//! Numbers for Prometheus. The totals go on over generations: whoever is asked asks its siblings for theirs, and a
//! generation that leaves tells the others what it counted to its last connection.

use std::fmt::Error;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use handover::{Connections, Event, Handle, Outcome, Status};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

mod counts;
pub(crate) mod siblings;
pub(crate) use counts::Ledger;
use counts::{BOUNDS, Counts};

use super::control::place::secret;

/// What this generation counts, and what it knows of the others.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    handle: Handle,
    /// By status, from 100 to 999.
    requests: Vec<AtomicU64>,
    /// The rest of what this generation counts.
    own: Mutex<Counts>,
    others: Mutex<Ledger>,
    /// Where the others are to be found.
    siblings: Mutex<Option<PathBuf>>,
    /// What all generations of this server are known by, once it is known.
    service: OnceLock<String>,
}

impl Metrics {
    /// Counts the handovers of this generation until it has left.
    pub(crate) fn new(handle: &Handle) -> Metrics {
        let metrics = Metrics(Arc::new(Shared {
            handle: handle.clone(),
            requests: (0..900).map(|_| AtomicU64::new(0)).collect(),
            own: Mutex::default(),
            others: Mutex::default(),
            siblings: Mutex::default(),
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

    /// The others have their sockets in this directory. Without one each generation counts for itself. Another server may
    /// have its own there, too, so a successor asks its predecessor what theirs are known by.
    pub(crate) async fn join(&self, siblings: PathBuf, predecessor: Option<u32>) {
        let service = match predecessor {
            None => Some(format!("{}-{}", std::process::id(), secret())),
            Some(pid) => siblings::of(&siblings, pid).await.and_then(|ledger| ledger.service),
        };
        if let Some(service) = service {
            let _ = self.0.service.set(service);
        }
        self.moved(siblings);
    }

    /// They are in this directory now.
    pub(crate) fn moved(&self, siblings: PathBuf) {
        *lock(&self.0.siblings) = Some(siblings);
    }

    /// Where they are.
    pub(crate) fn siblings(&self) -> Option<PathBuf> {
        lock(&self.0.siblings).clone()
    }

    /// What all generations of this server are known by, if they are.
    pub(crate) fn service(&self) -> Option<&str> {
        self.0.service.get().map(String::as_str)
    }

    pub(crate) fn answered(&self, status: hyper::StatusCode) {
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

    /// What is known now without asking, this generation included.
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

    /// Another generation tells what it knows. An older version does not say whose it is.
    pub(crate) fn learn(&self, other: Ledger) {
        let is_ours = |service: &String| self.service().is_none_or(|ours| ours == service);
        if other.service.as_ref().is_none_or(is_ours) {
            lock(&self.0.others).merge(other);
        }
    }

    /// This generation has left: the others go on with its counts.
    pub(crate) async fn leave(&self, outcome: &Outcome) {
        self.count(&outcome.connections);
        let mut own = lock(&self.0.own).clone();
        own.finished = outcome.drained.finished;
        own.cut = outcome.drained.cut;
        own.requests_cut = outcome.drained.requests_cut;
        *lock(&self.0.own) = own;
        let mut ledger = self.with_own();
        ledger.condense(self.0.handle.generation());
        if let Some(dir) = self.siblings() {
            siblings::tell(&dir, &ledger).await;
        }
    }

    /// The text that Prometheus reads; in the OpenMetrics form if it is asked for, else in the older one. `None` when this
    /// generation has left.
    pub(crate) async fn text(&self, open_metrics: bool) -> Option<String> {
        if let Some(dir) = self.siblings() {
            siblings::gather(&dir).await.into_iter().for_each(|ledger| self.learn(ledger));
        }
        let status = self.0.handle.status().await?;
        self.count(&status.connections);
        let total = self.with_own().total();
        let mut registry = Registry::with_prefix("handover");
        registry.register_collector(Box::new(Snapshot { status, total }));
        let mut text = String::new();
        // Cannot fail because writing to a string does not.
        let _ = text::encode(&mut text, &registry);
        Some(if open_metrics { text } else { older(&text) })
    }
}

/// The form 0.0.4: the name of a counter ends in `_total` also where its type is said, and there is neither a unit nor an end.
fn older(text: &str) -> String {
    let mut counters = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter")) {
            counters.insert(name);
        }
    }
    let mut older = String::with_capacity(text.len());
    for line in text.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what), Some(name), Some(rest)) if counters.contains(name) => {
                older.push_str(&format!("# {what} {name}_total {rest}\n"));
            }
            _ => older.push_str(&format!("{line}\n")),
        }
    }
    older
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The numbers of one answer.
#[derive(Debug)]
struct Snapshot {
    status: Status,
    total: Counts,
}

impl Collector for Snapshot {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Snapshot { status, total } = self;
        let counters = [
            ("connections", "Connections accepted", total.connections),
            ("connections_evicted", "Connections that made room for others", total.evicted),
            (
                "drained_connections_finished",
                "Connections that ended by themselves in a drain",
                total.finished,
            ),
            ("drained_connections_cut", "Connections that a drain cut at its deadline", total.cut),
            ("drained_requests_cut", "Requests in flight on connections that were cut", total.requests_cut),
        ];
        for (name, help, value) in counters {
            ConstCounter::new(value).encode(to.encode_descriptor(
                name,
                help,
                None,
                MetricType::Counter,
            )?)?;
        }
        let mut requests =
            to.encode_descriptor("requests", "Requests answered, by status", None, MetricType::Counter)?;
        for (status, n) in &total.requests {
            ConstCounter::new(*n).encode(requests.encode_family(&[("status", status.to_string())])?)?;
        }
        let help = "Handovers, by outcome";
        let mut handovers = to.encode_descriptor("handovers", help, None, MetricType::Counter)?;
        for outcome in ["took over", "failed", "taken back"] {
            let n = total.handovers.get(outcome).copied().unwrap_or(0);
            ConstCounter::new(n).encode(handovers.encode_family(&[("outcome", outcome)])?)?;
        }
        let help = "From the start of a successor until it served";
        let mut took = to.encode_descriptor("duration", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(total.took).collect();
        took.encode_histogram::<NoLabelSet>(total.took_seconds, total.took.iter().sum(), &buckets, None)?;
        let gauges = [
            ("connections_open", "Connections open on this generation", status.connections.open),
            ("requests_in_flight", "Requests in flight on this generation", status.connections.in_flight),
            ("generation", "The number of the generation that answers", status.generation),
        ];
        for (name, help, value) in gauges {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(to.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let help = "The version of the generation that answers";
        let mut build = to.encode_descriptor("build_info", help, None, MetricType::Gauge)?;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        ConstGauge::new(1_i64).encode(build.encode_family(&version)?)
    }
}
