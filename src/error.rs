//! The crate's opaque error. Each message names the action, the address, path or pid, the cause and the remedy.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The longest duration that a setting accepts. A longer one is a mistake, and sums of such durations could overflow.
pub(crate) const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// The error of a generation that could not start or take over.
///
/// The message is one line: what was tried, on which address, path or pid, why it failed, and what to do about it.
/// When a successor fails with this error, its predecessor keeps serving.
///
/// # Examples
///
/// ```no_run
/// # use {hyper::{Request, Response, body::Incoming, service::service_fn}, std::convert::Infallible};
/// # async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> { Ok(Response::new("".into())) }
/// # async fn run() {
/// match handover::Server::bind("0.0.0.0:8080").serve(service_fn(hello)).await {
///     Err(error) if error.kind() == handover::ErrorKind::AddressInUse => {
///         eprintln!("is another server running? {error}");
///     }
///     Err(error) => eprintln!("{error}"),
///     Ok(outcome) => println!("{:?}", outcome.end),
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Error(Kind);

/// What failed, from [`Error::kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A host name could not be resolved, or an address is none.
    Unresolved,
    /// A duration is too long, or one address takes the connections of another: see [`Server::check`](crate::Server::check).
    InvalidSetting,
    /// Another process holds an address.
    AddressInUse,
    /// An address could not be listened on for another reason.
    Listen,
    /// The port of the predecessor could not be taken over, or the predecessor could not be told.
    TakeOver,
    /// The pid file could not be written.
    PidFile,
    /// The process could not find out how it was started, install signal handlers or hold another process.
    System,
    /// The supervisor, or the first generation under it, could not start.
    Supervisor,
    /// The readiness check of the application failed.
    NotReady,
    /// The readiness check of the application took too long.
    ReadyTimeout,
}

#[derive(Debug)]
pub(crate) enum Kind {
    NoAddress(io::Error),
    /// A duration is longer than [`LONGEST`].
    TooLong {
        setting: &'static str,
        time: Duration,
    },
    /// One of two addresses takes the connections of the other.
    Conflict {
        a: SocketAddr,
        b: SocketAddr,
    },
    /// The port of a first generation is held by another process.
    InUse {
        addr: SocketAddr,
        holders: String,
    },
    /// Binding or listening failed for another reason.
    Listen {
        addr: SocketAddr,
        source: io::Error,
    },
    /// The predecessor's port could not be joined.
    Join {
        addr: SocketAddr,
        source: io::Error,
        /// The uids of the sockets that listen there.
        users: Vec<u32>,
    },
    /// The predecessor is not seen to listen on an address that this generation joined.
    PredecessorNotSeen {
        addr: SocketAddr,
        predecessor: u32,
    },
    /// A foreign listener is on an address that is to be taken over.
    ForeignListener {
        addr: SocketAddr,
        holders: String,
    },
    PidFile {
        path: PathBuf,
        source: io::Error,
    },
    Launch {
        what: &'static str,
        source: io::Error,
    },
    Signals(io::Error),
    /// No pidfd can be opened for a process.
    Pidfd(io::Error),
    /// The supervisor cannot run.
    Supervisor {
        what: &'static str,
        source: io::Error,
    },
    /// The supervisor cannot start the first generation.
    FirstGeneration(String),
    Predecessor {
        pid: u32,
        source: io::Error,
    },
    NotReady(Box<dyn std::error::Error + Send + Sync>),
    ReadyTimeout(Duration),
}

impl Error {
    /// Returns what failed.
    pub fn kind(&self) -> ErrorKind {
        match self.0 {
            Kind::NoAddress(_) => ErrorKind::Unresolved,
            Kind::TooLong { .. } | Kind::Conflict { .. } => ErrorKind::InvalidSetting,
            Kind::InUse { .. } => ErrorKind::AddressInUse,
            Kind::Listen { .. } => ErrorKind::Listen,
            Kind::Join { .. }
            | Kind::PredecessorNotSeen { .. }
            | Kind::ForeignListener { .. }
            | Kind::Predecessor { .. } => ErrorKind::TakeOver,
            Kind::PidFile { .. } => ErrorKind::PidFile,
            Kind::Launch { .. } | Kind::Signals(_) | Kind::Pidfd(_) => ErrorKind::System,
            Kind::Supervisor { .. } | Kind::FirstGeneration(_) => ErrorKind::Supervisor,
            Kind::NotReady(_) => ErrorKind::NotReady,
            Kind::ReadyTimeout(_) => ErrorKind::ReadyTimeout,
        }
    }
}

