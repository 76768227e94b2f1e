//! `cargo bench`: handovers under load, and what they cost.
//!
//! Starts the playground as a process of its own, loads it from here, hands over again and again, and counts. Exit
//! status 1 if a single request failed. `cargo bench -- --help` says what else there is.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use hdrhistogram::Histogram;
use nix::sys::signal::Signal;
use tokio::time::sleep;

#[path = "../examples/playground/answer.rs"]
mod answer;
mod bare;
mod bed;
#[path = "chaos/run.rs"]
mod chaos;
mod compare;
mod contestants;
mod idle;
mod load;
mod process;
mod standby;

use load::{Clients, Load, Report};
use process::{Server, command, signal};

/// Short, so that restarts can follow each other; long enough for any handshake on loopback.
const STANDBY: Duration = Duration::from_millis(500);
/// The time before and after a flip that counts as "during a handover".
const AROUND: Duration = Duration::from_millis(250);

#[derive(Debug, Parser)]
struct Cli {
    /// What to run; without any, all but standby (5 minutes) and chaos (10 minutes)
    workloads: Vec<Workload>,
    /// 5 handovers instead of 20; chaos for 1 minute instead of 10
    #[arg(long)]
    quick: bool,
    /// Restart other servers under the same load, instead of any workload
    #[arg(long)]
    compare: bool,
    /// Show what --compare compares, with versions, and what of it is missing
    #[arg(long)]
    list: bool,
    /// Repeat the chaos that named this seed
    #[arg(long)]
    seed: Option<u64>,
    /// Cargo says so
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Workload {
    /// A connection for each request
    Fresh,
    /// 256 clients that keep their connections
    KeepAlive,
    /// 10,000 connections without a request, and what new ones feel of them
    Idle,
    /// Beside bare hyper, without handovers
    Throughput,
    /// What is lost over slow networks with standbys of several lengths
    Standby,
    /// Restarts, bad releases, SIGKILL, SIGSTOP and changing load at random
    Chaos,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first() {
        Some(arg) if arg == bare::ARGUMENT => {
            bare::serve();
            return ExitCode::SUCCESS;
        }
        Some(arg) if arg == standby::CELL => {
            standby::cell(&args[1..]);
            return ExitCode::SUCCESS;
        }
        Some(arg) if arg == contestants::REFUSE_STEERING => return contestants::refuse_steering(&args[1..]),
        _ => {}
    }
    let cli = Cli::parse();
    if cli.list {
        compare::list();
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let failed = runtime.expect("a runtime").block_on(bench(&cli));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn bench(cli: &Cli) -> u64 {
    build_playground();
    if cli.compare {
        compare::compare(if cli.quick { 3 } else { 10 }).await;
        return 0;
    }
    let handovers = if cli.quick { 5 } else { 20 };
    let named = |workload| cli.workloads.contains(&workload);
    let runs = |workload| cli.workloads.is_empty() || named(workload);
    let pause = Duration::from_millis(10);
    let mut failed = 0;
    if runs(Workload::Fresh) {
        let title = "fresh: 64 clients, a connection for each request";
        failed += workload(title, Clients::Fresh, 64, handovers).await;
    }
    if runs(Workload::KeepAlive) {
        let title = "keep-alive: 256 clients, 10 ms pauses";
        failed += workload(title, Clients::KeepAlive { pause }, 256, handovers).await;
    }
    if runs(Workload::Idle) {
        failed += idle::idle(handovers.div_ceil(4)).await;
    }
    if runs(Workload::Throughput) {
        throughput(2 * handovers + 1).await;
    }
    if named(Workload::Standby) {
        standby::sweep(cli.quick);
    }
    if named(Workload::Chaos) {
        let time = Duration::from_secs(if cli.quick { 60 } else { 600 });
        failed += chaos(cli.seed.unwrap_or_else(|| fastrand::u64(..)), time).await;
    }
    println!("\nfailed requests in all: {failed}");
    failed
}

async fn chaos(seed: u64, time: Duration) -> u64 {
    println!("\nchaos: {time:?} with --seed {seed}");
    match chaos::run(&playground(), seed, time).await {
        Ok(tally) => {
            println!("  {tally}");
            0
        }
        Err(broken) => {
            println!("  {broken}");
            1
        }
    }
}

async fn workload(title: &str, clients: Clients, count: usize, handovers: u32) -> u64 {
    println!("\n{title}, {handovers} handovers");
    let server = start_playground(&[]);
    let load = Load::start(server.address(), clients, count);
    let mut pid = server.first_pid();
    let mut asked = Vec::new();
    let mut rss = Vec::new();
    sleep(Duration::from_secs(2)).await;
    for generation in 1..=u64::from(handovers) {
        rss.push(rss_mib(pid));
        asked.push(Instant::now());
        signal(pid, Signal::SIGHUP);
        pid = blocking(&server, |s, generation| s.wait_serving(generation), generation + 1).await;
        blocking(&server, |s, generation| s.wait_state(generation, "draining"), generation).await;
        // A steady stretch between two handovers.
        sleep(AROUND * 2).await;
    }
    rss.push(rss_mib(pid));
    let report = load.stop().await;
    print_report(&report, &asked, &rss);
    report.failed()
}

async fn blocking<T: Send + 'static>(server: &Server, wait: fn(&Server, u64) -> T, generation: u64) -> T {
    tokio::task::block_in_place(|| wait(server, generation))
}

fn print_report(report: &Report, asked: &[Instant], rss: &[f64]) {
    let first = report.first_answers();
    let flips: Vec<_> = first.range(2..).map(|(_, at)| *at).collect();
    let is_around = |at: Instant| flips.iter().any(|flip| at + AROUND > *flip && at < *flip + AROUND);
    let mut steady = histogram();
    let mut during = histogram();
    for sample in &report.samples {
        let histogram = if is_around(sample.at) { &mut during } else { &mut steady };
        histogram.saturating_record(sample.took.as_micros().try_into().unwrap_or(u64::MAX));
    }
    println!("  requests  {:>9}   failed {}", report.samples.len() as u64 + report.failed(), report.failed());
    for (kind, n) in &report.failures() {
        println!("    {n} x {kind}");
    }
    println!("  latency      p50       p99     p99.9       max   (ms)");
    for (name, h) in [("steady", &steady), ("handover", &during)] {
        let ms = |q| h.value_at_quantile(q) as f64 / 1000.0;
        let max = h.max() as f64 / 1000.0;
        println!("  {name:<9}{:>8.2}  {:>8.2}  {:>8.2}  {max:>8.2}", ms(0.5), ms(0.99), ms(0.999));
    }
    let mut took: Vec<_> =
        asked.iter().zip(&flips).map(|(hup, flip)| flip.saturating_duration_since(*hup)).collect();
    took.sort_unstable();
    if let (Some(min), Some(max)) = (took.first(), took.last()) {
        let median = took[took.len() / 2];
        println!("  HUP to the successor's first answer: min {min:.1?}  median {median:.1?}  max {max:.1?}");
    }
    let rss: Vec<_> = rss.iter().map(|mib| format!("{mib:.1}")).collect();
    println!("  RSS of each generation, MiB: {}", rss.join(" "));
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("cannot fail because the bounds are valid")
}

fn rss_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(f64::NAN) / 1024.0
}

/// Both servers get the same load by turns, so that noise meets both, and each time as a new process, because how
/// memory and threads happen to lie makes several percent for the whole life of a process.
async fn throughput(rounds: u32) {
    println!("\nthroughput: 64 clients, keep-alive, no pauses, beside bare hyper, {rounds} rounds");
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let ours = rate(start_playground(&[])).await;
        let bare = rate(bare::start()).await;
        rates.push((ours, bare));
    }
    let ratio = median(rates.iter().map(|(ours, bare)| ours / bare).collect());
    let (ours, bare) = rates.into_iter().unzip();
    println!(
        "  handover {:.0}/s   bare hyper {:.0}/s   median of the ratios {ratio:.3}",
        median(ours),
        median(bare)
    );
}

