//! Finds the running servers, their generations and the serving one, by asking every socket in the control directories.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use handover::control::listening::sockets;
use handover::control::protocol::Status;
use handover::control::runtime_dir::{bases, bases_of_other_users, control_dirs, key, network_namespace};
use hyper::{Method, StatusCode};
use rustix::process::geteuid;
use serde::Deserialize;
use serde_json::Value;

use super::client::ask;
use super::{CommandError, SILENCE, ServerSelector, failed, say};

/// A generation that does not answer within this time counts as hung.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long it may be unclear which generation serves, because a process is not scheduled for a while.
const UNCLEAR: Duration = Duration::from_secs(5);

/// A generation that is alive.
#[derive(Debug, Clone)]
pub(super) struct Generation {
    pub(super) pid: u32,
    pub(super) socket: PathBuf,
    /// The status that the generation reports; `None` if it does not answer.
    pub(super) status: Option<Status>,
    /// The unparsed status, for `--json`.
    pub(super) json: Value,
}

impl Generation {
    pub(super) fn phase(&self) -> &str {
        self.status.as_ref().map_or("does not answer", |status| &status.phase)
    }

    pub(super) fn number(&self) -> u64 {
        self.status.as_ref().map_or(0, |status| status.generation)
    }

    pub(super) fn predecessor(&self) -> Option<u32> {
        self.status.as_ref()?.predecessor
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.stopping)
    }

    /// Returns the id that all generations of a server share. Older versions report none.
    fn service(&self) -> Option<&str> {
        self.status.as_ref()?.service.as_deref()
    }

    fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let listen = self.status.iter().flat_map(|status| &status.listen);
        listen.filter_map(|address| address.parse().ok())
    }

    pub(super) fn serves(&self) -> bool {
        matches!(self.phase(), "serving" | "spawning")
    }
}

/// Returns the generations that have their sockets in a directory, the oldest first.
///
/// A generation may leave after the directory was read and before it is asked. Its successor had opened a socket by then, so
/// the result is empty only if a second look at the directory shows no new socket.
pub(super) fn find_generations(dir: &Path) -> Vec<Generation> {
    let mut before = sockets(dir);
    loop {
        let generations = ask_each(before.clone());
        let now = sockets(dir);
        if !generations.is_empty() || now.iter().all(|one| before.contains(one)) {
            return generations;
        }
        before = now;
    }
}

/// Asks all generations at the same time.
fn ask_each(sockets: Vec<(i32, PathBuf)>) -> Vec<Generation> {
    let (answer, answers) = mpsc::channel();
    for (pid, socket) in sockets.clone() {
        let answer = answer.clone();
        // Never joined: connect(2) may wait for ever for a stopped process.
        let asking = move || drop(answer.send((pid, status(&socket))));
        let _ = std::thread::Builder::new().spawn(asking);
    }
    drop(answer);
    let (mut told, until) = (Vec::new(), Instant::now() + PATIENCE);
    while let Ok(one) = answers.recv_timeout(until.saturating_duration_since(Instant::now())) {
        told.push(one);
    }
    let of = |(pid, socket): (i32, PathBuf)| {
        let status = match told.iter().position(|(who, _)| *who == pid).map(|at| told.swap_remove(at).1) {
            Some(Ok(status)) => Some(status),
            None => None,
            Some(Err(error)) if is_silence(&error) => None,
            // No process listens on the socket any more, or the process is just leaving.
            Some(Err(_)) => return None,
        };
        let (status, json) = status.unzip();
        Some(Generation { pid: pid.cast_unsigned(), socket, status, json: json.unwrap_or_default() })
    };
    let mut generations: Vec<_> = sockets.into_iter().filter_map(of).collect();
    generations.sort_by_key(|one| (one.number(), one.pid));
    generations
}

