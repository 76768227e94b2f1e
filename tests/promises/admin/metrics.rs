//! The metrics, checked with Prometheus' own parser.

use std::process::Command;

use support::harness::{Traffic, skip, wait_until};
use support::load::Clients;

use super::{Administered, ask, feed};

/// The sum of the samples with this name and with `label` in their labels.
fn sample(text: &str, name: &str, label: &str) -> u64 {
    let lines =
        text.lines().filter(|line| !line.starts_with('#') && line.starts_with(name) && line.contains(label));
    let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.sum::<f64>() as u64
}

fn scrape(service: &Administered) -> String {
    let (status, text) = service.ask("GET", "/metrics");
    assert_eq!(status, 200, "{text}");
    text
}

#[test]
fn totals_continue_over_five_handovers_and_prometheus_can_read_them() {
    let service = Administered::start(&["--idle-grace=200ms"]);
    let fresh = Traffic::start(service.site(), Clients::Fresh, 4);
    let pause = std::time::Duration::from_millis(20);
    let kept = Traffic::start(service.site(), Clients::KeepAlive { pause }, 16);
    let mut texts = vec![scrape(&service)];
    for _ in 0..5 {
        assert_eq!(service.ask("POST", "/reload").0, 200);
        texts.push(scrape(&service));
    }
    let answered = [fresh, kept].map(|traffic| traffic.stop_lossless(&service.server).samples.len() as u64);
    let expected: u64 = answered.iter().sum();
    wait_until("every request is counted", &service.server, || {
        texts.push(scrape(&service));
        sample(&texts[texts.len() - 1], "handover_requests_total", "status=\"200\"") == expected
    });
    (1..=5).for_each(|generation| service.server.wait_retired(generation));
    texts.push(scrape(&service));
    let last = &texts[texts.len() - 1];
    assert_eq!(sample(last, "handover_requests_total", "status=\"200\""), expected, "{last}");
    assert_eq!(sample(last, "handover_handovers_total", "took over"), 5, "{last}");
    assert_eq!(sample(last, "handover_handovers_total", "failed"), 0, "{last}");
    assert_eq!(sample(last, "handover_duration_seconds_count", ""), 5, "{last}");
    assert_eq!(sample(last, "handover_generation", ""), 6, "{last}");
    assert_eq!(sample(last, "handover_drained_connections_cut_total", ""), 0, "{last}");
    for counter in [
        "handover_requests_total",
        "handover_connections_total",
        "handover_drained_connections_finished_total",
    ] {
        let values: Vec<_> = texts.iter().map(|text| sample(text, counter, "")).collect();
        assert!(values.is_sorted(), "{counter}: {values:?}");
    }
    if Command::new("promtool").arg("--version").output().is_err() {
        return skip(
            "promtool is not installed (Debian package prometheus), so its parser does not check the metrics",
        );
    }
    for text in &texts {
        let (content, said) = feed("promtool", &["check", "metrics"], text);
        assert!(content && said.is_empty(), "{said}\n{text}");
    }
}

#[test]
fn a_scraper_that_asks_for_open_metrics_gets_them() {
    let service = Administered::start(&[]);
    let (_, text) =
        ask(service.admin(), "GET", "/metrics", "accept: application/openmetrics-text; version=1.0.0\r\n");
    assert!(text.ends_with("# EOF\n") && text.contains("# TYPE handover_handovers counter\n"), "{text}");
}
