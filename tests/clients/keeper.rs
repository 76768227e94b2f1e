//! Runs one group of clients: starts their servers, runs all clients at once, and replaces all servers at the same moments, the
//! number of times that the group says.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::signal::Signal;
use rcgen::{CertificateParams, KeyPair};
use support::harness::{example, playground, skip};
use support::process::{Server, command, signal};
use tempfile::TempDir;

use crate::HANDOVER;
use crate::front::{self, Front};
use crate::outcome::Outcome;
use crate::program::{self, Visit};
use crate::species::{Group, IDLE_GRACE, PAUSES, Species, Target};
use crate::table::{Row, Run};
use crate::{browser, say};

pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    pub(crate) history: String,
}

/// Runs the clients of a group that are installed. Returns `None` if the group is empty.
pub(crate) fn visit(group: &Group) -> Option<Report> {
    let mut rows: Vec<Row> = group.species.iter().map(|species| Row::new(*species)).collect();
    if rows.is_empty() {
        return None;
    }
    for row in &mut rows {
        row.skipped = missing(&row.species);
        if let Some(why) = &row.skipped {
            skip(&format!("{}, {}: {why}", row.species.name, row.species.protocol));
        }
    }
    let here: Vec<Species> = rows.iter().filter(|row| row.skipped.is_none()).map(|row| row.species).collect();
    let bed = Bed::start(&here);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let moments = (1..=group.handovers).map(|n| began + group.every * n);
        scope.spawn(|| bed.replace_all(&moments.collect::<Vec<_>>()));
        let visits: Vec<_> = rows
            .iter_mut()
            .filter(|row| row.skipped.is_none())
            .map(|row| {
                let runs = row.species.pauses.iter().flat_map(|pause| {
                    let start = |url: String| {
                        let (species, dir) = (row.species, bed.dir().to_owned());
                        // Few workers, and fewer where they are busy, because all clients share two cores.
                        let workers = if *pause < 1000 { 4 } else { 8 };
                        let visit =
                            Visit { species, url, pause: *pause, workers, length: group.length(), dir };
                        let bed = &bed;
                        scope.spawn(move || run(bed, &visit))
                    };
                    let beside = row.species.beside.then(|| bed.url_beside(row.species.target)).flatten();
                    [
                        Some((false, start(bed.url(row.species.target, *pause)))),
                        beside.map(|url| (true, start(url))),
                    ]
                });
                let runs: Vec<_> = runs.flatten().collect();
                (row, runs)
            })
            .collect();
        for (row, runs) in visits {
            for (beside, run) in runs {
                let seen = run.join().expect("a run does not panic");
                if beside { &mut row.beside } else { &mut row.runs }.extend(seen);
            }
        }
    });
    say(&format!("{} clients in {:.0?}", here.len(), began.elapsed()));
    Some(Report { rows, history: bed.history() })
}

fn missing(species: &Species) -> Option<String> {
    let proxy = match species.target {
        Target::Nginx => front::version("nginx").err(),
        Target::Haproxy => front::version("haproxy").err(),
        _ => None,
    };
    proxy.or_else(|| program::missing(species))
}

/// Runs one client with one pause, and counts the handovers that it lived through. A browser runs all pauses in one process.
fn run(bed: &Bed, visit: &Visit) -> Vec<Run> {
    let began = Instant::now();
    let outcomes = match visit.species.program {
        crate::species::Program::Chromium => browser::chromium(visit),
        _ => vec![(visit.pause, program::run(visit))],
    };
    let seen = bed.handovers(visit.species.target, began, Instant::now());
    let run = |(pause, outcome): (u64, Outcome)| {
        // A client that cannot tell the generations apart has lived through all handovers during its run.
        let lived = outcome.generations.map_or(seen, |(first, last)| last - first);
        Run { pause, outcome, lived }
    };
    outcomes.into_iter().map(run).collect()
}

/// The servers of one group.
pub(crate) struct Bed {
    dir: TempDir,
    servers: BTreeMap<Target, Server>,
    proxies: BTreeMap<Target, Front>,
    /// For comparison: an nginx beside each server, reloaded at the same moments.
    beside: BTreeMap<Target, Front>,
    /// The server behind these nginxes, which is never replaced.
    _still: Option<Server>,
}

