//! The servers that are compared, and how each is started, restarted and stopped as its own documentation recommends.
//!
//! All get the same: a worker or thread for each core, a backlog of 4096, no access log, nobody closed for being quiet.
//! All answer `GET /` with `generation=PID `, the process that answers. Nothing here measures anything.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::PATIENCE;

mod family;
mod handover;
mod haproxy;
mod nginx;
mod packages;
mod peers;

pub(crate) use handover::{REFUSE_STEERING, refuse_steering};

/// A server and a way to restart it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contestant {
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

/// What is the same for all contestants of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// Where they listen, on a port that each picks.
    pub(crate) ip: Ipv4Addr,
    /// Of handover: longer than any handshake.
    pub(crate) standby: Duration,
}

impl Default for Setting {
    /// On loopback.
    fn default() -> Setting {
        Setting { ip: Ipv4Addr::LOCALHOST, standby: Duration::from_millis(500) }
    }
}

impl Contestant {
    /// Also those that are missing.
    pub(crate) fn all() -> Vec<Contestant> {
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
        let address = free_port(setting.ip)?;
        let means: Box<dyn Means> = match self.kind {
            Kind::Handover(without) => Box::new(handover::start(without, address, setting.standby)?),
            Kind::Nginx(way) => Box::new(nginx::start(way, address)?),
            Kind::Haproxy(idle) => Box::new(haproxy::start(idle, address)?),
            Kind::Peer(peer) => Box::new(peers::start(peer, address)?),
        };
        let running = Running { address, means, leaving: vec![] };
        // Not from the first look on: the kernel shows the environment of a process, by which some are found, only a
        // moment after its parent goes on.
        let mut seen = false;
        let answers = wait_for("an answer", || {
            let is_gone = running.pids().is_empty();
            seen |= !is_gone;
            match serves(address) {
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

    /// Whether the processes that the last restart replaces have left.
    pub(crate) fn settled(&self) -> bool {
        let alive = self.pids();
        !self.leaving.iter().any(|pid| alive.contains(pid))
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.means.pids()
    }
}

/// Polls, because what is waited for is a file, a listener or a process of somebody else.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, String> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() >= until {
            return Err(format!("waited {PATIENCE:?} in vain for {what}"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn tell(pid: u32, signal: Signal) -> Result<(), String> {
    let target = i32::try_from(pid).map_err(|_| format!("{pid} is no pid"))?;
    kill(Pid::from_raw(target), signal).map_err(|error| format!("cannot send {signal} to {pid}: {error}"))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Below the ports that clients get: while nobody listens there, a client with this port would connect to itself
/// (RFC 9293, simultaneous open) and keep the server out.
fn free_port(ip: Ipv4Addr) -> Result<SocketAddr, String> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let lowest = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(32768);
    let ports = 1024..lowest.max(2048);
    let picked = (0..1000).map(|_| SocketAddr::new(IpAddr::V4(ip), fastrand::u16(ports.clone())));
    picked.into_iter().find(|a| TcpListener::bind(a).is_ok()).ok_or_else(|| format!("no free port on {ip}"))
}

/// In a network of its own the loopback device is down, and only the other end could ask.
fn serves(address: SocketAddr) -> bool {
    listens(address) && (!address.ip().is_loopback() || answers(address))
}

fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: load\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200 "))
    };
    ask().unwrap_or(false)
}

/// proc_net(5): addresses are written as numbers of this machine's byte order, and 0A is TCP_LISTEN.
fn listens(address: SocketAddr) -> bool {
    let IpAddr::V4(ip) = address.ip() else { return false };
    let wanted = format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port());
    let sockets = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap_or_default();
    sockets.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(wanted.as_str()) && fields.nth(1) == Some("0A")
    })
}
