//! Slow downloads that last longer than several handovers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use support::load::download;
use support::process::Server;
use tokio::task::JoinSet;

use super::site::Site;
use crate::measure::spread;
use crate::restarts::hand_over;

const BYTES: usize = 100 << 20;
const NAME: &str = "100m.bin";
const CLIENTS: usize = 4;
/// The time of a download: longer than the handovers take together.
const OVER: Duration = Duration::from_secs(6);
const HANDOVERS: u32 = 3;
/// The time from the end of a standby to the next handover.
const PAUSE: Duration = Duration::from_millis(300);

#[derive(Debug, Serialize)]
pub(crate) struct Slow {
    clients: usize,
    bytes: usize,
    handovers: u32,
    /// The time of each complete download.
    took_s: Vec<f64>,
    /// The downloads that had not ended when the last handover began.
    outlasted: usize,
    failures: BTreeMap<&'static str, u64>,
}

pub(super) async fn slow() -> Slow {
    println!(
        "\n  files-slow: {CLIENTS} downloads of 100 MB over {OVER:?}, with a receive buffer of 64 KiB; handovers: {HANDOVERS}"
    );
    let site = Site::new();
    let content = site.write(NAME, BYTES);
    let server = Server::start(site.named_command());
    let (addr, path) = (server.address(), format!("/{NAME}"));
    let mut downloads = JoinSet::new();
    for _ in 0..CLIENTS {
        let (path, content) = (path.clone(), content.clone());
        downloads.spawn(async move {
            let began = Instant::now();
            let came = download(addr, &path, &content, OVER).await;
            (came, began, Instant::now())
        });
    }
    let seen = hand_over(&server, HANDOVERS, PAUSE, &|| 0, &|generation| site.name(generation)).await;
    let last = seen.asked.last().copied();
    let mut slow = Slow {
        clients: CLIENTS,
        bytes: BYTES,
        handovers: HANDOVERS,
        took_s: vec![],
        outlasted: 0,
        failures: BTreeMap::new(),
    };
    for (came, began, ended) in downloads.join_all().await {
        match came {
            Ok(_) => slow.took_s.push((ended - began).as_secs_f64()),
            Err(kind) => *slow.failures.entry(kind).or_default() += 1,
        }
        slow.outlasted += usize::from(last.is_some_and(|last| ended > last));
    }
    slow.print();
    slow
}

impl Slow {
    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    fn print(&self) {
        print!("  downloads {}   failed {}   {} outlasted the", CLIENTS, self.failed(), self.outlasted);
        println!(" beginning of the last handover");
        self.failures.iter().for_each(|(kind, n)| println!("    {n} x {kind}"));
        if let Some((min, median, max)) = spread(&self.took_s) {
            println!("  each took: min {min:.2}  median {median:.2}  max {max:.2} s");
        }
    }
}
