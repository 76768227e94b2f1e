//! The identity of this process: the number of its generation, its verified predecessor, and the environment of a successor.
//!
//! The environment variables are believed only if they name the current parent process, by pid and start time. They cannot
//! be removed from a running process without `unsafe`, so a grandchild may inherit them. There they do not name the parent,
//! and are ignored.

use std::io;
use std::net::SocketAddr;

use tracing::{Span, info_span};

use crate::process::{self, Parent};

const PARENT: &str = "HANDOVER_PARENT";
const GENERATION: &str = "HANDOVER_GENERATION";
const LISTEN: &str = "HANDOVER_LISTEN";
const SUPERVISOR: &str = "HANDOVER_SUPERVISOR";
const PROTOCOL: &str = "HANDOVER_PROTOCOL";

/// The version of the protocol between generations. Two generations speak the older of their versions.
///
/// Version 1: READY is SIGTERM, and no version is sent. Version 2: READY is SIGURG, repeated until the predecessor has
/// closed its listener.
const SPOKEN: u32 = 2;

/// The environment variables that a generation sets for its successor, and that the supervisor of
/// [`supervise`](crate::supervise) sets for the first generation.
///
/// Every other process ignores them. A program that starts other programs may remove them:
///
/// ```
/// let mut command = std::process::Command::new("convert");
/// handover::ENVIRONMENT.iter().for_each(|name| { command.env_remove(name); });
/// ```
pub const ENVIRONMENT: &[&str] =
    &[PARENT, GENERATION, LISTEN, SUPERVISOR, PROTOCOL, process::stderr::VARIABLE];

/// Returns the number of this process's generation, counted from 1. It works before there is a
/// [`Server`](crate::Server), so a log that is set up first can include the number.
///
/// The number can be verified only while the predecessor is the parent, so call this when the program starts and keep the
/// result. Once the server listens, [`Handle::generation`](crate::Handle::generation) returns the same number.
pub fn generation() -> u64 {
    Claim::read(|name| std::env::var(name).ok())
        .filter(|claim| process::is_parent(claim.pid, claim.started))
        .map_or(1, |claim| claim.number)
}

#[derive(Debug)]
pub(crate) struct Generation {
    /// Counted from 1.
    pub(crate) number: u64,
    pub(crate) predecessor: Option<Predecessor>,
    /// The pid of the supervisor, which is the main pid of the service.
    pub(crate) supervisor: Option<u32>,
}

#[derive(Debug)]
pub(crate) struct Predecessor {
    pub(crate) parent: Parent,
    /// The addresses on which the predecessor listens.
    pub(crate) addresses: Vec<Address>,
    /// The protocol version to speak with it.
    pub(crate) protocol: u32,
}

/// An address as requested and as bound. They differ when port 0 was requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) asked: SocketAddr,
    pub(crate) actual: SocketAddr,
}

impl Generation {
    /// Reads the environment. Fails if there is a predecessor but no pidfd for it.
    pub(crate) fn from_env() -> io::Result<Generation> {
        Generation::from_vars(|name| std::env::var(name).ok())
    }

    fn from_vars(var: impl Fn(&str) -> Option<String>) -> io::Result<Generation> {
        let mut generation = Generation { number: 1, predecessor: None, supervisor: None };
        if let Some(Claim { pid, started, number, addresses, protocol }) = Claim::read(&var)
            && let Some(parent) = Parent::verified(pid, started)?
        {
            let predecessor = Predecessor { parent, addresses, protocol };
            generation = Generation { number, predecessor: Some(predecessor), ..generation };
        }
        generation.supervisor = supervisor(var(SUPERVISOR), generation.predecessor.is_some());
        Ok(generation)
    }

    /// Returns the span of every log line of this generation.
    pub(crate) fn span(&self) -> Span {
        info_span!("handover", generation = self.number, pid = std::process::id())
    }

    pub(crate) fn environment(&self, addresses: &[Address]) -> Vec<(&'static str, String)> {
        let me = format_parent(std::process::id());
        vec![
            // Names its author too, because a generation that speaks version 1 passes on an inherited variable unchanged.
            (PROTOCOL, format!("{SPOKEN} {me}")),
            (PARENT, me),
            (GENERATION, self.number.to_string()),
            (LISTEN, format_addresses(addresses)),
            // Empty without a supervisor, because a program that was started by a generation of another server inherits the
            // name of that server's supervisor.
            (SUPERVISOR, self.supervisor.map(format_parent).unwrap_or_default()),
        ]
    }
}

