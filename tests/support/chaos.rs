//! Chaos: random restarts, failing releases, SIGKILL, SIGSTOP and changing load, and whether the service survives them.
//!
//! Throughout: no client is refused, and no request is lost except inside a killed process. At the end: a restart succeeds,
//! and no process or listener is left over. The seed decides the steps and their times; the target of a step, if it has one,
//! depends on the processes that are alive then.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::time::sleep;

mod releases;
mod schedule;
mod tally;
mod watch;

use crate::load::{Clients, Load, Lost};
use crate::process::{Server, command, signal};
use releases::{Files, Release};
use schedule::{Deed, Schedule};
pub use tally::Tally;
use watch::{Death, Watch, kill, listeners};

const STANDBY: Duration = Duration::from_millis(1500);
const FLAGS: [&str; 13] = [
    "-v",
    "--listen=127.0.0.1:0",
    "--log-format=json",
    "--standby=1500ms",
    "--ready-timeout=1500ms",
    "--idle-grace=1s",
    "--drain-timeout=30s",
    "--stop-timeout=10s",
    "--stop-idle-grace=500ms",
    "--backlog=4096",
    "--max-connections=1000",
    "--fault-file",
    "fault",
];

/// The time between two looks at the processes.
const LOOK: Duration = Duration::from_millis(10);
/// Failures that no killed process explains: no generation served.
const NEVER: [&str; 5] = ["refused", "timeout", "cannot connect", "bad answer", "status other than 200"];

/// Runs chaos for `time`. The error is a broken promise, with the steps that led to it.
pub async fn run(playground: &Path, seed: u64, time: Duration) -> Result<Tally, String> {
    let dir = tempfile::tempdir().expect("a directory");
    let mut chaos = Chaos::start(playground, dir.path());
    let until = Instant::now() + time;
    let mut next = Instant::now();
    for step in Schedule::new(seed) {
        next += step.after;
        if next > until {
            break;
        }
        chaos.wait(next).await;
        let done = match step.deed {
            Deed::Release(release) => chaos.release(release, step.whom),
            Deed::Kill => chaos.kill(step.whom),
            Deed::Stop(time) => chaos.stop(time, step.whom),
            Deed::Load(clients, count) => chaos.load(clients, count).await,
        };
        done.map_err(|broken| chaos.explain(&broken))?;
    }
    match chaos.end().await {
        Ok(()) => Ok(chaos.tally),
        Err(broken) => Err(chaos.explain(&broken)),
    }
}

struct Chaos {
    server: Server,
    addr: SocketAddr,
    began: Instant,
    files: Files,
    watch: Watch,
    /// The two running loads, each with its number of clients.
    loads: VecDeque<(Load, usize)>,
    kills: Vec<Death>,
    steps: Vec<String>,
    tally: Tally,
}

impl Chaos {
    fn start(playground: &Path, dir: &Path) -> Chaos {
        let files = Files::new(playground, dir);
        files.put(Release::Good);
        let mut command = command(files.path("server"));
        command.args(FLAGS).current_dir(dir);
        let server = Server::start(command);
        let addr = server.address();
        let first = (Load::start(addr, Clients::Fresh, 2), 2);
        let pause = Duration::from_millis(10);
        let second = (Load::start(addr, Clients::KeepAlive { pause }, 8), 8);
        Chaos {
            server,
            addr,
            began: Instant::now(),
            files,
            watch: Watch::default(),
            loads: [first, second].into(),
            kills: vec![],
            steps: vec![],
            tally: Tally::default(),
        }
    }

    fn note(&mut self, step: &str) {
        self.steps.push(format!("{:9.3} s  {step}", self.began.elapsed().as_secs_f64()));
    }

    /// Reads the log, and continues processes that have been stopped long enough.
    fn look(&mut self) {
        self.watch.read(&self.server);
        let now = Instant::now();
        for (pid, member) in &mut self.watch.members {
            if member.stopped_until.is_some_and(|until| until <= now) {
                member.stopped_until = None;
                signal(*pid, Signal::SIGCONT);
            }
        }
    }

    async fn wait(&mut self, until: Instant) {
        loop {
            self.look();
            if Instant::now() >= until {
                return;
            }
            sleep(LOOK).await;
        }
    }

    fn release(&mut self, release: Release, whom: f64) -> Result<(), String> {
        self.files.put(release);
        if let Some(pid) = pick(&self.watch.may_be_asked(), whom) {
            self.tally.releases += 1;
            self.note(&format!("{release:?}, HUP to {}", self.name(pid)));
            signal(pid, Signal::SIGHUP);
        }
        Ok(())
    }

    fn kill(&mut self, whom: f64) -> Result<(), String> {
        let Some(pid) = pick(&self.watch.may_be_killed(STANDBY), whom) else { return Ok(()) };
        self.tally.kills += 1;
        self.note(&format!("KILL to {}", self.name(pid)));
        let from = Instant::now();
        kill(pid);
        self.kills.push(Death { from, until: Instant::now() });
        self.watch.bury(pid);
        Ok(())
    }

