//! A generation at one moment, for all who want to know: `handover status`, a metric, a page.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::event::Failure;
use crate::handle::Phase;
use crate::port::members;

/// A generation at one moment; from [`Handle::status`](crate::Handle::status).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// The number of the generation, from 1.
    pub generation: u64,
    /// Its process.
    pub pid: u32,
    /// The file that a successor is started from: the one this process was started from, symbolic links kept.
    pub program: PathBuf,
    /// The arguments it gets, without the name of the program.
    pub args: Vec<OsString>,
    /// What it does.
    pub phase: Phase,
    /// Whether the service was told to stop.
    pub stopping: bool,
    /// For how long it has been in this phase.
    pub in_phase: Duration,
    /// For how long it has listened.
    pub uptime: Duration,
    /// When the phase ends at the latest, from now; then a successor is told to leave, standby ends, or the rest is cut.
    pub deadline: Option<Duration>,
    /// Where it listens, or listened.
    pub addresses: Vec<SocketAddr>,
    /// Every socket that listens on one of these, also of other processes, in the order the kernel lists them.
    pub listeners: Vec<PortMember>,
    /// The process it took over from, while that lives.
    pub predecessor: Option<u32>,
    /// The process it started to take over, while that lives.
    pub successor: Option<u32>,
    /// Its connections.
    pub connections: Connections,
    /// How the last handover ended that this generation took part in.
    pub last_handover: Option<LastHandover>,
}

/// A socket that listens on an address of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortMember {
    /// The address.
    pub address: SocketAddr,
    /// Whose it is, if this user may know.
    pub pid: Option<u32>,
    /// The user it belongs to.
    pub uid: u32,
}

/// Every socket that listens on one of these addresses. To know whose it is takes a look at every process of this user.
pub(crate) fn listeners(addresses: &[SocketAddr]) -> Vec<PortMember> {
    let members = |address: &SocketAddr| members::of(*address).unwrap_or_default();
    let whose = |m: members::Member| PortMember { address: m.addr, pid: members::pid(m.inode), uid: m.uid };
    addresses.iter().flat_map(members).map(whose).collect()
}

/// The connections of a generation, and the requests on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Connections {
    /// Connections that are open.
    pub open: u64,
    /// Connections since it began to listen.
    pub accepted: u64,
    /// Connections that made room for others, see [`Server::max_connections`](crate::Server::max_connections).
    pub evicted: u64,
    /// HTTP requests since it began to listen.
    pub requests: u64,
    /// HTTP requests in flight: handed to the service, and the response has not ended.
    pub in_flight: u64,
    /// Connections that ended by themselves since it began to drain.
    pub finished: u64,
}

/// How a handover ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LastHandover {
    /// What came of it.
    pub result: HandoverResult,
    /// How long ago.
    pub ago: Duration,
}

/// What came of a handover.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum HandoverResult {
    /// This generation took over from that process.
    TookOver {
        /// The pid.
        predecessor: u32,
    },
    /// This generation handed over to that process.
    HandedOver {
        /// The pid.
        successor: u32,
    },
    /// The successor did not become ready, and this generation went on serving.
    Failed(Failure),
    /// The successor took over and left in standby, so this generation serves again.
    TakenBack(Failure),
}
