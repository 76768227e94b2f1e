//! Handovers of our own server under each kind of load, on loopback and over a slow network that loses packets.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::bed::{self, Bed, LOSSY, SERVER};
use crate::load::{Clients, Load, Report};
use crate::measure::{AROUND, Measured, ms, spread};
use crate::process::{Server, command, signal};
use crate::progress::Progress;
use crate::resources::{cpu_seconds, rss_mib};

/// Short, so that restarts can follow each other; long enough for any handshake on loopback.
pub(crate) const STANDBY: &str = "500ms";

/// The first argument of a process that runs one workload on a network of its own; its name and the handovers follow.
pub(crate) const ON_THE_BED: &str = "--on-the-bed";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// 64 clients, a connection for each request
    Fresh,
    /// 256 clients that keep their connections, with pauses of 10 ms
    KeepAlive,
    /// 64 clients that keep their connections, without pauses
    Busy,
    /// 16 HTTP/2 connections with 32 requests at a time
    Http2,
    /// 5,000 requests a second on 256 connections, whether the ones before are answered or not
    Paced,
    /// Fresh connections of 400 clients over 80 to 120 ms and 1 % loss
    LossyFresh,
    /// Kept connections of 400 clients, with pauses of 100 ms, over the same network
    LossyKeepAlive,
    /// 50 HTTP/2 connections with 4 requests at a time over the same network
    LossyHttp2,
}

/// What came of it, with what it took of each generation.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) workload: String,
    pub(crate) title: String,
    pub(crate) measured: Measured,
    pub(crate) rss_mib: Vec<f64>,
    pub(crate) cpu_seconds: Vec<f64>,
    /// From the flip until the old process has left.
    pub(crate) drain_ms: Vec<f64>,
}

impl Workload {
    pub(crate) const ALL: &[Workload] = &[
        Workload::Fresh,
        Workload::KeepAlive,
        Workload::Busy,
        Workload::Http2,
        Workload::Paced,
        Workload::LossyFresh,
        Workload::LossyKeepAlive,
        Workload::LossyHttp2,
    ];

    pub(crate) fn name(self) -> String {
        self.to_possible_value().expect("none is hidden").get_name().to_owned()
    }

    pub(crate) fn title(self) -> String {
        self.to_possible_value().expect("none is hidden").get_help().expect("each has one").to_string()
    }

    pub(crate) fn clients(self) -> (Clients, usize) {
        let pause = Duration::from_millis;
        match self {
            Workload::Fresh => (Clients::Fresh, 64),
            Workload::KeepAlive => (Clients::KeepAlive { pause: pause(10) }, 256),
            Workload::Busy => (Clients::KeepAlive { pause: Duration::ZERO }, 64),
            Workload::Http2 => (Clients::Http2 { streams: 32 }, 16),
            Workload::Paced => (Clients::Paced { every: Duration::from_micros(51_200) }, 256),
            Workload::LossyFresh => (Clients::FreshNowAndThen { pause: pause(100) }, 400),
            Workload::LossyKeepAlive => (Clients::KeepAlive { pause: pause(100) }, 400),
            Workload::LossyHttp2 => (Clients::Http2 { streams: 4 }, 50),
        }
    }

    pub(crate) fn is_lossy(self) -> bool {
        matches!(self, Workload::LossyFresh | Workload::LossyKeepAlive | Workload::LossyHttp2)
    }

    /// Why not, if it cannot be run here.
    pub(crate) async fn run(self, handovers: u32) -> Result<Run, String> {
        println!("\n{}: {}", self.name(), self.title());
        let run = if self.is_lossy() {
            // Standby takes 5 s each time.
            let handovers = handovers.div_ceil(4).to_string();
            let args = [ON_THE_BED, &self.name(), &handovers];
            let said = tokio::task::block_in_place(|| bed::run(ON_THE_BED, &args, || {}))?;
            serde_json::from_str(&said).map_err(|e| format!("{e}: {said}"))?
        } else {
            let args = ["--listen", "127.0.0.1:0", "--standby", STANDBY];
            let server = start_playground(&args);
            let (clients, count) = self.clients();
            let load = Load::start(server.address(), clients, count);
            let under_way = hand_over(&server, handovers, AROUND * 2, &|| load.failed()).await;
            let report = load.stop().await;
            self.finish(&report, under_way)
        };
        run.print();
        Ok(run)
    }

