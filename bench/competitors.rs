//! The servers that are compared, each started, restarted and stopped as its own documentation recommends.
//!
//! All have the same settings: a worker or thread for each core, a backlog of 4096, no access log, no close of idle connections.
//! All answer `GET /` with `generation=PID `, the pid of the answering process. Nothing here measures anything.

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
    /// The command that restarts it.
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

/// The settings of all competitors under one load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// The IP address to listen on; each competitor picks its port.
    pub(crate) ip: Ipv4Addr,
    /// The standby of handover, longer than any handshake.
    pub(crate) standby: Duration,
    /// Whether the clients speak HTTP/2 with prior knowledge.
    pub(crate) http2: bool,
}

impl Competitor {
    /// All competitors, including those that are not installed.
    pub(crate) fn all() -> Vec<Competitor> {
        [handover::ALL, nginx::ALL, haproxy::ALL, peers::ALL].concat()
    }

    /// The version, or why the competitor is missing. The first call may have to compile a peer, which takes minutes.
    pub(crate) fn version(&self) -> Result<String, String> {
        match self.kind {
            Kind::Handover(_) => Ok(concat!("handover ", env!("CARGO_PKG_VERSION")).to_owned()),
            Kind::Nginx(_) => nginx::version(),
            Kind::Haproxy(_) => haproxy::version(),
            Kind::Peer(peer) => peer.version(),
        }
    }

    /// Starts the server and returns when it answers.
    pub(crate) fn start(&self, setting: &Setting) -> Result<Running, String> {
        let address = address::free_port(setting.ip)?;
        let means: Box<dyn Means> = match self.kind {
            Kind::Handover(without) => Box::new(handover::start(without, address, setting.standby)?),
            Kind::Nginx(way) => Box::new(nginx::start(way, address, setting.http2)?),
            Kind::Haproxy(idle) => Box::new(haproxy::start(idle, address, setting.http2)?),
            Kind::Peer(peer) => Box::new(peers::start(peer, address)?),
        };
        let running = Running { address, means, leaving: vec![] };
        // A missing process means an exit only once it has been seen: some processes are found by their environment, which the
        // kernel shows a moment after the parent goes on.
        let mut seen = false;
        let answers = wait_for("an answer", || {
            let is_gone = running.pids().is_empty();
            seen |= !is_gone;
            if address::serves(address, setting.http2) {
                Some(Ok(()))
            } else {
                (seen && is_gone).then(|| Err("it exited before it answered".to_owned()))
            }
        });
        match answers.and_then(|answered| answered) {
            Ok(()) => Ok(running),
            Err(error) => Err(format!("{error}; end of its log: {}", running.means.last_words())),
        }
    }
}

/// A running server. Dropping it kills all its processes.
pub(crate) struct Running {
    address: SocketAddr,
    means: Box<dyn Means>,
    /// The processes that the last restart replaces.
    leaving: Vec<u32>,
}

/// The operations that differ between the kinds of servers.
trait Means: Send {
    fn restart(&mut self) -> Result<(), String>;

    /// The pids of all running processes.
    fn pids(&self) -> Vec<u32>;

    /// The process that a restart does not replace.
    fn master(&self) -> Option<u32> {
        None
    }

    /// The end of the server's log.
    fn last_words(&self) -> String;
}

impl Running {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests a restart. Returns when the request is sent or, if this process starts the new one itself, when that is started.
    pub(crate) fn restart(&mut self) -> Result<(), String> {
        let mut leaving = self.pids();
        leaving.retain(|pid| Some(*pid) != self.means.master());
        self.means.restart()?;
        self.leaving = leaving;
        Ok(())
    }

    /// Returns whether all processes that the last restart replaces have exited, given the processes `alive`.
    pub(crate) fn settled(&self, alive: &[u32]) -> bool {
        !self.leaving.iter().any(|pid| alive.contains(pid))
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.means.pids()
    }
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
