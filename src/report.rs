//! Plain data about a generation: its phase, its events, its status, the result of a handover and how it left. This module
//! depends on no other.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// The phase of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// The generation listens but is not ready. A predecessor, if there is one, serves.
    Starting,
    /// The generation serves.
    Serving,
    /// The generation serves, and a successor is starting.
    Spawning,
    /// A successor serves. This generation serves again if the successor crashes.
    Standby,
    /// The generation finishes its connections, then leaves.
    Draining,
}

/// An event in the life of a generation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// New connections come to this generation.
    Serving {
        /// The pid of the process that this generation took over from.
        predecessor: Option<u32>,
    },
    /// A note for the log, such as the reason why a restart has to wait.
    Noted(&'static str),
    /// A successor was started. It must become ready within the ready timeout.
    SuccessorStarted {
        /// The pid of the successor.
        pid: u32,
    },
    /// The successor serves, and this generation is in standby.
    HandedOver(Handover),
    /// The handover failed, and this generation keeps serving.
    HandoverFailed(Failure),
    /// The successor crashed during standby, and this generation serves again.
    ServesAgain(Failure),
    /// Standby is over: from now on only the successor can serve.
    StandbyEnded,
    /// The service was told to stop.
    Stopping,
    /// The connections are finished or cut. This is the last event.
    Left(Outcome),
    /// The reader was more than 256 events behind, and has missed this many.
    Missed(u64),
}

/// A handover that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Handover {
    /// The pid of the generation that serves now.
    pub successor: u32,
    /// The time from the successor's start until it served.
    pub took: Duration,
}

/// The reason why a handover failed. `Display` prints `reason`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Failure {
    /// What went wrong, in one line.
    pub reason: String,
    /// The pid of the successor, if it could be started.
    pub successor: Option<u32>,
    /// The exit status of the successor, if it is known.
    pub status: Option<ExitStatus>,
    /// The last lines that the successor wrote to stderr before it was ready, at most 20.
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

/// A snapshot of a generation, from [`Handle::status`](crate::Handle::status).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// The number of the generation, counted from 1.
    pub generation: u64,
    /// The pid of the generation.
    pub pid: u32,
    /// The path that a successor is started from. It is the path that this process was started from, with symbolic links kept.
    pub program: PathBuf,
    /// The arguments of a successor, without the name of the program.
    pub args: Vec<OsString>,
    /// The phase of the generation.
    pub phase: Phase,
    /// Whether the service was told to stop.
    pub stopping: bool,
    /// The time since the phase began.
    pub in_phase: Duration,
    /// The time since the generation began to listen.
    pub uptime: Duration,
    /// The time left until the deadline of the phase, if it has one. Then the start fails, a late successor is told to leave,
    /// standby ends, or the remaining connections are cut.
    pub deadline: Option<Duration>,
    /// The addresses on which the generation listens, or did listen.
    pub addresses: Vec<SocketAddr>,
    /// Every socket that listens on one of `addresses`, including those of other processes, in the kernel's order.
    pub listeners: Vec<PortMember>,
    /// The pid of the process that this generation took over from, while that process lives.
    pub predecessor: Option<u32>,
    /// Whether the predecessor still listens, and can serve again if this generation crashes.
    pub predecessor_listens: bool,
    /// The pid of the successor, while it lives.
    pub successor: Option<u32>,
    /// The connections of the generation.
    pub connections: Connections,
    /// The last handover in which this generation took part, and its result.
    pub last_handover: Option<LastHandover>,
}

/// A socket that listens on an address of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortMember {
    /// The address on which the socket listens.
    pub address: SocketAddr,
    /// The pid of the process that owns the socket, if this user may know it.
    pub pid: Option<u32>,
    /// The uid of the user who owns the socket.
    pub uid: u32,
}

/// The numbers of connections of a generation, and of the requests on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Connections {
    /// Connections that are open.
    pub open: u64,
    /// Connections accepted since the generation began to listen.
    pub accepted: u64,
    /// Connections closed to make room for others, see [`Server::max_connections`](crate::Server::max_connections).
    pub evicted: u64,
    /// HTTP requests since the generation began to listen.
    pub requests: u64,
    /// HTTP requests in flight: passed to the service, with a response that has not ended.
    pub in_flight: u64,
    /// Connections that ended by themselves since the drain began.
    pub finished: u64,
}

/// The last handover of a generation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LastHandover {
    /// The result of the handover.
    pub result: HandoverResult,
    /// The time since the handover ended.
    pub ago: Duration,
}

/// The result of a handover.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum HandoverResult {
    /// This generation took over from its predecessor.
    TookOver {
        /// The pid of the predecessor.
        predecessor: u32,
    },
    /// This generation handed over to its successor.
    HandedOver {
        /// The pid of the successor.
        successor: u32,
    },
    /// The successor did not become ready, and this generation kept serving.
    Failed(Failure),
    /// The successor took over and then crashed during standby, so this generation serves again.
    TakenBack(Failure),
}

/// The reason why a generation leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GenerationEnd {
    /// A successor took over.
    Retired,
    /// The service was told to stop.
    Stopped,
}

/// The end of a generation and of its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The reason why the generation left.
    pub end: GenerationEnd,
    /// The result of the drain.
    pub drained: Drained,
    /// The final numbers of connections and requests.
    pub connections: Connections,
}

/// The result of a drain: how the connections of a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Connections that ended by themselves after the drain began.
    pub finished: u64,
    /// Connections that were still open at the deadline, or at a second request to stop.
    pub cut: u64,
    /// Requests in flight on the connections that were cut.
    pub requests_cut: u64,
    /// The time from the beginning of the drain to its end.
    pub took: Duration,
}
