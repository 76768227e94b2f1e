//! The living processes and their states, according to their log lines; and the choice of processes that may be killed or
//! stopped without taking the service down.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use crate::process::{Line, Server, signal};

/// The processes of a service.
#[derive(Default)]
pub struct Watch {
    read: usize,
    pub members: BTreeMap<u32, Member>,
    /// Dead processes, whose log lines may still arrive.
    dead: BTreeSet<u32>,
    /// Processes that crashed after they had taken over.
    pub crashed: Vec<Death>,
    pub took_over: u64,
    pub failed: u64,
    pub healed: u64,
}

#[derive(Debug, Clone)]
pub struct Member {
    parent: u32,
    /// The state from the log, but "starting" before the first line, and then "listening" until the process is ready.
    pub state: String,
    /// When the process entered the state, according to the log.
    since: Instant,
    /// Whether the release has a fault.
    faulty: bool,
    pub stopped_until: Option<Instant>,
}

/// The time in which a process may have lost requests by dying.
#[derive(Debug, Clone, Copy)]
pub struct Death {
    pub from: Instant,
    pub until: Instant,
}

impl Watch {
    /// Reads the log lines since the last call.
    pub fn read(&mut self, server: &Server) {
        for line in server.log().since(self.read) {
            self.read += 1;
            self.learn(&line);
        }
    }

    fn learn(&mut self, line: &Line) {
        let pid = line.pid();
        let other = line.json["successor"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        match (line.message(), other) {
            ("successor started", Some(child)) => {
                // The successor's own first lines may have been read already.
                self.change(child, |member| member.parent = pid);
            }
            ("this generation is to fail", _) => self.change(pid, |member| member.faulty = true),
            // The predecessor relays this line, so the process's own later lines may come first.
            ("listening, not ready yet", _) => self.change(pid, |member| {
                if member.state == "starting" {
                    (member.state, member.since) = ("listening".to_owned(), line.at);
                }
            }),
            ("state", _) => {
                let to = line.json["to"].as_str().unwrap_or_default();
                self.healed += u64::from(line.json["from"] == "standby" && to != "draining");
                self.enter(line, to);
            }
            ("retired" | "stopped", _) => {
                // A SIGSTOP after the last log line would keep the process from exiting.
                if self.bury(pid).is_some_and(|member| member.stopped_until.is_some()) {
                    signal(pid, Signal::SIGCONT);
                }
            }
            (text, Some(child)) if line.json["status"].is_string() => {
                self.failed += u64::from(text.starts_with("handover failed"));
                // An aborting process may not have logged its fault.
                let aborted = line.json["status"].as_str().is_some_and(|status| status.contains("SIGABRT"));
                if let Some(Member { since, faulty, .. }) = self.bury(child)
                    && (faulty || aborted)
                {
                    // The log may also lack the line that the process had taken over.
                    self.crashed.push(Death { from: since - Duration::from_secs(1), until: line.at });
                }
            }
            (text, _) => {
                self.took_over += u64::from(text.starts_with("serving, took over"));
                self.failed += u64::from(text.starts_with("handover failed: cannot start"));
            }
        }
    }

    fn change(&mut self, pid: u32, change: impl FnOnce(&mut Member)) {
        if !self.dead.contains(&pid) {
            // No "successor started" line announces the first generation.
            change(self.members.entry(pid).or_insert_with(Member::new));
        }
    }

    fn enter(&mut self, line: &Line, state: &str) {
        self.change(line.pid(), |member| (member.state, member.since) = (state.to_owned(), line.at));
    }

    /// Removes a process that is dead or about to be.
    pub fn bury(&mut self, pid: u32) -> Option<Member> {
        self.dead.insert(pid);
        self.members.remove(&pid)
    }

    fn child_of(&self, pid: u32) -> Option<&Member> {
        self.members.values().find(|member| member.parent == pid)
    }

    fn is(&self, pid: u32, states: &[&str]) -> bool {
        self.members.get(&pid).is_some_and(|m| m.stopped_until.is_none() && states.contains(&&*m.state))
    }

    /// The processes that may be asked to restart: those that have taken over.
    pub fn may_be_asked(&self) -> Vec<u32> {
        let heard = |member: &Member| !["starting", "listening"].contains(&&*member.state);
        self.members.iter().filter(|(_, member)| heard(member)).map(|(pid, _)| *pid).collect()
    }

    /// The processes that can die while another one serves.
    pub fn may_be_killed(&self, standby: Duration) -> Vec<u32> {
        // Log lines from before the process was ready may still be in flight.
        let settled = |child: &Member| child.since.elapsed() > Duration::from_millis(100);
        let healthy = |child: &Member| !child.faulty && child.stopped_until.is_none() && settled(child);
        let may = |pid: u32, member: &Member| match &*member.state {
            "draining" => true,
            "starting" | "listening" => self.is(member.parent, &["spawning"]),
            "standby" => self.child_of(pid).is_some_and(|child| healthy(child) && child.state == "serving"),
            "spawning" => {
                self.child_of(pid).is_some_and(|child| healthy(child) && child.state == "listening")
            }
            // Only early in standby, so that the predecessor notices before its standby ends.
            "serving" => {
                // A process with a fault may have crashed already.
                !member.faulty
                    && self.is(member.parent, &["standby"])
                    && self.members[&member.parent].since.elapsed() < standby / 3
            }
            _ => false,
        };
        self.members.iter().filter(|(pid, member)| may(**pid, member)).map(|(pid, _)| *pid).collect()
    }

    /// The processes that can be stopped while another one goes on. A process with a fault cannot: it would crash later, when
    /// its predecessor may be gone.
    pub fn may_be_stopped(&self) -> Vec<u32> {
        let goes_on = |but: u32| {
            let able = ["serving", "spawning", "withdrawing", "standby"];
            self.members.iter().any(|(pid, m)| *pid != but && self.is(*pid, &able) && !m.faulty)
        };
        let may = |pid: u32, member: &Member| {
            let known = member.stopped_until.is_none() && !member.faulty && member.state != "starting";
            known && (member.state == "draining" || goes_on(pid))
        };
        self.members.iter().filter(|(pid, member)| may(**pid, member)).map(|(pid, _)| *pid).collect()
    }
}

impl Member {
    fn new() -> Member {
        let state = "starting".to_owned();
        Member { parent: 0, state, since: Instant::now(), faulty: false, stopped_until: None }
    }
}

/// The number of sockets that listen on this address (proc_net_tcp(5)). Reads every connection of the machine, so it is slow
/// when there are many.
pub fn listeners(addr: SocketAddr) -> usize {
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(ipv4(addr)), addr.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let is_listener = |line: &str| {
        let mut fields = line.split_whitespace();
        fields.nth(1) == Some(&local) && fields.nth(1) == Some("0A")
    };
    table.lines().filter(|line| is_listener(line)).count()
}

fn ipv4(addr: SocketAddr) -> [u8; 4] {
    match addr {
        SocketAddr::V4(v4) => v4.ip().octets(),
        SocketAddr::V6(_) => panic!("chaos listens on 127.0.0.1"),
    }
}

/// Sends SIGKILL and waits until the last thread has ended, because only then are the sockets closed. The list of threads in
/// /proc is not reliable: while threads exit, it may miss one that is still there.
pub fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
    // A draining process may have exited by itself.
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    let _ = pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
    let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience));
    assert_eq!(ended, Ok(1), "{pid:?} does not end");
}
