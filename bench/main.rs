//! `cargo bench`: handovers under load, and their cost.
//!
//! Starts the playground as a separate process, generates load, hands over repeatedly, and counts. The exit status is 1 if a
//! single request failed. `cargo bench -- --help` lists the other options.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::Serialize;

mod bare;
mod compare;
mod competitors;
mod files;
mod growth;
mod idle;
mod measure;
mod one_handover;
mod plot;
mod progress;
mod restarts;
mod standby;
mod startup;
mod throughput;
mod workloads;

use support::{chaos, siege};

use workloads::{Run, Workload, playground};

#[derive(Debug, Parser)]
struct Cli {
    /// Workloads to run; by default all except standby (5 minutes), chaos (10 minutes) and siege (an hour)
    #[arg(value_parser = what, value_name = "WORKLOAD")]
    workloads: Vec<What>,
    /// List the workloads and exit
    #[arg(long)]
    list: bool,
    /// Run 3 handovers instead of 20, and less of everything else; chaos for 1 minute instead of 10, siege for 1 instead of 60; with --compare 1 restart and 2 loads
    #[arg(long)]
    quick: bool,
    /// Restart this server and others under the same loads: the named workloads, or six by default. With `files` instead: the throughput of serving files, without restarts
    #[arg(long)]
    compare: bool,
    /// Repeat chaos with this seed
    #[arg(long)]
    seed: Option<u64>,
    /// Write all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw pictures (SVG) in this directory
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Workload(Workload),
    Other(Other),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Other {
    /// 10,000 idle connections, and their effect on new ones
    Idle,
    /// Throughput next to bare hyper, without handovers
    Throughput,
    /// Time from the signal until a successor serves, next to a start without a predecessor
    Startup,
    /// A handover with 10 to 50,000 connections, and with 1 to 16 addresses
    Growth,
    /// Files over HTTP/1, HTTP/2 and TLS, slow downloads, cold files, memory; with --compare next to nginx and static-web-server
    Files,
    /// Lost requests over slow networks, for several lengths of standby
    Standby,
    /// Restarts, bad releases, SIGKILL, SIGSTOP and changing load at random
    Chaos,
    /// Hostile clients of every kind at once, next to honest ones and handovers
    Siege,
}

/// All figures of a run.
#[derive(Debug, Default, Serialize)]
struct Figures {
    workloads: Vec<Run>,
    idle: Option<idle::Idle>,
    throughput: Option<throughput::Throughput>,
    startup: Option<startup::Startup>,
    growth: Vec<growth::Point>,
    files: Option<files::Files>,
    comparisons: Vec<compare::Comparison>,
    file_servers: Option<files::Comparison>,
    standby: Vec<standby::Cell>,
    chaos: Option<Chaos>,
    siege: Option<siege::Tally>,
}

#[derive(Debug, Serialize)]
struct Chaos {
    seed: u64,
    seconds: u64,
    /// The counts, or the broken promise with the steps that led to it.
    outcome: Result<chaos::Tally, String>,
}

fn what(name: &str) -> Result<What, String> {
    Workload::from_str(name, false)
        .map(What::Workload)
        .or_else(|_| Other::from_str(name, false).map(What::Other))
        .map_err(|_| "no such workload: see `cargo bench -- --list`".to_owned())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some(bare::ARGUMENT) => bare::serve(),
        Some(compare::IN_NETNS) => compare::on_the_bed(&args[1..]),
        Some(standby::CELL) => standby::cell(&args[1..]),
        Some(competitors::REFUSE_STEERING) => return competitors::refuse_steering(&args[1..]),
        Some(workloads::IN_NETNS) => workloads::on_the_bed(&args[1..]),
        _ => return run(&Cli::parse()),
    }
    ExitCode::SUCCESS
}