async fn rate(server: Server) -> f64 {
    let load = Load::start(server.address(), Clients::KeepAlive { pause: Duration::ZERO }, 64);
    sleep(Duration::from_millis(150)).await;
    let began = Instant::now();
    sleep(Duration::from_millis(400)).await;
    let until = Instant::now();
    let report = load.stop().await;
    let counted = report.samples.iter().filter(|s| s.at >= began && s.at < until).count();
    counted as f64 / (until - began).as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn start_playground(args: &[&str]) -> Server {
    let mut command = command(playground());
    let standby = format!("{}ms", STANDBY.as_millis());
    command.args(["--listen", "127.0.0.1:0", "--log-format", "json", "--standby", &standby]).args(args);
    Server::start(command)
}

/// The example beside this executable's folder, `target/release/deps`.
fn playground() -> std::path::PathBuf {
    let me = std::env::current_exe().expect("the path of this executable");
    me.ancestors().nth(2).expect("a folder of the target directory").join("examples/playground")
}

/// `cargo bench` builds no examples.
fn build_playground() {
    let built = cargo().args(["build", "--release", "--example", "playground"]).status();
    assert!(built.is_ok_and(|status| status.success()), "the playground does not build");
}

/// Without what `cargo bench` says of this package, which build scripts (that of ring) would take for a change.
fn cargo() -> std::process::Command {
    let mut command = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let ours = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(ours)) {
        command.env_remove(name);
    }
    command
}
