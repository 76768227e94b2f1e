//! The outcome of a run: requests, failures, latencies away from restarts and around them, and the time of each step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use support::load::{Report, Sample};

/// The time before and after a flip that counts as "around" it.
pub(crate) const AROUND: Duration = Duration::from_millis(250);

/// The first part of a run, left out of the steady latency: all clients connect at the same time.
pub(crate) const WARM_UP: Duration = Duration::from_secs(1);

/// The measurements of one workload with one server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) restarts: usize,
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) per_second: f64,
    /// The latency outside of the first second and of the time around each flip.
    pub(crate) steady: Latency,
    /// The latency in the 500 ms around each flip.
    pub(crate) around: Latency,
    /// For each restart, the time from the signal to the first answer of the new generation: an upper bound for the flip.
    pub(crate) flip_ms: Vec<f64>,
    /// For each restart, the time from then to the last answer of an old generation.
    pub(crate) last_old_ms: Vec<f64>,
}

/// Quantiles of the latency in milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// A restart as the clients saw it, from the generations in their answers.
#[derive(Debug)]
struct Flip {
    asked: Instant,
    first_new: Instant,
    /// The generation of the first new answer.
    new: u64,
    old: BTreeSet<u64>,
    /// When the next restart was requested.
    end: Option<Instant>,
}

impl Measured {
    /// Evaluates a run. `asked`: when each restart was requested.
    pub(crate) fn of(report: &Report, asked: &[Instant]) -> Measured {
        Measured::of_part(report, report, asked)
    }

    /// Evaluates some clients of a server. All clients together (`whole`) give the best estimate of each flip.
    pub(crate) fn of_part(report: &Report, whole: &Report, asked: &[Instant]) -> Measured {
        let flips = flips(whole, asked);
        let is_around = |at: Instant| {
            flips.iter().any(|flip| at + AROUND > flip.first_new && at < flip.first_new + AROUND)
        };
        let first = report.first_answers();
        let (around, mut steady): (Vec<&Sample>, Vec<&Sample>) =
            report.samples.iter().partition(|s| is_around(s.at));
        let began = report.samples.iter().map(|s| s.at).min();
        steady.retain(|s| began.is_some_and(|began| s.at >= began + WARM_UP));
        let ended = report.samples.iter().map(|s| s.at + s.took).max();
        let seconds = began.zip(ended).map_or(f64::NAN, |(began, ended)| (ended - began).as_secs_f64());
        Measured {
            restarts: asked.len(),
            requests: report.samples.len() as u64 + report.failed(),
            failed: report.failed(),
            failures: report.failures().into_iter().map(|(kind, n)| (kind.to_owned(), n)).collect(),
            per_second: report.samples.len() as f64 / seconds,
            steady: Latency::of(&steady),
            around: Latency::of(&around),
            flip_ms: flips.iter().filter_map(|flip| Some(ms(*first.get(&flip.new)? - flip.asked))).collect(),
            last_old_ms: flips.iter().map(|flip| ms(flip.last_old(report))).collect(),
        }
    }

    pub(crate) fn print(&self) {
        println!("  requests  {:>9}   failed {}   {:.0}/s", self.requests, self.failed, self.per_second);
        for (kind, n) in &self.failures {
            println!("    {n} x {kind}");
        }
        println!("  latency      p50       p99     p99.9       max   (ms)");
        for (name, l) in [("steady", &self.steady), ("around", &self.around)] {
            println!("  {name:<9}{:>8.2}  {:>8.2}  {:>8.2}  {:>8.2}", l.p50, l.p99, l.p999, l.max);
        }
        self.print_flips();
    }

    pub(crate) fn print_flips(&self) {
        for (name, all) in [
            ("signal to the first new answer", &self.flip_ms),
            ("then to the last old answer", &self.last_old_ms),
        ] {
            if let Some((min, median, max)) = spread(all) {
                println!("  {name}: min {min:.1}  median {median:.1}  max {max:.1} ms");
            }
        }
    }
}

impl Latency {
    pub(crate) fn of(samples: &[&Sample]) -> Latency {
        let mut all = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).expect("valid bounds");
        for sample in samples {
            all.saturating_record(sample.took.as_micros().try_into().unwrap_or(u64::MAX));
        }
        let at = |quantile| all.value_at_quantile(quantile) as f64 / 1000.0;
        Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: all.max() as f64 / 1000.0 }
    }
}

/// The restarts with a new answer. A generation is new in a restart if its first answer came after that restart was requested,
/// and before the next.
fn flips(report: &Report, asked: &[Instant]) -> Vec<Flip> {
    let mut first = report.first_answers().into_iter().map(|(who, at)| (at, who)).collect::<Vec<_>>();
    first.sort_unstable();
    let ends = asked.iter().skip(1).copied().map(Some).chain([None]);
    let flip = |(asked, end): (&Instant, Option<Instant>)| {
        let within = |at: Instant| at > *asked && end.is_none_or(|end| at < end);
        let (first_new, new) = *first.iter().find(|(at, _)| within(*at))?;
        let old = first.iter().filter(|(at, _)| at <= asked).map(|(_, who)| *who).collect();
        Some(Flip { asked: *asked, first_new, new, old, end })
    };
    asked.iter().zip(ends).filter_map(flip).collect()
}

impl Flip {
    /// The time from the first new answer to the last old one in `report`.
    fn last_old(&self, report: &Report) -> Duration {
        let within = |at: &Instant| *at > self.asked && self.end.is_none_or(|end| *at < end);
        let old = report.samples.iter().filter(|s| self.old.contains(&s.generation)).map(|s| s.at + s.took);
        old.filter(within).max().map_or(Duration::ZERO, |at| at.saturating_duration_since(self.first_new))
    }
}

/// The minimum, the median and the maximum.
pub(crate) fn spread(all: &[f64]) -> Option<(f64, f64, f64)> {
    let mut all = all.to_vec();
    all.sort_unstable_by(f64::total_cmp);
    Some((*all.first()?, all[all.len() / 2], *all.last()?))
}

pub(crate) fn median(all: &[f64]) -> f64 {
    spread(all).map_or(f64::NAN, |(_, median, _)| median)
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
