//! A siege: every way to hold a connection for nothing, or to make a server work for nothing, all at the same time, beside
//! honest clients and handovers. No honest client may notice.
//!
//! The attackers are on loopback, enough of each kind to keep the server full all the time, and each reconnects when the
//! server closes its connection. The siege ends by itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::time::{interval, sleep};

mod attackers;
pub mod attacks;
pub mod floods;
mod honest;
pub mod site;
pub mod sockets;
mod tally;
pub mod wage;

use attackers::Attackers;
use honest::{Honest, Operators};
use tally::Course;
pub use tally::Tally;

use crate::process::{Server, command, signal};
use crate::resources::{descriptors, rss_mib};

/// Fewer than the connections of all attackers, more than those of the attackers that keep the server busy.
const CONNECTIONS: &str = "--max-connections=200";
const FLAGS: [&str; 10] = [
    "--listen=127.0.0.1:0",
    "--admin=127.0.0.1:0",
    "--log-format=json",
    "--probes",
    "--compression",
    "--directory-listing",
    "--standby=1s",
    // Short, so that the attackers soon reach the serving generation.
    "--idle-grace=2s",
    "--drain-timeout=5s",
    CONNECTIONS,
];

/// The time until every attacker is active, and until the server has noticed that all have left.
const SETTLE: Duration = Duration::from_secs(5);
const HANDOVER: Duration = Duration::from_secs(20);

/// The durations of a siege.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The time without attacks, as the baseline.
    pub steady: Duration,
    pub siege: Duration,
    /// The time from one handover to the next.
    pub apart: Duration,
}

impl Plan {
    /// A plan with a siege of an hour, or of a minute if `quick`.
    pub fn of(quick: bool) -> Plan {
        let [steady, siege, apart] =
            if quick { [10, 60, 10] } else { [60, 3600, 60] }.map(Duration::from_secs);
        Plan { steady, siege, apart }
    }
}

/// Besieges a server that runs the program `handover`.
pub async fn run(handover: &Path, plan: Plan) -> Tally {
    let mut besieged = Besieged::start(handover);
    let honest = Honest::start(besieged.site);
    sleep(plan.steady).await;
    let steady = honest.stop().await;
    let before = besieged.takes();

    let attackers = Attackers::start(besieged.site);
    sleep(SETTLE).await;
    let honest = Honest::start(besieged.site);
    let operators =
        Operators::start(besieged.site, besieged.admin, handover, &besieged.dir.path().join("control"));
    let mut during = vec![];
    let (until, mut next) = (Instant::now() + plan.siege, Instant::now() + plan.apart);
    let mut second = interval(Duration::from_secs(1));
    while Instant::now() < until {
        second.tick().await;
        during.push(besieged.takes());
        if Instant::now() >= next {
            next += plan.apart;
            besieged.hand_over().await;
        }
    }
    // Stopping waits for the last answers, so both stop at the same time, while the attackers go on.
    let (answers, asked) = tokio::join!(honest.stop(), operators.stop());
    let attacks = attackers.stop().await;
    sleep(SETTLE).await;

    let after = besieged.takes();
    let course = |of: fn(&[f64; 2]) -> f64| {
        Course::of(of(&before), &during.iter().map(of).collect::<Vec<_>>(), of(&after))
    };
    Tally {
        seconds: plan.siege.as_secs(),
        handovers: besieged.generation - 1,
        not_handed_over: besieged.not_handed_over,
        p99_ratio: answers["all"].p99_ms / steady["all"].p99_ms,
        steady,
        besieged: answers,
        asked,
        rss_mib: course(|takes| takes[0]),
        descriptors: course(|takes| takes[1]),
        attacks,
    }
}

struct Besieged {
    server: Server,
    site: SocketAddr,
    admin: SocketAddr,
    /// The serving generation.
    generation: u64,
    pid: u32,
    not_handed_over: Vec<String>,
    dir: tempfile::TempDir,
}

impl Besieged {
    fn start(handover: &Path) -> Besieged {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("root");
        std::fs::create_dir(&root).expect("writable");
        site::make(&root);
        let mut limited = command(PathBuf::from("sh"));
        limited.args(["-c", "ulimit -n 1024; exec \"$@\"", "sh"]).arg(handover);
        limited.args(FLAGS).arg("--control").arg(dir.path().join("control")).arg(root);
        let server = Server::start(limited);
        let addresses = server.addresses(1);
        let pid = server.first_pid();
        Besieged {
            server,
            site: addresses[0],
            admin: addresses[1],
            generation: 1,
            pid,
            not_handed_over: vec![],
            dir,
        }
    }

    /// The memory in MiB and the open descriptors of the serving generation.
    fn takes(&self) -> [f64; 2] {
        [rss_mib(self.pid), descriptors(self.pid)]
    }

    async fn hand_over(&mut self) {
        let (mut read, until) = (self.server.log().lines().len(), Instant::now() + HANDOVER);
        signal(self.pid, Signal::SIGHUP);
        while Instant::now() < until {
            for line in self.server.log().since(read) {
                read += 1;
                if line.generation() == self.generation + 1 && line.message().starts_with("serving") {
                    (self.generation, self.pid) = (line.generation(), line.pid());
                    return;
                }
                if line.message().starts_with("handover failed") {
                    self.not_handed_over.push(line.text);
                    return;
                }
            }
            sleep(Duration::from_millis(10)).await;
        }
        self.not_handed_over.push(format!("no successor took over within {HANDOVER:?}"));
    }
}
