//! Requests per second next to bare hyper, without handovers.

use std::time::{Duration, Instant};

use serde::Serialize;
use support::load::{Clients, Load};
use support::process::Server;
use tokio::time::sleep;

use crate::bare;
use crate::measure::median;
use crate::progress::Progress;
use crate::workloads::{STANDBY, start_playground};

#[derive(Debug, Serialize)]
pub(crate) struct Throughput {
    rounds: u32,
    handover_per_second: f64,
    bare_hyper_per_second: f64,
    /// The median of the ratios of all rounds.
    ratio: f64,
}

/// Loads both servers in turn, so that noise affects both, and each time in a new process: the accidental placement of memory
/// and threads makes a difference of several percent for the whole life of a process.
pub(crate) async fn throughput(rounds: u32) -> Throughput {
    println!("\nthroughput: 64 clients, keep-alive, no pauses, next to bare hyper, {rounds} rounds");
    let (mut ours, mut bares) = (vec![], vec![]);
    let progress = Progress::of(rounds);
    for round in 1..=rounds {
        progress.show(round.into(), 0);
        let playground = || start_playground(&["--listen", "127.0.0.1:0", "--standby", STANDBY]);
        // The first server of a round may have an advantage.
        if round % 2 == 0 {
            ours.push(rate(playground()).await);
            bares.push(rate(bare::start()).await);
        } else {
            bares.push(rate(bare::start()).await);
            ours.push(rate(playground()).await);
        }
    }
    let ratios: Vec<f64> = ours.iter().zip(&bares).map(|(ours, bare)| ours / bare).collect();
    let (handover_per_second, bare_hyper_per_second, ratio) =
        (median(&ours), median(&bares), median(&ratios));
    println!(
        "  handover {handover_per_second:.0}/s   bare hyper {bare_hyper_per_second:.0}/s   median of the ratios {ratio:.3}"
    );
    Throughput { rounds, handover_per_second, bare_hyper_per_second, ratio }
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
