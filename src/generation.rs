//! Who am I: the number of this generation, its verified predecessor, and the environment for a successor.
//!
//! The variables are believed only if they name the process that is the parent right now, by pid and start time.
//! They cannot be removed from a running process without `unsafe`, so a grandchild may inherit them: there they
//! name somebody else's parent and mean nothing.

use std::net::SocketAddr;

use crate::process::{self, Parent};

const PARENT: &str = "HANDOVER_PARENT";
const GENERATION: &str = "HANDOVER_GENERATION";
const LISTEN: &str = "HANDOVER_LISTEN";

/// The environment variables a generation sets for its successor.
///
/// They mean something only there. A program that starts other programs may remove them:
///
/// ```
/// let mut command = std::process::Command::new("convert");
/// handover::ENVIRONMENT.iter().for_each(|name| { command.env_remove(name); });
/// ```
pub const ENVIRONMENT: [&str; 3] = [PARENT, GENERATION, LISTEN];

#[derive(Debug)]
pub(crate) struct Generation {
    /// From 1.
    pub(crate) number: u64,
    pub(crate) predecessor: Option<Predecessor>,
}

#[derive(Debug)]
pub(crate) struct Predecessor {
    pub(crate) parent: Parent,
    /// Where it listens.
    pub(crate) addresses: Vec<Address>,
}

/// An address as it was asked for and as it is: they differ when port 0 was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) asked: SocketAddr,
    pub(crate) actual: SocketAddr,
}

impl Generation {
    pub(crate) fn from_env() -> Generation {
        let var = |name| std::env::var(name).ok();
        let successor = || {
            let (pid, started) = parse_parent(&var(PARENT)?)?;
            let number: u64 = var(GENERATION)?.parse().ok()?;
            let addresses = parse_addresses(&var(LISTEN)?)?;
            let parent = Parent::verified(pid, started)?;
            Some(Generation {
                number: number.checked_add(1)?,
                predecessor: Some(Predecessor { parent, addresses }),
            })
        };
        successor().unwrap_or(Generation { number: 1, predecessor: None })
    }

    pub(crate) fn environment(&self, addresses: &[Address]) -> Vec<(&'static str, String)> {
        let pid = std::process::id();
        let parent = match process::started(pid) {
            Some(at) => format!("{pid}@{at}"),
            None => pid.to_string(),
        };
        vec![(PARENT, parent), (GENERATION, self.number.to_string()), (LISTEN, format_addresses(addresses))]
    }
}

/// `PID` or `PID@START`.
fn parse_parent(text: &str) -> Option<(u32, Option<u64>)> {
    match text.split_once('@') {
        Some((pid, started)) => Some((pid.parse().ok()?, Some(started.parse().ok()?))),
        None => Some((text.parse().ok()?, None)),
    }
}

/// Comma-separated `ADDR`, or `ADDR=PORT` where port 0 was asked for.
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
    fn garbage_in_the_environment_is_no_address_and_no_panic() {
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
    fn a_process_that_is_not_the_parent_is_not_believed() {
        assert!(Parent::verified(std::process::id(), None).is_none());
    }

    #[test]
    fn the_parent_with_another_start_time_is_not_believed() {
        let parent = rustix::process::getppid().expect("tests have a parent").as_raw_pid().cast_unsigned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let _inside = runtime.enter();
        let started = process::started(parent).expect("the parent is in /proc");
        assert!(Parent::verified(parent, Some(started)).is_some());
        assert!(Parent::verified(parent, Some(started + 1)).is_none());
    }
}