impl Bed {
    pub(crate) fn start(species: &[Species]) -> Bed {
        let wanted = |targets: &[Target]| species.iter().any(|one| targets.contains(&one.target));
        let dir = tempfile::tempdir().expect("a directory");
        write_certificate(&dir);
        let mut bed = Bed {
            dir,
            servers: BTreeMap::new(),
            proxies: BTreeMap::new(),
            beside: BTreeMap::new(),
            _still: None,
        };
        if wanted(&[Target::Plain, Target::Site, Target::Nginx, Target::Haproxy]) {
            bed.servers.insert(Target::Plain, Server::start(playground(&QUIET)));
        }
        if wanted(&[Target::Tls, Target::SiteTls]) {
            bed.servers.insert(Target::Tls, Server::start(bed.with_tls(playground(&QUIET))));
        }
        if wanted(&[Target::Grpc]) {
            let mut tonic = command(example("tonic"));
            tonic.arg("127.0.0.1:0");
            bed.servers.insert(Target::Grpc, Server::start(tonic));
        }
        for (target, tls) in [(Target::Site, false), (Target::SiteTls, true)] {
            if wanted(&[target]) {
                let mut site = command(HANDOVER);
                site.arg(browser::site(bed.dir()));
                site.args(["--listen", "127.0.0.1:0", "--log-format", "json"]).args(QUIET);
                let site = if tls { bed.with_tls(site) } else { site };
                bed.servers.insert(target, Server::start(site));
            }
        }
        for target in [Target::Nginx, Target::Haproxy] {
            if wanted(&[target]) {
                let start = if target == Target::Nginx { Front::nginx } else { Front::haproxy };
                let front = start(bed.servers[&Target::Plain].address(), &PAUSES);
                bed.proxies.insert(target, front.expect("it is installed"));
            }
        }
        if species.iter().any(|one| one.beside) {
            bed.put_nginx_beside();
        }
        bed
    }

    fn put_nginx_beside(&mut self) {
        if let Err(why) = front::version("nginx") {
            return skip(&format!("the comparison with nginx: {why}"));
        }
        let still = Server::start(playground(&[]));
        for target in self.servers.keys() {
            let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
            let tls = (*target == Target::Tls).then_some([&*cert, &*key]);
            let nginx = Front::nginx_beside(still.address(), tls);
            self.beside.insert(*target, nginx.expect("it is installed"));
        }
        self._still = Some(still);
    }

    /// The URL of the nginx that is compared with this server.
    fn url_beside(&self, target: Target) -> Option<String> {
        let nginx = self.beside.get(&target)?;
        let scheme = if target == Target::Tls { "https" } else { "http" };
        Some(format!("{scheme}://{}", nginx.address(0)))
    }

    /// The directory for files of the clients.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn with_tls(&self, mut server: std::process::Command) -> std::process::Command {
        server.arg("--tls-cert").arg(self.path("cert.pem")).arg("--tls-key").arg(self.path("key.pem"));
        server
    }

    pub(crate) fn url(&self, target: Target, pause: u64) -> String {
        let address = |of: Target| self.servers[&of].address();
        match target {
            Target::Plain | Target::Grpc => format!("http://{}", address(target)),
            Target::Tls => format!("https://{}", address(target)),
            Target::Nginx | Target::Haproxy => format!("http://{}", self.proxies[&target].address(pause)),
            Target::Site => browser::url("http", address(target), address(Target::Plain)),
            Target::SiteTls => browser::url("https", address(target), address(Target::Tls)),
        }
    }

    /// Replaces every server at each of these moments.
    pub(crate) fn replace_all(&self, moments: &[Instant]) {
        for (n, moment) in (2..).zip(moments) {
            std::thread::sleep(moment.saturating_duration_since(Instant::now()));
            let last = |server: &Server| server.wait_serving(n - 1);
            self.servers.values().for_each(|server| signal(last(server), Signal::SIGHUP));
            self.beside.values().for_each(|nginx| nginx.reload().expect("it is alive"));
            for server in self.servers.values() {
                server.wait_serving(n);
            }
        }
    }

    /// Returns how many handovers of a target's server happened in this time span.
    fn handovers(&self, target: Target, from: Instant, to: Instant) -> u64 {
        let server = self.servers.get(&target).unwrap_or_else(|| &self.servers[&Target::Plain]);
        let lines = server.log().lines();
        let serves = |line: &&support::process::Line| {
            line.generation() > 1 && line.message().starts_with("serving") && line.at > from && line.at < to
        };
        lines.iter().filter(serves).count() as u64
    }

    pub(crate) fn history(&self) -> String {
        let mut history = String::new();
        for (target, server) in &self.servers {
            writeln!(history, "{target:?}:\n{}", server.log().history()).expect("a string");
        }
        for (target, front) in self.proxies.iter().map(|(target, front)| (format!("{target:?}"), front)) {
            writeln!(history, "{target}: {}", front.last_words()).expect("a string");
        }
        history
    }
}

/// The flags of the servers: an idle grace above all pauses but the longest, and a short standby, so that handovers may follow
/// while older generations still drain.
const QUIET: [&str; 4] = ["--standby", "500ms", "--idle-grace", IDLE_GRACE];

/// Writes a self-signed certificate for 127.0.0.1, and its key.
fn write_certificate(dir: &TempDir) {
    use std::os::unix::fs::PermissionsExt;
    let key = KeyPair::generate().expect("random numbers");
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address");
    let cert = params.self_signed(&key).expect("it is complete");
    for (name, text) in [("cert.pem", cert.pem()), ("key.pem", key.serialize_pem())] {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("writable");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("writable");
    }
}