    fn stop(&mut self, time: Duration, whom: f64) -> Result<(), String> {
        let Some(pid) = pick(&self.watch.may_be_stopped(), whom) else { return Ok(()) };
        self.tally.stops += 1;
        self.note(&format!("STOP for {time:?} to {}", self.name(pid)));
        signal(pid, Signal::SIGSTOP);
        self.watch.members.entry(pid).and_modify(|m| m.stopped_until = Some(Instant::now() + time));
        Ok(())
    }

    async fn load(&mut self, clients: Clients, count: usize) -> Result<(), String> {
        self.note(&format!("{count} clients {clients:?}"));
        self.loads.push_back((Load::start(self.addr, clients, count), count));
        self.end_a_load().await
    }

    /// Ends the oldest load and checks its lost requests.
    async fn end_a_load(&mut self) -> Result<(), String> {
        let Some((load, clients)) = self.loads.pop_front() else { return Ok(()) };
        // A client may wait for an answer from a stopped process, which `look` has to continue.
        let mut ending = tokio::spawn(load.stop());
        let report = loop {
            tokio::select! {
                report = &mut ending => break report.expect("clients do not panic"),
                () = sleep(LOOK) => self.look(),
            }
        };
        self.tally.requests += report.samples.len();
        self.tally.slowest = report.samples.iter().map(|s| s.took).fold(self.tally.slowest, Duration::max);
        // A client may notice a death before the log does.
        let patience = Instant::now() + Duration::from_secs(10);
        let deaths = loop {
            self.look();
            let deaths: Vec<Death> = [&self.kills[..], &self.watch.crashed].concat();
            let explained = |lost: &&Lost| {
                let inside = |death: &Death| lost.at <= death.until && lost.known >= death.from;
                !NEVER.contains(&lost.kind) && deaths.iter().any(inside)
            };
            match report.lost.iter().find(|lost| !explained(lost)) {
                None => break deaths,
                Some(lost) if Instant::now() > patience => return Err(self.name_lost(lost)),
                Some(_) => sleep(LOOK).await,
            }
        };
        self.tally.inside += report.lost.len();
        if report.lost.len() > deaths.len() * clients {
            return Err(format!(
                "{} requests lost by {clients} clients in {} deaths",
                report.lost.len(),
                deaths.len()
            ));
        }
        Ok(())
    }

    fn name_lost(&self, lost: &Lost) -> String {
        let since = |at: Instant| at.saturating_duration_since(self.began);
        format!(
            "a request failed ({}), sent at {:.3?}, known at {:.3?}",
            lost.kind,
            since(lost.at),
            since(lost.known)
        )
    }

    fn name(&self, pid: u32) -> String {
        let state = self.watch.members.get(&pid).map_or("gone", |member| &member.state);
        format!("pid {pid}, {state}")
    }

    /// Checks that a last restart succeeds, and that nothing is left over after a stop.
    async fn end(&mut self) -> Result<(), String> {
        self.note("the end: a good release, and TERM");
        let patience = Instant::now() + Duration::from_secs(60);
        self.files.put(Release::Good);
        let mut asked = None;
        // Waits until one serving generation is alone, restarts it, and waits until its successor is alone.
        let last = loop {
            self.wait(Instant::now() + LOOK).await;
            let alone = match self.watch.members.iter().next() {
                Some((pid, member)) if self.watch.members.len() == 1 && member.state == "serving" => {
                    Some(*pid)
                }
                _ => None,
            };
            match (alone, asked) {
                (Some(pid), None) => {
                    signal(pid, Signal::SIGHUP);
                    asked = Some(pid);
                }
                (Some(pid), Some(before)) if pid != before => break pid,
                _ if Instant::now() > patience => return Err("the last restart did not succeed".into()),
                _ => {}
            }
        };
        while !self.loads.is_empty() {
            self.end_a_load().await?;
        }
        signal(last, Signal::SIGTERM);
        while !self.server.alive().is_empty() || listeners(self.addr) > 0 {
            if Instant::now() > patience {
                let left = self.server.alive();
                return Err(format!("left over: {left:?}, {} listeners", listeners(self.addr)));
            }
            sleep(LOOK).await;
        }
        self.look();
        let Watch { took_over, failed, healed, .. } = self.watch;
        self.tally = Tally { took_over, failed, healed, ..std::mem::take(&mut self.tally) };
        Ok(())
    }

    /// The broken promise with the latest steps and log lines.
    fn explain(&self, broken: &str) -> String {
        let lines: Vec<_> = self.server.log().lines().into_iter().map(|line| line.text).collect();
        let tail = |all: &[String]| all[all.len().saturating_sub(300)..].join("\n  ");
        format!("{broken}\nsteps:\n  {}\nlog:\n  {}", tail(&self.steps), tail(&lines))
    }
}

fn pick(among: &[u32], whom: f64) -> Option<u32> {
    among.get((whom * among.len() as f64) as usize).copied()
}
