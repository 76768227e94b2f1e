//! One competitor restarted repeatedly under one load, on loopback or in a process with a separate lossy network.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use support::load::{Clients, Load, Report};
use support::netns::{self, Bed, LOSSY, SERVER};
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use tokio::time::sleep;

use super::usage::{Usage, Watch};
use crate::competitors::{Competitor, Running, Setting};
use crate::measure::{Measured, ms};
use crate::workloads::Workload;

/// The longest wait for old processes to exit; then the next restart begins.
const PATIENCE: Duration = Duration::from_secs(30);
/// The time between two looks at the processes.
const LOOK: Duration = Duration::from_millis(20);

/// The first argument of a process for one run in a separate network; the competitor, the workload and the number of restarts
/// follow.
pub(crate) const IN_NETNS: &str = "--run-in-netns";

#[derive(Debug, Clone, Copy)]
pub(super) struct CompetitorRun {
    pub(super) competitor: Competitor,
    pub(super) workload: Workload,
    pub(super) restarts: u32,
}

/// A callback for the number of each restart, and of failed requests so far.
pub(super) type Tell<'a> = &'a (dyn Fn(u64, u64) + Sync);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) measured: Measured,
    /// The number of processes that answered; with several workers, more than one for each restart.
    pub(crate) answerers: usize,
    /// The failures that clients noticed between each restart and the next.
    pub(crate) failed_by_restart: Vec<u64>,
    /// The failures before the first restart.
    pub(crate) failed_before: u64,
    /// The number of restarts after which the old processes did not exit in time.
    pub(crate) unsettled: u64,
    /// For the other restarts, the time from the signal until all old processes have exited.
    pub(crate) gone_ms: Vec<f64>,
    pub(crate) usage: Usage,
}

impl CompetitorRun {
    fn setting(&self) -> Setting {
        let http2 = matches!(self.workload.clients(), Some((Clients::Http2 { .. }, _)));
        if self.workload.is_lossy() {
            let ip = SERVER.parse().expect("the constant is an IP address");
            Setting { ip, standby: Duration::from_secs(5), http2 }
        } else {
            Setting { ip: Ipv4Addr::LOCALHOST, standby: Duration::from_millis(500), http2 }
        }
    }

    /// The shortest time between two restarts. It is longer if the old processes take longer to exit.
    fn apart(&self) -> Duration {
        Duration::from_millis(if self.workload.is_lossy() { 6000 } else { 1500 })
    }

    /// Runs it here. `clients`: the runtime of the clients.
    pub(super) async fn run(&self, clients: &Handle, tell: Tell<'_>) -> Result<Outcome, String> {
        let several = "not measured: the others serve neither uploads and downloads nor WebSockets";
        let (kind, count) = self.workload.clients().ok_or(several)?;
        let mut server = block_in_place(|| self.competitor.start(&self.setting()))?;
        let load = {
            let _entered = clients.enter();
            Load::start(server.address(), kind, count)
        };
        let restarted = self.restart_under_load(&mut server, &load, tell).await;
        let report = load.stop().await;
        let mut seen = restarted?;
        seen.watch.look(&server.pids());
        Ok(seen.outcome(&report))
    }

    async fn restart_under_load(
        &self,
        server: &mut Running,
        load: &Load,
        tell: Tell<'_>,
    ) -> Result<Seen, String> {
        let begin = Instant::now();
        while !load.is_under_way() {
            if begin.elapsed() > PATIENCE {
                return Err("not measured: not every client has got an answer".into());
            }
            sleep(Duration::from_millis(5)).await;
        }
        sleep(Duration::from_millis(500)).await;
        let mut seen = Seen::default();
        seen.watch.before(&server.pids());
        for restart in 1..=self.restarts {
            tell(restart.into(), load.failed());
            let at = Instant::now();
            seen.asked.push(at);
            block_in_place(|| server.restart())?;
            let mut gone = None;
            while at.elapsed() < PATIENCE && (at.elapsed() < self.apart() || gone.is_none()) {
                let alive = server.pids();
                seen.watch.look(&alive);
                if gone.is_none() && server.settled(&alive) {
                    gone = Some(ms(at.elapsed()));
                }
                sleep(LOOK).await;
            }
            seen.gone_ms.extend(gone);
        }
        Ok(seen)
    }

    /// Runs it in a separate process with a lossy network.
    pub(super) fn run_on_the_bed(&self, tell: Tell<'_>) -> Result<Outcome, String> {
        let (workload, restarts) = (self.workload.name(), self.restarts.to_string());
        let args = [IN_NETNS, self.competitor.name, &workload, &restarts];
        let hear = |line: &str| {
            let told = line.strip_prefix(IN_NETNS).and_then(|told| told.trim().split_once(' '));
            if let Some((Ok(restart), Ok(failed))) = told.map(|(r, f)| (r.parse(), f.parse())) {
                tell(restart, failed);
            }
        };
        let said = netns::run_and_hear(IN_NETNS, &args, || {}, hear)
            .map_err(|why| format!("not measured: {why}"))?;
        serde_json::from_str(&said).unwrap_or_else(|error| Err(format!("{error}: {said}")))
    }
}

/// Performs one run in a process that [`CompetitorRun::run_on_the_bed`] has started, and prints its outcome as JSON.
pub(crate) fn on_the_bed(args: &[String]) {
    let [competitor, workload, restarts] = args else { return };
    let competitor = Competitor::all().into_iter().find(|one| one.name == competitor);
    let run = CompetitorRun {
        competitor: competitor.expect("the parent process wrote it"),
        workload: Workload::from_str(workload, false).expect("the parent process wrote it"),
        restarts: restarts.parse().expect("the parent process wrote it"),
    };
    let measure = || {
        let network = Bed::new(LOSSY);
        let clients = network.client_runtime(2);
        let here = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let tell = |restart: u64, failed: u64| eprintln!("{IN_NETNS} {restart} {failed}");
        let outcome = here.block_on(run.run(clients.handle(), &tell));
        println!("{}", serde_json::to_string(&outcome).expect("outcomes are plain data"));
    };
    // This process is inside the network already, so `measure` runs at once.
    netns::run(IN_NETNS, &[], measure).expect("this process was started there");
}

/// The observations during the restarts.
#[derive(Default)]
struct Seen {
    asked: Vec<Instant>,
    gone_ms: Vec<f64>,
    watch: Watch,
}

impl Seen {
    fn outcome(self, report: &Report) -> Outcome {
        let measured = Measured::of(report, &self.asked);
        let mut outcome = Outcome {
            usage: self.watch.usage(measured.requests),
            measured,
            answerers: report.first_answers().len(),
            failed_by_restart: vec![0; self.asked.len()],
            failed_before: 0,
            unsettled: (self.asked.len() - self.gone_ms.len()) as u64,
            gone_ms: self.gone_ms,
        };
        for lost in &report.lost {
            match self.asked.partition_point(|at| *at <= lost.known) {
                0 => outcome.failed_before += 1,
                n => outcome.failed_by_restart[n - 1] += 1,
            }
        }
        outcome
    }
}
