//! The numbers as Prometheus reads them.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::counts::{BOUNDS, Counts};
use crate::report::Status;

/// In the OpenMetrics form, or in the older one.
pub(super) fn text(status: Status, total: Counts, open_metrics: bool) -> String {
    let mut registry = Registry::with_prefix("handover");
    registry.register_collector(Box::new(Snapshot { status, total }));
    let mut text = String::new();
    // Cannot fail because writing to a string does not.
    let _ = text::encode(&mut text, &registry);
    if open_metrics { text } else { older(&text) }
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