/// Returns the environment for the first generation under this supervisor.
pub(crate) fn supervisor_environment() -> Vec<(&'static str, String)> {
    vec![(SUPERVISOR, format_parent(std::process::id()))]
}

/// Returns whether this process is a generation under a supervisor (see [`supervise`](crate::supervise)), or the successor
/// of any generation. Like [`generation`], call it when the program starts.
pub fn is_supervised() -> bool {
    let var = |name: &str| std::env::var(name).ok();
    let successor = Claim::read(var).is_some_and(|claim| process::is_parent(claim.pid, claim.started));
    successor || supervisor(var(SUPERVISOR), false).is_some()
}

/// Returns the pid of the supervisor, if it is the parent or was named by a verified predecessor.
fn supervisor(named: Option<String>, by_predecessor: bool) -> Option<u32> {
    let (pid, started) = parse_parent(&named?)?;
    let is_it = process::is_parent(pid, started)
        || by_predecessor && started.is_none_or(|at| process::started(pid) == Some(at));
    is_it.then_some(pid)
}

/// Formats `PID@START`, for [`parse_parent`].
fn format_parent(pid: u32) -> String {
    match process::started(pid) {
        Some(at) => format!("{pid}@{at}"),
        None => pid.to_string(),
    }
}

/// The unverified content of the environment variables.
struct Claim {
    pid: u32,
    started: Option<u64>,
    number: u64,
    addresses: Vec<Address>,
    protocol: u32,
}

impl Claim {
    fn read(var: impl Fn(&str) -> Option<String>) -> Option<Claim> {
        let parent = var(PARENT)?;
        let (pid, started) = parse_parent(&parent)?;
        let number: u64 = var(GENERATION)?.parse().ok()?;
        let addresses = parse_addresses(&var(LISTEN)?)?;
        let protocol = spoken_with(&parent, var(PROTOCOL).as_deref());
        Some(Claim { pid, started, number: number.checked_add(1)?, addresses, protocol })
    }
}

/// Returns the protocol version to speak with this parent: the older of its version and ours.
fn spoken_with(parent: &str, said: Option<&str>) -> u32 {
    let version = said.and_then(|said| {
        let (version, by) = said.split_once(' ')?;
        version.parse().ok().filter(|_| by == parent)
    });
    version.map_or(1, |version: u32| version.clamp(1, SPOKEN))
}

/// Parses `PID` or `PID@START`.
fn parse_parent(text: &str) -> Option<(u32, Option<u64>)> {
    match text.split_once('@') {
        Some((pid, started)) => Some((pid.parse().ok()?, Some(started.parse().ok()?))),
        None => Some((text.parse().ok()?, None)),
    }
}

/// Formats comma-separated addresses: `ADDR`, or `ADDR=PORT` where port 0 was requested.
fn format_addresses(addresses: &[Address]) -> String {
    let one = |a: &Address| match a.asked.port() {
        0 => format!("{}={}", a.asked, a.actual.port()),
        _ => a.asked.to_string(),
    };
    addresses.iter().map(one).collect::<Vec<_>>().join(",")
}