impl Error {
    /// Returns whether the predecessor is not seen to listen on an address that this generation joined.
    pub(crate) fn is_predecessor_not_seen(&self) -> bool {
        matches!(self.0, Kind::PredecessorNotSeen { .. })
    }
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Self {
        Error(kind)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::NoAddress(source) => {
                write!(
                    f,
                    "cannot resolve the address to listen on: {source}; use IP:PORT, e.g. 127.0.0.1:8080"
                )
            }
            Kind::TooLong { setting, time } => write!(
                f,
                "cannot use the {setting} of {} s: the longest is {} days",
                time.as_secs(),
                LONGEST.as_secs() / 86_400
            ),
            Kind::Conflict { a, b } => write!(
                f,
                "cannot listen on {a} and on {b}: one of them takes the connections of the other; name only the one that \
                 takes both{}",
                if a.is_ipv4() == b.is_ipv4() {
                    String::new()
                } else {
                    format!(", or 0.0.0.0:{0} and [::]:{0}", a.port())
                }
            ),
            Kind::InUse { addr, holders } => write!(f, "cannot listen on {addr}: address in use{holders}"),
            Kind::Listen { addr, source } => {
                write!(f, "cannot listen on {addr}: {}{}", plain(source), advice(*addr, source))
            }
            Kind::Join { addr, source, users } => {
                write!(
                    f,
                    "cannot join the predecessor on {addr}: {}{}",
                    plain(source),
                    difference(*addr, source, users)
                )
            }
            Kind::PredecessorNotSeen { addr, predecessor } => write!(
                f,
                "cannot take over {addr}: this process does not see its predecessor, pid {predecessor}, listen there, so it is \
                 in another network namespace, where no connection would arrive; start it in the predecessor's"
            ),
            Kind::ForeignListener { addr, holders } => write!(
                f,
                "cannot take over {addr}: another process listens there besides the predecessor{holders}; new \
                 connections could not be steered, so nothing was changed"
            ),
            Kind::PidFile { path, source } => write!(
                f,
                "cannot write the pid file {}: {}; choose a directory this user may write to",
                path.display(),
                plain(source)
            ),
            Kind::Launch { what, source } => {
                write!(f, "cannot find out how this process was started ({what}): {source}")
            }
            Kind::Supervisor { what, source } => {
                write!(f, "cannot supervise the server: {what}: {}", plain(source))
            }
            Kind::FirstGeneration(reason) => f.write_str(reason),
            Kind::Signals(source) => write!(f, "cannot install signal handlers: {source}"),
            Kind::Pidfd(source) => f.write_str(&no_pidfd(source)),
            Kind::Predecessor { pid, source } => {
                write!(f, "cannot signal the predecessor, pid {pid}: {source}")
            }
            Kind::NotReady(source) => write!(f, "the readiness check failed: {source}"),
            Kind::ReadyTimeout(after) => {
                write!(
                    f,
                    "the readiness check did not finish within {after:?}; raise the ready timeout if it needs more"
                )
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Kind::NoAddress(source)
            | Kind::Listen { source, .. }
            | Kind::Join { source, .. }
            | Kind::PidFile { source, .. }
            | Kind::Launch { source, .. }
            | Kind::Signals(source)
            | Kind::Pidfd(source)
            | Kind::Supervisor { source, .. }
            | Kind::Predecessor { source, .. } => Some(source),
            Kind::NotReady(source) => Some(source.as_ref()),
            Kind::TooLong { .. }
            | Kind::Conflict { .. }
            | Kind::InUse { .. }
            | Kind::PredecessorNotSeen { .. }
            | Kind::ForeignListener { .. }
            | Kind::FirstGeneration(_)
            | Kind::ReadyTimeout(_) => None,
        }
    }
}

/// Returns the message for a kernel or sandbox without pidfds.
pub(crate) fn no_pidfd(source: &io::Error) -> String {
    format!(
        "cannot hold a process by pidfd_open(2): {}; a restart needs Linux 5.3 or newer, and a sandbox (seccomp) that \
         allows pidfd_open and pidfd_send_signal",
        plain(source)
    )
}

/// Returns the system's message without the suffix of the standard library, such as "(os error 98)".
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.chars().next().map_or_else(String::new, |c| c.to_lowercase().chain(text.chars().skip(1)).collect())
}

/// Returns why a successor cannot listen where its predecessor does.
fn difference(addr: SocketAddr, source: &io::Error, users: &[u32]) -> String {
    let me = rustix::process::geteuid().as_raw();
    match source.kind() {
        io::ErrorKind::AddrInUse => match users.iter().find(|user| **user != me) {
            Some(user) => format!(
                "; uid {user} listens there, and this is uid {me}: both generations must run as the same user"
            ),
            None if users.is_empty() => {
                "; no process is seen to listen there: both generations must run in the same network namespace"
                    .into()
            }
            None => "; both generations must spell the address the same way".into(),
        },
        io::ErrorKind::AddrNotAvailable => format!(
            "{}: both generations must run in the same network namespace, or the address has gone",
            advice(addr, source)
        ),
        _ => advice(addr, source),
    }
}

fn advice(addr: SocketAddr, source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::AddrNotAvailable => {
            "; no interface of this machine has that address (see `ip addr`)".into()
        }
        io::ErrorKind::PermissionDenied if addr.port() < 1024 => format!(
            "; ports below 1024 need CAP_NET_BIND_SERVICE (`setcap cap_net_bind_service=+ep` on the binary, or \
             AmbientCapabilities= in the unit), or use a higher port such as {}",
            u32::from(addr.port()) + 8000
        ),
        _ => String::new(),
    }
}
