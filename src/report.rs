//! What can be said of a generation, as plain data: what it does, what happens to it, how a handover ended and how it left. It
//! depends on no other module.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// What a generation is doing, as seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// It listens but is not ready; a predecessor, if there is one, serves.
    Starting,
    /// It serves.
    Serving,
    /// It serves, and a successor is starting.
    Spawning,
    /// A successor serves; this generation can still take over again.
    Standby,
    /// It finishes its connections and leaves.
    Draining,
}

/// What happened to a generation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// New connections come to this generation.
    Serving {
        /// The pid it took over from.
        predecessor: Option<u32>,
    },
    /// It stays as it is, and why: a restart that has to wait, for instance.
    Noted(&'static str),
    /// A successor was started; it has the ready timeout to become ready.
    SuccessorStarted {
        /// Its pid.
        pid: u32,
    },
    /// The successor serves, and this generation stands by.
    HandedOver(Handover),
    /// The handover failed, and this generation serves as before.
    HandoverFailed(Failure),
    /// The successor left in standby, and this generation serves again.
    ServesAgain(Failure),
    /// Standby is over: from now on only the successor can serve.
    StandbyEnded,
    /// The service was told to stop.
    Stopping,
    /// The connections are finished or cut; nothing comes after this.
    Left(Outcome),
}

/// A handover that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Handover {
    /// The pid of the generation that serves now.
    pub successor: u32,
    /// From its start until it served.
    pub took: Duration,
}

/// Why a handover failed. It prints as one line.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Failure {
    /// What went wrong.
    pub reason: String,
    /// The pid of the successor, if it could be started.
    pub successor: Option<u32>,
    /// How it ended.
    pub status: Option<ExitStatus>,
    /// The last lines it wrote to stderr before it was ready, at most 20.
    pub stderr: Vec<String>,
}

impl Failure {
    pub(crate) fn new(reason: impl Into<String>) -> Failure {
        Failure { reason: reason.into(), successor: None, status: None, stderr: vec![] }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Failure {}

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
    /// Whether that still listens, and can serve again if this generation crashes.
    pub predecessor_listens: bool,
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

/// Why a generation leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// A successor took over.
    Retired,
    /// It was told to stop.
    Stopped,
}

/// How a generation ended, and what became of its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// Whether a successor took over or the service stopped.
    pub end: End,
    /// What became of its connections.
    pub drained: Drained,
    /// All the connections that it had.
    pub connections: Connections,
}

/// What became of the connections of a generation that left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Connections that ended by themselves after the drain began.
    pub finished: u64,
    /// Connections that were still open at the deadline, or at a second request to stop.
    pub cut: u64,
    /// Requests in flight on those.
    pub requests_cut: u64,
    /// From the beginning of the drain to its end.
    pub took: Duration,
}