    fn finish(self, report: &Report, seen: Seen) -> Run {
        let measured = Measured::of(report, &seen.asked);
        let Seen { rss_mib, cpu_seconds, drain_ms, .. } = seen;
        Run { workload: self.name(), title: self.title(), measured, rss_mib, cpu_seconds, drain_ms }
    }
}

/// Runs one workload in a process that [`Workload::run`] has started, and says what came of it as JSON.
pub(crate) fn on_the_bed(args: &[String]) {
    let [name, handovers] = args else { return };
    let workload = Workload::from_str(name, false).expect("it was written by us");
    let handovers = handovers.parse().expect("it was written by us");
    let measure = || {
        let network = Bed::new(LOSSY);
        let server = start_playground(&["--listen", &format!("{SERVER}:0"), "--standby", "5s"]);
        let (clients, count) = workload.clients();
        let runtime = network.client_runtime(2);
        let load = runtime.block_on(async { Load::start(server.address(), clients, count) });
        let here = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let seen = here.block_on(hand_over(&server, handovers, Duration::from_secs(1), &|| load.failed()));
        let run = workload.finish(&runtime.block_on(load.stop()), seen);
        println!("{}", serde_json::to_string(&run).expect("it is plain data"));
    };
    // Inside already, so it is run as it is.
    bed::run(ON_THE_BED, &[], measure).expect("this process was started there");
}

/// What was seen of the server while it was restarted again and again.
#[derive(Debug, Default)]
struct Seen {
    asked: Vec<Instant>,
    rss_mib: Vec<f64>,
    cpu_seconds: Vec<f64>,
    drain_ms: Vec<f64>,
}

/// So many handovers, each a `pause` after the one before it only drains. `failed`: so far, to be shown.
async fn hand_over(
    server: &Server,
    handovers: u32,
    pause: Duration,
    failed: &(dyn Fn() -> u64 + Sync),
) -> Seen {
    let mut seen = Seen::default();
    let mut pid = server.first_pid();
    let progress = Progress::of(handovers);
    sleep(Duration::from_secs(2)).await;
    for generation in 1..=u64::from(handovers) {
        progress.show(generation, failed());
        seen.rss_mib.push(rss_mib(pid));
        seen.cpu_seconds.push(cpu_seconds(pid));
        seen.asked.push(Instant::now());
        signal(pid, Signal::SIGHUP);
        pid = waited(server, |server| server.wait_serving(generation + 1));
        waited(server, |server| server.wait_state(generation, "draining"));
        // A steady stretch between two handovers.
        sleep(pause).await;
    }
    seen.rss_mib.push(rss_mib(pid));
    seen.drain_ms =
        (1..=u64::from(handovers)).filter_map(|generation| drain_ms(server, generation)).collect();
    seen
}

fn waited<T>(server: &Server, wait: impl FnOnce(&Server) -> T) -> T {
    tokio::task::block_in_place(|| wait(server))
}

/// Of a generation that has left by now.
fn drain_ms(server: &Server, generation: u64) -> Option<f64> {
    let lines = server.log().lines();
    let mut of_it = lines.iter().filter(|line| line.generation() == generation);
    let flip = of_it.find(|line| line.json["to"] == "standby")?;
    let left = of_it.find(|line| line.message() == "retired")?;
    Some(ms(left.at - flip.at))
}

impl Run {
    fn print(&self) {
        self.measured.print();
        if let Some((min, median, max)) = spread(&self.drain_ms) {
            println!(
                "  flip to the exit of the old process: min {min:.0}  median {median:.0}  max {max:.0} ms"
            );
        }
        let numbers = |all: &[f64]| all.iter().map(|n| format!("{n:.1}")).collect::<Vec<_>>().join(" ");
        println!("  RSS of each generation, MiB: {}", numbers(&self.rss_mib));
        println!("  CPU of each generation, s: {}", numbers(&self.cpu_seconds));
    }
}

pub(crate) fn start_playground(args: &[&str]) -> Server {
    let mut command = command(playground());
    command.args(["--log-format", "json"]).args(args);
    Server::start(command)
}

/// The example beside this executable's folder, `target/release/deps`.
pub(crate) fn playground() -> std::path::PathBuf {
    let me = std::env::current_exe().expect("the path of this executable");
    me.ancestors().nth(2).expect("a folder of the target directory").join("examples/playground")
}
