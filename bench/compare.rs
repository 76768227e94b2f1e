//! Every contestant under the same load while it is restarted, and what it lost.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::contestants::{Contestant, Running, Setting};
use crate::load::{Clients, Load, Report};
use crate::measure::Measured;
use crate::plot::{Loss, losses};

/// Restarts begin so far apart, or farther: when the old processes of the one before have left.
const APART: Duration = Duration::from_millis(1500);
/// After this the next restart begins anyway.
const PATIENCE: Duration = Duration::from_secs(20);
const CLIENTS: usize = 64;

/// One contestant under one load.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) contestant: &'static str,
    pub(crate) start: &'static str,
    pub(crate) restart: &'static str,
    pub(crate) workload: &'static str,
    /// What was measured, or why nothing was.
    pub(crate) version: Result<String, String>,
    pub(crate) outcome: Result<Outcome, String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) measured: Measured,
    /// Processes that answered: more than one for each restart where several workers do.
    pub(crate) answerers: usize,
    /// Those that a client knew to be lost from one restart to the next.
    pub(crate) failed_by_restart: Vec<u64>,
    /// The same before the first restart.
    pub(crate) failed_before: u64,
    /// Restarts whose old processes did not leave in time.
    pub(crate) unsettled: u64,
}

/// Prints each as it comes.
pub(crate) async fn compare(quick: bool, pictures: Option<&Path>) -> Vec<Comparison> {
    // The rare losses need more than a few to show.
    let restarts = if quick { 2 } else { 10 };
    let keep_alive = Clients::KeepAlive { pause: Duration::from_millis(10) };
    let workloads = [("fresh", Clients::Fresh), ("keep-alive", keep_alive)];
    let setting = Setting::default();
    println!("\n{CLIENTS} clients, {restarts} restarts");
    let mut comparisons = Vec::new();
    for contestant in Contestant::all() {
        let version = block_in_place(|| contestant.version());
        for (workload, clients) in workloads {
            let outcome = match &version {
                Ok(_) => measure(&contestant, &setting, clients, restarts).await,
                Err(why) => Err(format!("missing: {why}")),
            };
            let Contestant { name, start, restart, .. } = contestant;
            let comparison =
                Comparison { contestant: name, start, restart, workload, version: version.clone(), outcome };
            print(&comparison);
            comparisons.push(comparison);
        }
    }
    if let Some(dir) = pictures {
        losses(&dir.join("losses.svg"), &workloads.map(|(name, _)| name.to_owned()), &lost(&comparisons));
    }
    comparisons
}

/// A row for each contestant, with its workloads in their order.
fn lost(comparisons: &[Comparison]) -> Vec<Loss> {
    let per_restart = |one: &Comparison| {
        let outcome = one.outcome.as_ref().ok()?;
        Some(outcome.measured.failed as f64 / outcome.measured.restarts as f64)
    };
    let row = |of_one: &[Comparison]| Loss {
        server: of_one[0].contestant.to_owned(),
        per_restart: of_one.iter().map(per_restart).collect(),
    };
    comparisons.chunk_by(|one, next| one.contestant == next.contestant).map(row).collect()
}

/// Every contestant with its version, or why it is missing.
pub(crate) fn list() {
    for contestant in Contestant::all() {
        let version = contestant.version().unwrap_or_else(|why| format!("missing: {why}"));
        println!("{:<32}{version}", contestant.name);
        println!("    {}\n    {}", contestant.start, contestant.restart);
    }
}

async fn measure(
    contestant: &Contestant,
    setting: &Setting,
    clients: Clients,
    restarts: u32,
) -> Result<Outcome, String> {
    let mut server = block_in_place(|| contestant.start(setting))?;
    let load = Load::start(server.address(), clients, CLIENTS);
    let restarted = restart_under_load(&mut server, &load, restarts).await;
    let report = load.stop().await;
    let (asked, unsettled) = restarted?;
    Ok(outcome(&report, &asked, unsettled))
}

/// When each restart began, and how many did not settle.
async fn restart_under_load(
    server: &mut Running,
    load: &Load,
    restarts: u32,
) -> Result<(Vec<Instant>, u64), String> {
    let begin = Instant::now();
    while !load.is_under_way() {
        if begin.elapsed() > PATIENCE {
            return Err("not every client has got an answer".into());
        }
        sleep(Duration::from_millis(5)).await;
    }
    sleep(Duration::from_millis(500)).await;
    let (mut asked, mut unsettled) = (Vec::new(), 0);
    for _ in 0..restarts {
        let at = Instant::now();
        asked.push(at);
        block_in_place(|| server.restart())?;
        while at.elapsed() < APART || !server.settled() {
            if at.elapsed() > PATIENCE {
                unsettled += 1;
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
    Ok((asked, unsettled))
}

fn outcome(report: &Report, asked: &[Instant], unsettled: u64) -> Outcome {
    let mut outcome = Outcome {
        measured: Measured::of(report, asked),
        answerers: report.first_answers().len(),
        failed_by_restart: vec![0; asked.len()],
        failed_before: 0,
        unsettled,
    };
    for lost in &report.lost {
        match asked.partition_point(|at| *at <= lost.known) {
            0 => outcome.failed_before += 1,
            n => outcome.failed_by_restart[n - 1] += 1,
        }
    }
    outcome
}

fn print(comparison: &Comparison) {
    let Comparison { contestant, workload, version, outcome, .. } = comparison;
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(why) => return println!("{contestant:<32}{workload:<12}{why}"),
    };
    let by_restart: Vec<_> = outcome.failed_by_restart.iter().map(u64::to_string).collect();
    let Measured { requests, failed, failures, .. } = &outcome.measured;
    print!("{contestant:<32}{workload:<12}{requests:>8} requests {failed:>5} failed  ");
    print!("{:<14} {:>2} answered", by_restart.join(" + "), outcome.answerers);
    if outcome.failed_before > 0 {
        print!("  {} before", outcome.failed_before);
    }
    if outcome.unsettled > 0 {
        print!("  {} not settled", outcome.unsettled);
    }
    println!("  {}", version.as_deref().unwrap_or_default());
    for (kind, n) in failures {
        println!("    {n} x {kind}");
    }
}