fn run(cli: &Cli) -> ExitCode {
    if cli.list {
        list();
        return ExitCode::SUCCESS;
    }
    // cargo starts the bench in the folder of its package, but the user names files relative to the repository.
    let moved = std::env::set_current_dir(support::root());
    assert!(moved.is_ok(), "{moved:?}");
    build_playground();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    // In a task, because `block_in_place` works only there.
    let failed = runtime.expect("a runtime").block_on(bench(cli));
    println!("\nfailed requests in all: {failed}");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn list() {
    let say = |value: &clap::builder::PossibleValue| {
        println!("{:<18}{}", value.get_name(), value.get_help().map(ToString::to_string).unwrap_or_default());
    };
    Workload::ALL.iter().filter_map(Workload::to_possible_value).for_each(|value| say(&value));
    Other::value_variants().iter().filter_map(Other::to_possible_value).for_each(|value| say(&value));
    println!("\n--compare, each with its start and restart commands:");
    compare::list();
}

async fn bench(cli: &Cli) -> u64 {
    let handovers = if cli.quick { 3 } else { 20 };
    let named = |what| cli.workloads.contains(&what);
    let runs = |what| named(what) || cli.workloads.is_empty() && !cli.compare;
    let mut figures = Figures::default();
    let mut failed = 0;
    for workload in Workload::ALL {
        if !cli.compare && runs(What::Workload(*workload)) {
            match workload.run(handovers).await {
                Ok(runs) => {
                    failed += runs.iter().map(|run| run.measured.failed).sum::<u64>();
                    figures.workloads.extend(runs);
                }
                Err(why) => println!("  skipped: {why}"),
            }
        }
    }
    if runs(What::Other(Other::Idle)) {
        let idle = idle::idle(handovers.div_ceil(4)).await;
        failed += idle.measured.failed;
        figures.idle = Some(idle);
    }
    if runs(What::Other(Other::Throughput)) {
        figures.throughput = Some(throughput::throughput(5 * handovers + 1).await);
    }
    if runs(What::Other(Other::Startup)) {
        figures.startup = Some(startup::startup(2 * handovers + 1));
    }
    if runs(What::Other(Other::Growth)) {
        figures.growth = growth::growth(cli.quick, cli.pictures.as_deref()).await;
    }
    let files = What::Other(Other::Files);
    if !cli.compare && runs(files) {
        let files = files::files(cli.quick, handovers).await;
        failed += files.failed();
        figures.files = Some(files);
    }
    if cli.compare && named(files) {
        match tokio::task::block_in_place(|| files::compare(cli.quick)) {
            Ok(compared) => {
                failed += compared.failed();
                figures.file_servers = Some(compared);
            }
            Err(why) => println!("  skipped: {why}"),
        }
    }
    let loads: Vec<_> = Workload::ALL.iter().copied().filter(|load| named(What::Workload(*load))).collect();
    // `--compare files` alone restarts no server.
    if cli.compare && !(loads.is_empty() && named(files)) {
        figures.comparisons = compare::compare(&loads, cli.quick, cli.pictures.as_deref()).await;
    }
    if let Some(pictures) = &cli.pictures {
        failed += one_handover::one_handover(pictures).await;
    }
    if named(What::Other(Other::Standby)) {
        figures.standby = standby::sweep(cli.quick);
    }
    if named(What::Other(Other::Chaos)) {
        let time = Duration::from_secs(if cli.quick { 60 } else { 600 });
        let chaos = chaos(cli.seed.unwrap_or_else(|| fastrand::u64(..)), time).await;
        failed += u64::from(chaos.outcome.is_err());
        figures.chaos = Some(chaos);
    }
    if named(What::Other(Other::Siege)) {
        let (tally, broken) = besiege(cli.quick).await;
        failed += tally.failed().max(broken.len() as u64);
        figures.siege = Some(tally);
    }
    if let Some(path) = &cli.json {
        let text = serde_json::to_string_pretty(&figures).expect("figures are plain data");
        std::fs::write(path, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
    }
    failed
}

async fn chaos(seed: u64, time: Duration) -> Chaos {
    println!("\nchaos: {time:?} with --seed {seed}");
    let outcome = chaos::run(&playground(), seed, time).await;
    match &outcome {
        Ok(tally) => println!("  {tally}"),
        Err(broken) => println!("  {broken}"),
    }
    Chaos { seed, seconds: time.as_secs(), outcome }
}

/// Runs the siege; returns its outcome and the broken promises.
async fn besiege(quick: bool) -> (siege::Tally, Vec<String>) {
    let plan = siege::Plan::of(quick);
    println!("\nsiege: {:?}, a handover every {:?}", plan.siege, plan.apart);
    let tally = siege::run(env!("CARGO_BIN_EXE_handover").as_ref(), plan).await;
    let broken = tally.broken(0.0);
    println!("{tally}");
    broken.iter().for_each(|promise| println!("  broken: {promise}"));
    (tally, broken)
}

/// Builds the playground, because `cargo bench` builds no examples.
fn build_playground() {
    let built = support::cargo().args(["build", "--release", "--example", "playground"]).status();
    assert!(built.is_ok_and(|status| status.success()), "the playground does not build");
}
