//! Every competitor under the same loads while it is restarted: its lost requests and its resources.
//!
//! Lost requests do not fail the run.

use std::path::Path;
use std::sync::Mutex;

use serde::Serialize;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use crate::competitors::Competitor;
use crate::measure::{Measured, spread};
use crate::plot::{Loss, losses};
use crate::progress::Progress;
use crate::workloads::Workload;

mod run;
mod usage;

use run::{CompetitorRun, Outcome};
pub(crate) use run::{IN_NETNS, on_the_bed};

/// The default workloads, those on loopback first.
const ALL: [Workload; 6] = [
    Workload::Fresh,
    Workload::KeepAlive,
    Workload::Http2,
    Workload::LossyFresh,
    Workload::LossyKeepAlive,
    Workload::LossyHttp2,
];
/// The workloads of `--quick`, which take two minutes with all competitors.
const QUICK: [Workload; 2] = [Workload::Fresh, Workload::KeepAlive];

/// The outcome of one competitor under one load.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) competitor: &'static str,
    pub(crate) start: &'static str,
    pub(crate) restart: &'static str,
    pub(crate) workload: String,
    /// The version that was measured, or why the competitor is missing.
    pub(crate) version: Result<String, String>,
    pub(crate) outcome: Result<Outcome, String>,
}

/// Runs the `named` workloads, or the default ones, and prints each outcome at once.
pub(crate) async fn compare(named: &[Workload], quick: bool, pictures: Option<&Path>) -> Vec<Comparison> {
    let mut workloads = match (named, quick) {
        ([], true) => QUICK.to_vec(),
        ([], false) => ALL.to_vec(),
        _ => named.to_vec(),
    };
    workloads.sort_by_key(|workload| workload.is_lossy());
    println!();
    for workload in &workloads {
        println!("{}: {}; restarts: {}", workload.name(), workload.title(), restarts(*workload, quick));
    }
    println!();
    let mut comparisons = Vec::new();
    for competitor in Competitor::all() {
        let version = block_in_place(|| competitor.version());
        let outcomes = match &version {
            Ok(_) => outcomes(competitor, &workloads, quick).await,
            Err(why) => vec![Err(format!("missing: {why}")); workloads.len()],
        };
        let Competitor { name, start, restart, .. } = competitor;
        println!("{name}  {}", version.as_deref().unwrap_or_default());
        for (workload, outcome) in workloads.iter().zip(outcomes) {
            let (workload, version) = (workload.name(), version.clone());
            let comparison = Comparison { competitor: name, start, restart, workload, version, outcome };
            print(&comparison);
            comparisons.push(comparison);
        }
    }
    if let Some(dir) = pictures {
        let names: Vec<_> = workloads.iter().map(|workload| workload.name()).collect();
        losses(&dir.join("losses.svg"), &names, &lost(&comparisons));
    }
    comparisons
}

/// The number of restarts. Rare losses show only over many restarts; over a lossy network each restart takes 6 s.
fn restarts(workload: Workload, quick: bool) -> u32 {
    match (quick, workload.is_lossy()) {
        (true, _) => 1,
        (false, true) => 5,
        (false, false) => 10,
    }
}

/// Runs all workloads of a competitor: on loopback one after another, because each keeps the whole machine busy; over lossy
/// networks at the same time, because each run has a separate network and mostly waits for packets.
async fn outcomes(
    competitor: Competitor,
    workloads: &[Workload],
    quick: bool,
) -> Vec<Result<Outcome, String>> {
    let run = |workload: &Workload| CompetitorRun {
        competitor,
        workload: *workload,
        restarts: restarts(*workload, quick),
    };
    let (lossy, loopback): (Vec<_>, Vec<_>) =
        workloads.iter().map(run).partition(|run| run.workload.is_lossy());
    let mut outcomes = Vec::new();
    for run in loopback {
        let what = format!("{}, {}", competitor.name, run.workload.name());
        let progress = Progress::named(what, run.restarts);
        let tell = |restart, failed| progress.show(restart, failed);
        outcomes.push(run.run(&Handle::current(), &tell).await);
    }
    let all = lossy.first().map_or(0, |run| run.restarts);
    let progress = Progress::named(format!("{}, lossy", competitor.name), all);
    let seen = Mutex::new(vec![(0, 0); lossy.len()]);
    let progress = |n: usize, restart, failed| {
        let mut seen = seen.lock().expect("its holders never panic");
        seen[n] = (restart, failed);
        let furthest = seen.iter().map(|(restart, _)| *restart).max().unwrap_or_default();
        progress.show(furthest, seen.iter().map(|(_, failed)| failed).sum());
    };
    outcomes.extend(block_in_place(|| over_networks(&lossy, &progress)));
    outcomes
}

fn over_networks(
    runs: &[CompetitorRun],
    progress: &(dyn Fn(usize, u64, u64) + Sync),
) -> Vec<Result<Outcome, String>> {
    std::thread::scope(|scope| {
        let run = |(n, run): (usize, &CompetitorRun)| {
            let run = *run;
            scope.spawn(move || run.run_on_the_bed(&|restart, failed| progress(n, restart, failed)))
        };
        let running: Vec<_> = runs.iter().enumerate().map(run).collect();
        let failed = |_| Err("the process with the network failed".to_owned());
        running.into_iter().map(|one| one.join().unwrap_or_else(failed)).collect()
    })
}

/// The losses of each competitor, in the order of the workloads.
fn lost(comparisons: &[Comparison]) -> Vec<Loss> {
    let per_restart = |one: &Comparison| {
        let outcome = one.outcome.as_ref().ok()?;
        Some(outcome.measured.failed as f64 / outcome.measured.restarts as f64)
    };
    let row = |of_one: &[Comparison]| Loss {
        server: of_one[0].competitor.to_owned(),
        per_restart: of_one.iter().map(per_restart).collect(),
    };
    comparisons.chunk_by(|one, next| one.competitor == next.competitor).map(row).collect()
}

/// Prints every competitor with its version, or why it is missing.
pub(crate) fn list() {
    for competitor in Competitor::all() {
        let version = competitor.version().unwrap_or_else(|why| format!("missing: {why}"));
        println!("{:<32}{version}", competitor.name);
        println!("    {}\n    {}", competitor.start, competitor.restart);
    }
}

fn print(comparison: &Comparison) {
    let Comparison { workload, outcome, .. } = comparison;
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(why) => return println!("  {workload:<18}{why}"),
    };
    let by_restart: Vec<_> = outcome.failed_by_restart.iter().map(u64::to_string).collect();
    let Measured { requests, failed, failures, .. } = &outcome.measured;
    print!("  {workload:<18}{requests:>8} requests {failed:>5} failed");
    if *failed > 0 && by_restart.len() > 1 {
        print!(": {}", by_restart.join(" + "));
    }
    print!(", {} answered", outcome.answerers);
    if outcome.failed_before > 0 {
        print!(", {} before", outcome.failed_before);
    }
    if outcome.unsettled > 0 {
        print!(", {} not settled", outcome.unsettled);
    }
    println!();
    for (kind, n) in failures {
        println!("    {n} x {kind}");
    }
    let usage = &outcome.usage;
    print!("    {:.1} MiB, at most {:.1}", usage.memory_before_mib, usage.memory_most_mib);
    print!("; {:.3} s of CPU per 1,000 requests", usage.cpu_seconds_per_1000);
    match spread(&outcome.gone_ms) {
        Some((_, median, max)) => println!("; old ones gone after {median:.0} ms, at most {max:.0}"),
        None => println!(),
    }
}