fn parse_addresses(text: &str) -> Option<Vec<Address>> {
    let one = |entry: &str| match entry.split_once('=') {
        Some((asked, port)) => {
            let asked: SocketAddr = asked.parse().ok()?;
            Some(Address { asked, actual: SocketAddr::new(asked.ip(), port.parse().ok()?) })
        }
        None => entry.parse().ok().map(|asked| Address { asked, actual: asked }),
    };
    text.split(',').filter(|entry| !entry.is_empty()).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_environment() {
        let addresses =
            ["127.0.0.1:8080=8080", "127.0.0.1:0=40123", "[::1]:0=40124", "[::]:80=80"].map(|text| {
                let (asked, port) = text.split_once('=').expect("literal");
                let asked: SocketAddr = asked.parse().expect("literal");
                Address { asked, actual: SocketAddr::new(asked.ip(), port.parse().expect("literal")) }
            });
        assert_eq!(parse_addresses(&format_addresses(&addresses)), Some(addresses.to_vec()));
    }

    #[test]
    fn garbage_in_the_environment_is_rejected_without_a_panic() {
        for text in
            ["nonsense", "127.0.0.1", "127.0.0.1:0=", "127.0.0.1:0=99999", "=,=", "1.2.3.4:5=6=7", "\u{0}"]
        {
            assert_eq!(parse_addresses(text), None, "{text:?}");
        }
        for text in ["", "x", "1@", "@1", "-1", "99999999999", "1@x"] {
            assert_eq!(parse_parent(text), None, "{text:?}");
        }
    }

    #[test]
    fn two_generations_speak_the_older_version_and_a_version_from_an_ancestor_is_ignored() {
        let parent = "41@1000";
        assert_eq!(spoken_with(parent, None), 1);
        assert_eq!(spoken_with(parent, Some("1 41@1000")), 1);
        assert_eq!(spoken_with(parent, Some("2 41@1000")), 2);
        assert_eq!(spoken_with(parent, Some("99 41@1000")), SPOKEN);
        for unclear in ["2 40@1000", "2 41@999", "2 41", "2", "", "x 41@1000", "0 41@1000", "2  41@1000"] {
            assert_eq!(spoken_with(parent, Some(unclear)), 1, "{unclear:?}");
        }
    }

    #[test]
    fn a_process_that_is_not_the_parent_is_not_believed() {
        assert!(matches!(Parent::verified(std::process::id(), None), Ok(None)));
    }

    #[test]
    fn the_parent_with_another_start_time_is_not_believed() {
        let parent = rustix::process::getppid().expect("tests have a parent").as_raw_pid().cast_unsigned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let _inside = runtime.enter();
        let started = process::started(parent).expect("the parent is in /proc");
        assert!(matches!(Parent::verified(parent, Some(started)), Ok(Some(_))));
        assert!(matches!(Parent::verified(parent, Some(started + 1)), Ok(None)));
    }

    /// Returns valid text with up to three random edits. Purely random bytes would never be nearly valid.
    fn nearly(random: &mut fastrand::Rng, right: &str) -> String {
        let mut text: Vec<char> = right.chars().collect();
        for _ in 0..random.usize(0..4) {
            let at = random.usize(..=text.len());
            match random.u8(0..4) {
                0 => text.truncate(at),
                1 => text.insert(at, random.choice(*b"0123456789@=,.:[]-+ \n\0").expect("not empty").into()),
                2 if at < text.len() => drop(text.remove(at)),
                _ => text.insert(at, random.char(..)),
            }
        }
        text.into_iter().collect()
    }

    #[test]
    fn only_the_parent_itself_is_believed_for_any_environment() {
        let ppid = rustix::process::getppid().expect("tests have a parent").as_raw_pid().cast_unsigned();
        let started = process::started(ppid).expect("the parent is in /proc");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let _inside = runtime.enter();
        let mut random = fastrand::Rng::with_seed(1);
        let mut believed = 0;
        for _ in 0..20_000 {
            let pid = if random.bool() { ppid } else { random.u32(..) };
            let parent = nearly(&mut random, &format!("{pid}@{started}"));
            let generation = nearly(&mut random, "41");
            let listen = nearly(&mut random, "127.0.0.1:0=8080,[::1]:9090");
            let told = Generation::from_vars(|name| match name {
                PARENT => Some(parent.clone()),
                GENERATION => Some(generation.clone()),
                _ => Some(listen.clone()),
            });
            let told = told.expect("the kernel gives a pidfd for the parent");
            let Some(predecessor) = told.predecessor else {
                assert_eq!(told.number, 1);
                continue;
            };
            believed += 1;
            let right = [format!("{ppid}@{started}"), ppid.to_string()];
            // Leading zeros and a plus sign change no number.
            let plain = |part: &str| part.trim_start_matches('+').trim_start_matches('0').to_owned();
            let said = parent.split('@').map(plain).collect::<Vec<_>>().join("@");
            assert!(right.contains(&said), "{parent:?} was believed to be {ppid}@{started}");
            assert_eq!(predecessor.parent.pid(), ppid);
            assert_eq!(Some(told.number - 1), generation.parse().ok());
            let understood = parse_addresses(&format_addresses(&predecessor.addresses));
            assert!(understood.is_some_and(|a| a.len() == predecessor.addresses.len()), "{listen:?}");
        }
        assert!(believed > 200, "only {believed} environments were valid: too few to prove anything");
    }

    #[test]
    fn random_text_is_no_parent_and_no_address() {
        let mut random = fastrand::Rng::with_seed(2);
        for _ in 0..20_000 {
            let text: String = (0..random.usize(0..40)).map(|_| random.char(..)).collect();
            assert_eq!(parse_parent(&text), None, "{text:?}");
            let addresses = parse_addresses(&text);
            assert!(addresses.as_ref().is_none_or(Vec::is_empty), "{text:?} is {addresses:?}");
        }
    }
}
