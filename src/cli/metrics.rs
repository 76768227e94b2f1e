//! Numbers for Prometheus. The totals go on over generations: whoever is asked asks its siblings for theirs, and a
//! generation that leaves tells the others what it counted to its last connection.

use std::fmt::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use handover::{Event, Handle, Status};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

mod counts;
pub(crate) use counts::Ledger;
use counts::{BOUNDS, Counts};

/// What this generation counts, and what it knows of the others.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// By status, from 100 to 999.
    requests: Vec<AtomicU64>,
    handovers: Mutex<Counts>,
    others: Mutex<Ledger>,
}

impl Metrics {
    /// Counts the events of this generation until it has left.
    pub(crate) fn new(handle: &Handle) -> Metrics {
        let requests = (0..900).map(|_| AtomicU64::new(0)).collect();
        let metrics =
            Metrics(Arc::new(Shared { requests, handovers: Mutex::default(), others: Mutex::default() }));
        let (mut events, counting) = (handle.events(), metrics.clone());
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                counting.count(&event);
            }
        });
        metrics
    }

    pub(crate) fn answered(&self, status: hyper::StatusCode) {
        if let Some(count) = self.0.requests.get(usize::from(status.as_u16()).wrapping_sub(100)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count(&self, event: &Event) {
        let mut counts = lock(&self.0.handovers);
        let outcome = match event {
            Event::HandedOver(handover) => {
                counts.took(handover.took.as_secs_f64());
                "took over"
            }
            Event::HandoverFailed(_) => "failed",
            Event::ServesAgain(_) => "taken back",
            Event::Left(outcome) => {
                counts.finished = outcome.drained.finished;
                counts.cut = outcome.drained.cut;
                counts.requests_cut = outcome.drained.requests_cut;
                return;
            }
            _ => return,
        };
        *counts.handovers.entry(outcome.to_owned()).or_default() += 1;
    }

    /// What is known now, this generation included.
    pub(crate) fn ledger(&self, status: &Status) -> Ledger {
        let mut counts = lock(&self.0.handovers).clone();
        counts.connections = status.connections.accepted;
        counts.finished = counts.finished.max(status.connections.finished);
        for (status, count) in (100..).zip(&self.0.requests) {
            let n = count.load(Ordering::Relaxed);
            if n > 0 {
                counts.requests.insert(status, n);
            }
        }
        let mut ledger = lock(&self.0.others);
        ledger.learn(status.generation, status.pid, &counts);
        ledger.clone()
    }

    /// Another generation tells what it knows.
    pub(crate) fn learn(&self, other: Ledger) {
        lock(&self.0.others).merge(other);
    }

    /// The text that Prometheus reads; in the OpenMetrics form if it is asked for, else in the older one.
    pub(crate) fn text(&self, status: &Status, open_metrics: bool) -> String {
        let mut registry = Registry::with_prefix("handover");
        let total = self.ledger(status).total();
        registry.register_collector(Box::new(Snapshot { status: status.clone(), total }));
        let mut text = String::new();
        // Cannot fail because writing to a string does not.
        let _ = text::encode(&mut text, &registry);
        if open_metrics { text } else { older(&text) }
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
