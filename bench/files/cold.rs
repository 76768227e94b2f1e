//! The latency of a small file in memory while other clients read files that are only on the disk.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use rustix::fs::{Advice, fadvise};
use serde::Serialize;
use support::load::{Clients, Load, Report, Target};
use support::process::Server;
use tokio::runtime::{Builder, Runtime};
use tokio::task::block_in_place;
use tokio::time::sleep;

use super::site::{SMALL, Site};
use crate::measure::{Latency, WARM_UP};

const COLD_FILES: usize = 512;
const COLD_BYTES: usize = 4 << 20;
/// The content of each file begins this far after that of the file before, so that all contents together fit into memory.
const STEP: usize = 4096;
const READERS: usize = 64;
/// The mean time of a reader for a file. Readers without pauses would take up the whole machine, wherever the files are.
const OVER: Duration = Duration::from_secs(1);
const PACED: usize = 8;
const EVERY: Duration = Duration::from_millis(5);
/// The time of each measurement, after the warm-up.
const TIME: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize)]
pub(crate) struct Cold {
    /// The latency of the small file without other clients.
    alone: Latency,
    /// The latency of the small file beside readers of files in memory.
    beside_warm: Latency,
    /// The latency of the small file beside readers of files on the disk.
    beside_cold: Latency,
    /// The p99 beside cold files, divided by that without other clients.
    p99_ratio: f64,
    /// The answers with a cold file.
    cold_answers: usize,
    /// The rate at which the server read from the disk meanwhile.
    disk_mib_per_second: f64,
    failures: BTreeMap<&'static str, u64>,
}

pub(super) async fn cold() -> Cold {
    println!(
        "\n  files-cold: {PACED} clients that fetch 1 KB every {EVERY:?}, beside {READERS} that read files of 4 MB over 0 to 2 s"
    );
    let site = Site::new();
    let tree = Arc::new(block_in_place(|| Tree::write(&site.root())));
    let server = Server::start(site.named_command());
    // The small clients have a thread of their own, so that they do not wait for the others.
    let paced = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let alone = small(&paced, &site, &server).await;
    let readers = read(&tree, &server, Tree::any);
    let beside_warm = small(&paced, &site, &server).await;
    let warm_readers = readers.stop().await;
    let readers = read(&tree, &server, Tree::evicted);
    let before = disk_bytes(&server);
    let beside_cold = small(&paced, &site, &server).await;
    let disk = disk_bytes(&server) - before;
    let cold_readers = readers.stop().await;
    paced.shutdown_background();
    let latencies = [&alone, &beside_warm, &beside_cold].map(latency);
    let cold_answers = cold_readers.samples.len();
    let mut all = Report::default();
    [alone, beside_warm, warm_readers, beside_cold, cold_readers].into_iter().for_each(|one| all.add(one));
    let [alone, beside_warm, beside_cold] = latencies;
    let cold = Cold {
        p99_ratio: beside_cold.p99 / alone.p99,
        alone,
        beside_warm,
        beside_cold,
        cold_answers,
        disk_mib_per_second: disk / (WARM_UP + TIME).as_secs_f64() / f64::from(1 << 20),
        failures: all.failures(),
    };
    cold.print();
    cold
}

/// Starts the readers. `pick`: picks a file for each request.
fn read(tree: &Arc<Tree>, server: &Server, pick: fn(&Tree) -> Target) -> Load {
    let tree = Arc::clone(tree);
    Load::fetch(None, server.address(), Clients::Slow { over: OVER }, READERS, move || pick(&tree))
}

/// Lets the paced clients fetch the small file.
async fn small(paced: &Runtime, site: &Site, server: &Server) -> Report {
    let target = site.target(SMALL);
    let load = {
        let _entered = paced.enter();
        let clients = Clients::Paced { every: EVERY };
        Load::fetch(None, server.address(), clients, PACED, move || target.clone())
    };
    sleep(WARM_UP + TIME).await;
    load.stop().await
}

/// The latency after the warm-up.
fn latency(report: &Report) -> Latency {
    let began = report.samples.iter().map(|sample| sample.at).min();
    let warm = report.samples.iter().filter(|s| began.is_some_and(|began| s.at >= began + WARM_UP));
    Latency::of(&warm.collect::<Vec<_>>())
}

/// The bytes that the server has read from the disk (proc_pid_io(5)).
fn disk_bytes(server: &Server) -> f64 {
    let io = fs::read_to_string(format!("/proc/{}/io", server.first_pid())).unwrap_or_default();
    let read = io.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    read.and_then(|bytes| bytes.parse().ok()).unwrap_or(f64::NAN)
}

/// The cold files.
struct Tree {
    dir: PathBuf,
    contents: Bytes,
}

impl Tree {
    /// Writes the files to the disk: pages that are only in memory cannot be evicted.
    fn write(root: &Path) -> Tree {
        let mut contents = vec![0; COLD_BYTES + COLD_FILES * STEP];
        fastrand::fill(&mut contents);
        let tree = Tree { dir: root.join("cold"), contents: contents.into() };
        fs::create_dir(&tree.dir).expect("writable");
        for n in 0..COLD_FILES {
            let mut file = fs::File::create(tree.file(n)).expect("writable");
            file.write_all(&tree.content(n)).and_then(|()| file.sync_all()).expect("room on the disk");
        }
        tree
    }

    fn file(&self, n: usize) -> PathBuf {
        self.dir.join(format!("{n}.bin"))
    }

    fn content(&self, n: usize) -> Bytes {
        self.contents.slice(n * STEP..n * STEP + COLD_BYTES)
    }

    /// Picks a file, which is in the page cache since it was written.
    fn any(&self) -> Target {
        self.target(fastrand::usize(..COLD_FILES))
    }

    /// Picks a file and evicts it from the page cache.
    fn evicted(&self) -> Target {
        let n = fastrand::usize(..COLD_FILES);
        let file = fs::File::open(self.file(n)).expect("it was written");
        fadvise(file, 0, None, Advice::DontNeed).expect("a regular file");
        self.target(n)
    }

    fn target(&self, n: usize) -> Target {
        Target::File { path: format!("/cold/{n}.bin").into(), content: self.content(n) }
    }
}

impl Cold {
    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    fn print(&self) {
        let Cold { alone, beside_warm, beside_cold, p99_ratio, cold_answers, disk_mib_per_second, .. } = self;
        println!("  failed {}", self.failed());
        self.failures.iter().for_each(|(kind, n)| println!("    {n} x {kind}"));
        println!("  latency of 1 KB              p50       p99     p99.9       max   (ms)");
        for (name, l) in [
            ("alone", alone),
            ("beside files in memory", beside_warm),
            ("beside files on the disk", beside_cold),
        ] {
            println!("  {name:<24}{:>8.2}  {:>8.2}  {:>8.2}  {:>8.2}", l.p50, l.p99, l.p999, l.max);
        }
        println!("  p99 beside files on the disk / alone: {p99_ratio:.2}");
        println!("  files on the disk: {cold_answers} answers, {disk_mib_per_second:.0} MiB/s read");
    }
}
