//! The servers in `bench/peers`, which are compiled on first use.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use nix::sys::signal::Signal;
use support::servers::family::Family;
use support::servers::{packages, tell, wait_for};

use super::{Competitor, Kind, Means};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Peer {
    Ecdysis,
    Shellflip,
    Pingora,
    /// Bare hyper, the new process started beside the old one.
    Beside,
    /// Bare hyper, the new process started after the old one has ended.
    After,
}

pub(super) const ALL: &[Competitor] = &[
    Competitor {
        name: "ecdysis",
        start: "peer-ecdysis IP:PORT",
        restart: "kill -HUP PID",
        kind: Kind::Peer(Peer::Ecdysis),
    },
    Competitor {
        name: "shellflip",
        start: "peer-shellflip IP:PORT",
        restart: "peer-shellflip IP:PORT restart",
        kind: Kind::Peer(Peer::Shellflip),
    },
    Competitor {
        name: "pingora",
        start: "peer-pingora IP:PORT",
        restart: "peer-pingora IP:PORT --upgrade, and when it waits at its socket kill -QUIT OLD",
        kind: Kind::Peer(Peer::Pingora),
    },
    Competitor {
        name: "hyper, SO_REUSEPORT",
        start: "peer-plain IP:PORT",
        restart: "peer-plain IP:PORT, and when it listens kill -TERM OLD",
        kind: Kind::Peer(Peer::Beside),
    },
    Competitor {
        name: "hyper, stop then start",
        start: "peer-plain IP:PORT",
        restart: "kill -TERM OLD, and when it has ended peer-plain IP:PORT",
        kind: Kind::Peer(Peer::After),
    },
];

impl Peer {
    /// The package, which has a binary of the same name.
    fn package(self) -> &'static str {
        match self {
            Peer::Ecdysis => "peer-ecdysis",
            Peer::Shellflip => "peer-shellflip",
            Peer::Pingora => "peer-pingora",
            Peer::Beside | Peer::After => "peer-plain",
        }
    }

    /// The dependencies that define the peer, for its version.
    fn dependencies(self) -> &'static [&'static str] {
        match self {
            Peer::Ecdysis => &["ecdysis", "hyper-util", "hyper"],
            Peer::Shellflip => &["shellflip", "hyper-util", "hyper"],
            Peer::Pingora => &["pingora-core"],
            Peer::Beside | Peer::After => &["hyper-util", "hyper"],
        }
    }

    pub(super) fn version(self) -> Result<String, String> {
        build(self.package())?;
        let lock = std::fs::read_to_string(workspace().join("Cargo.lock")).unwrap_or_default();
        let versions: Vec<_> = self.dependencies().iter().map(|name| locked(&lock, name)).collect();
        Ok(versions.join(", "))
    }
}

/// A package and its version in a Cargo.lock.
fn locked(lock: &str, name: &str) -> String {
    let entry = format!("\nname = \"{name}\"\nversion = \"");
    let version = lock.split_once(&entry).and_then(|(_, rest)| rest.split('"').next());
    format!("{name} {}", version.unwrap_or("of unknown version"))
}

fn workspace() -> PathBuf {
    support::root().join("bench/peers")
}

fn binary(package: &str) -> PathBuf {
    packages::peers().join("release").join(package)
}

/// Compiles a package, at most once in a run.
fn build(package: &'static str) -> Result<(), String> {
    static BUILT: Mutex<BTreeMap<&str, Result<(), String>>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().expect("its holders never panic");
    built.entry(package).or_insert_with(|| compile(package)).clone()
}

fn compile(package: &str) -> Result<(), String> {
    if !binary(package).exists() {
        eprintln!("compiling {package}, which takes a while the first time");
    }
    let mut cargo = support::cargo();
    cargo.args(["build", "--release", "--locked", "--package", package]);
    cargo.arg("--manifest-path").arg(workspace().join("Cargo.toml"));
    cargo.arg("--target-dir").arg(packages::peers());
    if let Ok(cmake) = packages::command("cmake") {
        cargo.env("CMAKE", cmake.get_program());
        cargo.envs(cmake.get_envs().filter_map(|(name, value)| Some((name, value?))));
    }
    let output = cargo.stdin(Stdio::null()).output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let error = said.lines().find(|line| line.starts_with("error")).unwrap_or("cargo does not say why");
    let cmake = if said.contains("is `cmake` not installed") { ": run bench/peers/fetch" } else { "" };
    Err(format!("does not build: {error}{cmake}"))
}

/// Starts a peer, which [`Peer::version`] must have compiled before.
pub(super) fn start(peer: Peer, address: SocketAddr) -> Result<Server, String> {
    let mut server = Server { family: Family::new()?, peer, address, newest: 0 };
    server.newest = server.spawn(&[])?;
    Ok(server)
}

pub(super) struct Server {
    family: Family,
    peer: Peer,
    address: SocketAddr,
    /// The process that this executable started last.
    newest: u32,
}

/// The socket at which a new pingora waits for its predecessor.
const UPGRADE_SOCKET: &str = "upgrade.sock";
/// The file in which the other peers write their pid when they are ready.
const PID_FILE: &str = "pid";

impl Server {
    fn command(&self) -> Command {
        let mut command = Command::new(binary(self.peer.package()));
        command.arg(self.address.to_string()).current_dir(self.family.dir());
        command
    }

    fn spawn(&mut self, args: &[&str]) -> Result<u32, String> {
        let mut command = self.command();
        self.family.spawn(command.args(args))
    }

    /// Requests a restart through the coordination socket, which answers when the successor is ready.
    fn ask(&self) -> Result<(), String> {
        let asked = self.command().arg("restart").output().map_err(|error| format!("cannot run: {error}"))?;
        let said = String::from_utf8_lossy(&asked.stderr);
        if asked.status.success() { Ok(()) } else { Err(format!("the restart failed: {}", said.trim())) }
    }
}

impl Means for Server {
    fn restart(&mut self) -> Result<(), String> {
        let old = self.newest;
        match self.peer {
            Peer::Ecdysis => {
                let ready = wait_for("a pid file", || self.family.pid_in(PID_FILE))?;
                tell(ready, Signal::SIGHUP)?;
            }
            Peer::Shellflip => self.ask()?,
            Peer::Pingora => {
                let socket = self.family.dir().join(UPGRADE_SOCKET);
                // A socket left over from the last restart would be mistaken for the new one.
                let _ = std::fs::remove_file(&socket);
                self.newest = self.spawn(&["--upgrade"])?;
                wait_for("the new pingora at its socket", || socket.exists().then_some(()))?;
                tell(old, Signal::SIGQUIT)?;
            }
            Peer::Beside => {
                self.newest = self.spawn(&[])?;
                let new = self.newest;
                wait_for("the new one to listen", || self.family.pid_in(PID_FILE).filter(|pid| *pid == new))?;
                tell(old, Signal::SIGTERM)?;
            }
            Peer::After => {
                tell(old, Signal::SIGTERM)?;
                self.family.wait_end(old)?;
                self.newest = self.spawn(&[])?;
            }
        }
        Ok(())
    }

    fn pids(&self) -> Vec<u32> {
        self.family.pids()
    }

    fn last_words(&self) -> String {
        self.family.last_words()
    }
}
