//! `handover stop`: stops a server and waits until every generation has left.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use handover::control::listening::remove_stale;
use hyper::{Method, StatusCode};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::client::ask;
use super::discover::{Generation, find_generations, refuse_shared_dir};
use super::{CommandError, ServerSelector, failed, say};

/// How long the socket of an ended process may remain, or a generation may be silent.
const TIDYING: Duration = Duration::from_secs(5);

pub(super) fn run(which: &ServerSelector, now: bool) -> Result<(), CommandError> {
    let dir = which.find()?;
    refuse_shared_dir(&dir, &find_generations(&dir))?;
    let mut told = Vec::new();
    // Generations that were seen and not yet told to stop: they leave by themselves or are told later.
    let mut seen: Vec<Leaving> = Vec::new();
    let mut until = None;
    loop {
        let mut generations = find_generations(&dir);
        // The serving generation is told first.
        generations.sort_by_key(|one| !one.serves());
        if generations.is_empty() {
            seen.into_iter().for_each(Leaving::wait);
            // A generation that was killed because its starter had to leave at once could not remove its socket.
            remove_stale(&dir);
            say("no generation is left");
            return Ok(());
        }
        let new = |one: &&Generation| one.status.is_some() && !told.contains(&one.pid);
        let mut leaving: Vec<&Generation> = generations.iter().filter(new).collect();
        for one in &leaving {
            if !seen.iter().any(|seen| seen.pid == one.pid) {
                seen.push(Leaving::of(one));
            }
        }
        // In standby a stop at once kills the serving generation, which should have left by itself before that.
        if now && leaving.iter().any(|one| one.serves()) {
            leaving.retain(|one| one.serves());
        }
        for one in &leaving {
            // A generation in standby passes a stop on to the serving one, so that one is not told: a second stop would cut
            // its connections.
            let is_told =
                |other: &Generation| other.phase() == "standby" && one.predecessor() == Some(other.pid);
            if now || !generations.iter().any(is_told) {
                tell(one, now);
            }
        }
        if leaving.is_empty() {
            // A generation that has left may be about to remove its socket, and a silent one about to answer again.
            if Instant::now() > *until.get_or_insert_with(|| Instant::now() + TIDYING) {
                return Err(still_there(&generations));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        told.extend(leaving.iter().map(|one| one.pid));
        for one in seen.extract_if(.., |seen| told.contains(&seen.pid)) {
            one.wait();
        }
    }
}

/// A generation that is expected to leave.
struct Leaving {
    pid: u32,
    number: u64,
    /// Opened before the process is told to stop, so that a later process with the same pid is not waited for.
    pidfd: Option<OwnedFd>,
}

impl Leaving {
    fn of(one: &Generation) -> Leaving {
        let pidfd =
            Pid::from_raw(one.pid.cast_signed()).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Leaving { pid: one.pid, number: one.number(), pidfd }
    }

    /// Waits until the process has ended: its pidfd is readable then.
    fn wait(self) {
        while self
            .pidfd
            .as_ref()
            .is_some_and(|pidfd| poll(&mut [PollFd::new(pidfd, PollFlags::IN)], None).is_err())
        {}
        say(format_args!("generation {}, pid {}, has left", self.number, self.pid));
    }
}

fn still_there(generations: &[Generation]) -> CommandError {
    let pids = generations.iter().map(|one| one.pid.to_string()).collect::<Vec<_>>().join(" ");
    failed(format!("pid {pids} does not answer and was not stopped; `kill -KILL {pids}` ends it in any case"))
}

fn tell(one: &Generation, now: bool) {
    let target = if now { "/stop?now" } else { "/stop" };
    // An error is ignored: it means that the generation has left meanwhile, or is silent and is reported later.
    if let Ok(answer) = ask(&one.socket, Method::POST, target, Some(Duration::from_secs(5)))
        && answer.status == StatusCode::ACCEPTED
    {
        let how = if now { " at once" } else { "" };
        say(format_args!("told generation {}, pid {}, to stop{how}", one.number(), one.pid));
    }
}
