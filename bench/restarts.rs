//! Repeated restarts of a server, and observations during them.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use support::process::{Server, signal};
use support::resources::{cpu_seconds, rss_mib};
use tokio::time::sleep;

use crate::measure::{ms, spread};
use crate::progress::Progress;

/// The time of each restart request, and the resources of each generation.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) asked: Vec<Instant>,
    rss_mib: Vec<f64>,
    cpu_seconds: Vec<f64>,
}

/// The resources that the server used.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// The memory of each generation.
    rss_mib: Vec<f64>,
    cpu_seconds: Vec<f64>,
    /// For each handover, the time from the flip until the old process has exited.
    drain_ms: Vec<f64>,
}

/// Hands over `handovers` times, each time a `pause` after the previous generation has begun to drain. `failed`: the number of
/// failures so far, for the progress line. `prepare`: called before each handover, with the number of the next generation.
pub(crate) async fn hand_over(
    server: &Server,
    handovers: u32,
    pause: Duration,
    failed: &(dyn Fn() -> u64 + Sync),
    prepare: &(dyn Fn(u64) + Sync),
) -> Seen {
    let mut seen = Seen::default();
    let mut pid = server.first_pid();
    let progress = Progress::of(handovers);
    sleep(Duration::from_secs(2)).await;
    for generation in 1..=u64::from(handovers) {
        progress.show(generation, failed());
        seen.rss_mib.push(rss_mib(pid));
        seen.cpu_seconds.push(cpu_seconds(pid));
        prepare(generation + 1);
        seen.asked.push(Instant::now());
        signal(pid, Signal::SIGHUP);
        pid = waited(server, |server| server.wait_serving(generation + 1));
        waited(server, |server| server.wait_state(generation, "draining"));
        sleep(pause).await;
    }
    seen.rss_mib.push(rss_mib(pid));
    seen
}

fn waited<T>(server: &Server, wait: impl FnOnce(&Server) -> T) -> T {
    tokio::task::block_in_place(|| wait(server))
}

impl Seen {
    /// The usage of all generations, to be taken once the load has ended.
    pub(crate) fn usage(&self, server: &Server) -> Usage {
        let generations = 1..=self.asked.len() as u64;
        Usage {
            rss_mib: self.rss_mib.clone(),
            cpu_seconds: self.cpu_seconds.clone(),
            drain_ms: generations.filter_map(|generation| drain_ms(server, generation)).collect(),
        }
    }
}

/// The time from a generation's flip to its exit, if it has exited by now.
fn drain_ms(server: &Server, generation: u64) -> Option<f64> {
    let lines = server.log().lines();
    let mut of_it = lines.iter().filter(|line| line.generation() == generation);
    let flip = of_it.find(|line| line.json["to"] == "standby")?;
    let left = of_it.find(|line| line.message() == "retired")?;
    Some(ms(left.at - flip.at))
}

impl Usage {
    pub(crate) fn print(&self) {
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
