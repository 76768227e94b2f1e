//! The servers that are compared, and how each is started, restarted and stopped as its own documentation recommends.
//!
//! All get the same: a worker or thread for each core, a backlog of 4096, no access log, nobody closed for being quiet.
//! All answer `GET /` with `generation=PID `, the process that answers. Nothing here measures anything.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use support::servers::{address, wait_for};

mod handover;
mod haproxy;
mod nginx;
mod peers;

pub(crate) use handover::{REFUSE_STEERING, refuse_steering};

/// A server and a way to restart it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Competitor {
    pub(crate) name: &'static str,
    /// The command that starts it.
    pub(crate) start: &'static str,
    /// What restarts it.
    pub(crate) restart: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Handover(handover::Without),
    Nginx(nginx::Way),
    Haproxy(haproxy::Idle),
    Peer(peers::Peer),
}

/// What is the same for all competitors under one load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// Where they listen, on a port that each picks.
    pub(crate) ip: Ipv4Addr,
    /// Of handover: longer than any handshake.
    pub(crate) standby: Duration,
    /// The clients speak HTTP/2 with prior knowledge.
    pub(crate) http2: bool,
}

impl Competitor {
    /// Also those that are missing.
    pub(crate) fn all() -> Vec<Competitor> {
        [handover::ALL, nginx::ALL, haproxy::ALL, peers::ALL].concat()
    }

    /// What it is, or why it is missing. The first time a peer may have to be compiled, which takes minutes.
    pub(crate) fn version(&self) -> Result<String, String> {
        match self.kind {
            Kind::Handover(_) => Ok(concat!("handover ", env!("CARGO_PKG_VERSION")).to_owned()),
            Kind::Nginx(_) => nginx::version(),
            Kind::Haproxy(_) => haproxy::version(),
            Kind::Peer(peer) => peer.version(),
        }
    }

    /// Returns when it answers.
    pub(crate) fn start(&self, setting: &Setting) -> Result<Running, String> {
        let address = address::free_port(setting.ip)?;
        let means: Box<dyn Means> = match self.kind {
            Kind::Handover(without) => Box::new(handover::start(without, address, setting.standby)?),
            Kind::Nginx(way) => Box::new(nginx::start(way, address, setting.http2)?),
            Kind::Haproxy(idle) => Box::new(haproxy::start(idle, address, setting.http2)?),
            Kind::Peer(peer) => Box::new(peers::start(peer, address)?),
        };
        let running = Running { address, means, leaving: vec![] };
        // Not from the first look on: the kernel shows the environment of a process, by which some are found, only a
        // moment after its parent goes on.
        let mut seen = false;
        let answers = wait_for("an answer", || {
            let is_gone = running.pids().is_empty();
            seen |= !is_gone;
            match address::serves(address, setting.http2) {
                true => Some(Ok(())),
                false => (seen && is_gone).then(|| Err("it left before it answered".to_owned())),
            }
        });
        match answers.and_then(|answered| answered) {
            Ok(()) => Ok(running),
            Err(error) => Err(format!("{error}; it said: {}", running.means.last_words())),
        }
    }
}

/// A server at work. Dropped, all its processes are ended.
pub(crate) struct Running {
    address: SocketAddr,
    means: Box<dyn Means>,
    /// Who had to leave when it was restarted last.
    leaving: Vec<u32>,
}

/// What one kind of server does differently.
trait Means: Send {
    fn restart(&mut self) -> Result<(), String>;

    /// Every process that lives.
    fn pids(&self) -> Vec<u32>;

    /// The process that a restart does not replace.
    fn master(&self) -> Option<u32> {
        None
    }

    /// The end of what it wrote.
    fn last_words(&self) -> String;
}

impl Running {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns when it has been told, or where a new process is started by whoever restarts, when that one is started.
    pub(crate) fn restart(&mut self) -> Result<(), String> {
        let mut leaving = self.pids();
        leaving.retain(|pid| Some(*pid) != self.means.master());
        self.means.restart()?;
        self.leaving = leaving;
        Ok(())
    }

    /// Whether the processes that the last restart replaces have left, so that only these live.
    pub(crate) fn settled(&self, alive: &[u32]) -> bool {
        !self.leaving.iter().any(|pid| alive.contains(pid))
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.means.pids()
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
