//! Which servers run, which generations they have, and who of these serves. All of it is found by asking every socket that
//! lies in a control directory.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use serde_json::Value;

use super::ask::ask;
use super::{Trouble, Which, failed};
use crate::cli::control::place::{bases, key};
use crate::cli::control::socket::sockets;

/// Whoever does not answer a question within this time is taken as hanging.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long who serves may not be clear: as long as someone is not scheduled.
const UNCLEAR: Duration = Duration::from_secs(5);

/// A generation that is alive.
#[derive(Debug, Clone)]
pub(super) struct Generation {
    pub(super) pid: u32,
    pub(super) socket: PathBuf,
    /// What it says; `None` if it does not answer.
    pub(super) status: Option<Value>,
}

impl Generation {
    pub(super) fn phase(&self) -> &str {
        self.status.as_ref().and_then(|status| status["phase"].as_str()).unwrap_or("does not answer")
    }

    pub(super) fn number(&self) -> u64 {
        self.status.as_ref().and_then(|status| status["generation"].as_u64()).unwrap_or(0)
    }

    pub(super) fn predecessor(&self) -> Option<u32> {
        self.status.as_ref()?["predecessor"].as_u64().and_then(|pid| u32::try_from(pid).ok())
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status["stopping"] == true)
    }

    pub(super) fn serves(&self) -> bool {
        matches!(self.phase(), "serving" | "spawning")
    }
}

/// The generations whose sockets are in a directory, asked at the same time, the oldest first.
pub(super) fn look(dir: &Path) -> Vec<Generation> {
    let sockets = sockets(dir);
    let (answer, answers) = mpsc::channel();
    for (pid, socket) in sockets.clone() {
        let answer = answer.clone();
        // It is left alone if it waits for ever, which connect(2) does for a process that is stopped.
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
            // Nobody listens there any more, or it is just leaving.
            Some(Err(_)) => return None,
        };
        Some(Generation { pid: pid.cast_unsigned(), socket, status })
    };
    let mut generations: Vec<_> = sockets.into_iter().filter_map(of).collect();
    generations.sort_by_key(|one| (one.number(), one.pid));
    generations
}

fn status(socket: &Path) -> io::Result<Value> {
    let answer = ask(socket, "GET", "/status", Some(PATIENCE))?;
    match answer.code {
        200 => answer.value(),
        410 => Err(io::ErrorKind::NotConnected.into()),
        // Too many ask, for instance: it lives, and cannot say how.
        _ => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn is_silence(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, TimedOut, WouldBlock};
    matches!(error.kind(), TimedOut | WouldBlock | PermissionDenied)
}

impl Which {
    /// The control directory of the server that is meant, which is running.
    pub(super) fn find(&self) -> Result<PathBuf, Trouble> {
        let none = |which: &str| Trouble::NotRunning(format!("no server is running{which}"));
        if let Some(dir) = &self.control {
            let error = match fs::read_dir(dir) {
                Ok(_) if !look(dir).is_empty() => return Ok(dir.clone()),
                Ok(_) => return Err(none(&format!(" with --control {}", dir.display()))),
                Err(error) => error,
            };
            return Err(match error.kind() {
                io::ErrorKind::NotFound => none(&format!(" with --control {}", dir.display())),
                _ => failed(format!(
                    "cannot look into {}: {error}; name the directory that the server was started with",
                    dir.display()
                )),
            });
        }
        let mut running = servers();
        if let Some(named) = &self.listen {
            let keys: Vec<_> = named.resolve().map_err(failed)?.into_iter().map(key).collect();
            running.retain(|(dir, _)| keys.iter().any(|key| dir.file_name().is_some_and(|n| *n == **key)));
        }
        // A server of which only the rest is left, while another one serves, is not the one that is meant.
        if running.iter().any(|(_, all)| all.iter().any(|one| one.phase() != "draining")) {
            running.retain(|(_, all)| all.iter().any(|one| one.phase() != "draining"));
        }
        match &running[..] {
            [(dir, _)] => Ok(dir.clone()),
            [] => Err(match &self.listen {
                Some(address) => {
                    none(&format!(" on {address}; the one with --control DIR is found by that only"))
                }
                None => none(""),
            }),
            several => {
                let flags = several.iter().map(|(dir, all)| format!("\n  {}", flag(dir, all)));
                let flags = flags.collect::<String>();
                Err(failed(format!("{} servers are running, say which one is meant:{flags}", several.len())))
            }
        }
    }
}

/// How to say that this server is meant.
fn flag(dir: &Path, generations: &[Generation]) -> String {
    let pids: Vec<_> = generations.iter().map(|one| format!("pid {}", one.pid)).collect();
    let address = generations.iter().find_map(|one| one.status.as_ref()?["listen"][0].as_str());
    let known = address.filter(|a| a.parse().is_ok_and(|a| dir.file_name().is_some_and(|n| *n == *key(a))));
    match known {
        Some(address) => format!("--listen {address}  ({})", pids.join(", ")),
        None => format!("--control {}  ({})", dir.display(), pids.join(", ")),
    }
}

/// Every server of this user that keeps its sockets where it was not told to.
fn servers() -> Vec<(PathBuf, Vec<Generation>)> {
    let entries = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut dirs: Vec<_> = bases().into_iter().flat_map(|base| entries(base.join("handover"))).collect();
    dirs.sort();
    dirs.dedup();
    // Whatever lies in /tmp may have been put there by anybody, to be taken for a server.
    dirs.retain(|dir| fs::symlink_metadata(dir).is_ok_and(|d| d.is_dir() && d.uid() == geteuid().as_raw()));
    let running = dirs.into_iter().map(|dir| (look(&dir), dir)).filter(|(all, _)| !all.is_empty());
    running.map(|(all, dir)| (dir, all)).collect()
}

/// The generation that serves. Around a flip it is clear again after a moment.
pub(super) fn serving(dir: &Path) -> Result<Generation, Trouble> {
    let until = Instant::now() + UNCLEAR;
    loop {
        let all = look(dir);
        let replaced = |pid: u32| all.iter().any(|one| one.serves() && one.predecessor() == Some(pid));
        let serving: Vec<_> = all.iter().filter(|g| g.serves() && !replaced(g.pid)).collect();
        match &serving[..] {
            [one] => return Ok((*one).clone()),
            [] if all.is_empty() => return Err(Trouble::NotRunning("no server is running any more".into())),
            [] if all.iter().all(Generation::is_stopping) => return Err(failed("the server is stopping")),
            // A start has a deadline of its own.
            [] if Instant::now() < until || all.iter().any(|one| one.phase() == "starting") => {
                std::thread::sleep(Duration::from_millis(20));
            }
            [] => {
                let all = all.iter().map(|one| format!("pid {} ({})", one.pid, one.phase()));
                return Err(failed(format!("nobody serves of {}", all.collect::<Vec<_>>().join(", "))));
            }
            several => {
                let pids = several.iter().map(|one| one.pid.to_string()).collect::<Vec<_>>().join(" and ");
                return Err(failed(format!(
                    "{} is the control directory of several servers, pids {pids}: give each its own",
                    dir.display()
                )));
            }
        }
    }
}
