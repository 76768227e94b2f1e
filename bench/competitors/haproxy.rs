//! HAProxy as master and worker, with the listeners passed on at a reload (HAProxy's management guide, section 4).

use std::net::SocketAddr;

use nix::sys::signal::Signal;
use support::servers::family::Family;
use support::servers::{packages, tell};

use super::{Competitor, Kind, Means, cores};

/// When a leaving worker closes an idle connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Idle {
    AtOnce,
    AfterAnswer,
}

pub(super) const ALL: &[Competitor] = &[
    Competitor {
        name: "HAProxy",
        start: "haproxy -W -f haproxy.cfg",
        restart: "kill -USR2 MASTER",
        kind: Kind::Haproxy(Idle::AtOnce),
    },
    Competitor {
        name: "HAProxy, idle-close-on-response",
        start: "haproxy -W -f haproxy.cfg, with option idle-close-on-response",
        restart: "kill -USR2 MASTER",
        kind: Kind::Haproxy(Idle::AfterAnswer),
    },
];

pub(super) fn version() -> Result<String, String> {
    packages::version("haproxy", "version ")
}

pub(super) fn start(idle: Idle, address: SocketAddr, http2: bool) -> Result<Haproxy, String> {
    let mut family = Family::new()?;
    family.write("haproxy.cfg", &configuration(idle, address, http2))?;
    let master = family.spawn(packages::command("haproxy")?.args(["-W", "-f", "haproxy.cfg"]))?;
    Ok(Haproxy { family, master })
}

fn configuration(idle: Idle, address: SocketAddr, http2: bool) -> String {
    let option = if idle == Idle::AfterAnswer { "option idle-close-on-response" } else { "" };
    let protocol = if http2 { " proto h2" } else { "" };
    let threads = cores();
    format!(
        r#"global
    nbthread {threads}
    stats socket unix@admin.sock mode 600 level admin expose-fd listeners
defaults
    mode http
    backlog 4096
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout http-request 1h
    timeout http-keep-alive 1h
    {option}
frontend front
    bind {address}{protocol}
    http-request return status 200 content-type text/plain lf-string "generation=%pid pid=%pid\n"
"#
    )
}

pub(super) struct Haproxy {
    family: Family,
    master: u32,
}

impl Means for Haproxy {
    fn restart(&mut self) -> Result<(), String> {
        tell(self.master, Signal::SIGUSR2)
    }

    fn pids(&self) -> Vec<u32> {
        self.family.pids()
    }

    fn master(&self) -> Option<u32> {
        Some(self.master)
    }

    fn last_words(&self) -> String {
        self.family.last_words()
    }
}