fn status(socket: &Path) -> io::Result<(Status, Value)> {
    let answer = ask(socket, Method::GET, "/status", Some(PATIENCE))?;
    match answer.status {
        StatusCode::OK => {
            let json: Value = answer.value()?;
            Ok((Status::deserialize(&json)?, json))
        }
        StatusCode::GONE => Err(io::ErrorKind::NotConnected.into()),
        // For instance too many requests: the generation is alive and cannot report its status.
        _ => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn is_silence(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, TimedOut, WouldBlock};
    matches!(error.kind(), TimedOut | WouldBlock | PermissionDenied)
}

impl ServerSelector {
    /// Returns the control directory of the selected server, which is running.
    pub(super) fn find(&self) -> Result<PathBuf, CommandError> {
        let none = |which: &str| CommandError::NotRunning(format!("no server is running{which}"));
        if let Some(dir) = &self.control {
            let error = match fs::read_dir(dir) {
                Ok(_) if !find_generations(dir).is_empty() => return Ok(dir.clone()),
                Ok(_) => return Err(none(&format!(" with --control {}", dir.display()))),
                Err(error) => error,
            };
            return Err(match error.kind() {
                io::ErrorKind::NotFound => none(&format!(" with --control {}", dir.display())),
                _ => failed(format!(
                    "cannot read the directory {}: {error}; use the --control that the server was started with",
                    dir.display()
                )),
            });
        }
        let wanted = self.listen.as_ref().map(|named| named.resolve().map_err(failed)).transpose()?;
        let is_wanted = |running: &Running| wanted.as_ref().is_none_or(|addresses| running.is_on(addresses));
        let mut running: Vec<_> = servers(&bases(), false).into_iter().filter(is_wanted).collect();
        if running.is_empty() && geteuid().is_root() {
            // Root may operate the servers of other users.
            running = servers(&bases_of_other_users(), true).into_iter().filter(is_wanted).collect();
        }
        // A server that only drains is not meant while another one serves.
        prefer(&mut running, |one| one.generations.iter().any(|g| g.phase() != "draining"));
        if wanted.is_some() {
            // Another network namespace may have a server on the same address.
            prefer(&mut running, Running::is_in_this_namespace);
        }
        match &running[..] {
            [one] => Ok(one.dir.clone()),
            [] => Err(match &self.listen {
                Some(address) => none(&format!(
                    " on {address}; a server with --control DIR is found only by --control DIR"
                )),
                None => none(""),
            }),
            several => {
                let flags = several.iter().map(|one| format!("\n  {}", one.flag(several)));
                let flags = flags.collect::<String>();
                Err(failed(format!("{} servers are running, select one of them:{flags}", several.len())))
            }
        }
    }
}

/// Keeps only the servers for which `is_better` is true, if there are any.
fn prefer(running: &mut Vec<Running>, is_better: impl Fn(&Running) -> bool) {
    if running.iter().any(&is_better) {
        running.retain(is_better);
    }
}

/// A running server.
struct Running {
    dir: PathBuf,
    generations: Vec<Generation>,
}

impl Running {
    /// Returns whether the server listens on one of the addresses. If no generation answers, the name of the directory tells.
    fn is_on(&self, addresses: &[SocketAddr]) -> bool {
        let is_key = |address: &SocketAddr| self.dir.file_name().is_some_and(|n| *n == *key(*address));
        if self.generations.iter().any(|one| one.status.is_some()) {
            self.generations.iter().flat_map(Generation::addresses).any(|a| addresses.contains(&a))
        } else {
            addresses.iter().any(is_key)
        }
    }

    fn is_in_this_namespace(&self) -> bool {
        let here = network_namespace();
        let named = |one: &Generation| one.status.as_ref().and_then(|status| status.network_namespace);
        self.generations.iter().any(|one| here.is_some() && named(one) == here)
    }

    /// Returns the flag that selects this server among `all`.
    fn flag(&self, all: &[Running]) -> String {
        let pids: Vec<_> = self.generations.iter().map(|one| format!("pid {}", one.pid)).collect();
        let last = self.generations.iter().rev().find_map(|one| one.addresses().next());
        let is_only = |address: &SocketAddr| all.iter().filter(|one| one.is_on(&[*address])).count() == 1;
        match last.filter(is_only) {
            Some(address) => format!("--listen {address}  ({})", pids.join(", ")),
            None => format!("--control {}  ({})", self.dir.display(), pids.join(", ")),
        }
    }
}

/// Returns the servers without `--control`: those of this user, or those of all users.
fn servers(bases: &[PathBuf], of_everyone: bool) -> Vec<Running> {
    let mut dirs: Vec<_> = bases.iter().flat_map(|base| control_dirs(base)).collect();
    dirs.sort();
    dirs.dedup();
    // Any user may put a directory into /tmp that looks like the one of a server.
    let is_mine = |about: fs::Metadata| about.is_dir() && (of_everyone || about.uid() == geteuid().as_raw());
    dirs.retain(|dir| fs::symlink_metadata(dir).is_ok_and(is_mine));
    let running = dirs.into_iter().map(|dir| Running { generations: find_generations(&dir), dir });
    running.filter(|one| !one.generations.is_empty()).collect()
}

/// Refuses a directory that several servers share by mistake.
pub(super) fn refuse_shared_dir(dir: &Path, all: &[Generation]) -> Result<(), CommandError> {
    let live = || all.iter().filter(|one| one.phase() != "draining");
    let mut services: Vec<_> = live().filter_map(Generation::service).collect();
    services.sort_unstable();
    services.dedup();
    match services.len() {
        0 | 1 => Ok(()),
        _ => Err(shared(dir, live())),
    }
}

fn shared<'a>(dir: &Path, of: impl Iterator<Item = &'a Generation>) -> CommandError {
    let pids = of.map(|one| one.pid.to_string()).collect::<Vec<_>>().join(" and ");
    failed(format!(
        "{} is the control directory of several servers, pids {pids}: give each its own",
        dir.display()
    ))
}

fn phases(all: &[Generation]) -> String {
    all.iter().map(|one| format!("pid {} ({})", one.pid, one.phase())).collect::<Vec<_>>().join(", ")
}

/// Waits until exactly one generation serves, and returns it. Around a flip there may be none or two for a moment.
pub(super) fn serving(dir: &Path) -> Result<Generation, CommandError> {
    let (began, until) = (Instant::now(), Instant::now() + UNCLEAR);
    let mut said = false;
    loop {
        let all = find_generations(dir);
        let replaced = |pid: u32| all.iter().any(|one| one.serves() && one.predecessor() == Some(pid));
        let serving: Vec<_> = all.iter().filter(|g| g.serves() && !replaced(g.pid)).collect();
        match &serving[..] {
            [one] => return Ok((*one).clone()),
            [] if all.is_empty() => {
                return Err(CommandError::NotRunning("no server is running any more".into()));
            }
            [] if all.iter().all(Generation::is_stopping) => return Err(failed("the server is stopping")),
            // A start has its own deadline, the ready timeout.
            [] if Instant::now() < until || all.iter().any(|one| one.phase() == "starting") => {
                if began.elapsed() > SILENCE && !std::mem::replace(&mut said, true) {
                    say(format_args!("waiting until a generation serves: {}", phases(&all)));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            [] => return Err(failed(format!("no generation serves: {}", phases(&all)))),
            several => return Err(shared(dir, several.iter().copied())),
        }
    }
}
