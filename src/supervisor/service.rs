//! The supervisor's view of the service: which generation is the main one, and how the last one ended. Only messages from the
//! main generation count, and once it is dead, those from the successor that it has named.

use std::pin::Pin;
use std::process::ExitCode;
use std::task::Poll;

use rustix::process::Signal;
use tracing::{error, info, warn};

use super::notify_socket::Datagram;
use crate::process::pidfd::{Ended, PidFd};
use crate::service_manager;

mod generations;
mod signals;
use generations::{End, Generation, Leaving, how};

#[derive(Debug)]
pub(super) struct Service {
    /// The number of the main generation, also after it has ended.
    number: u64,
    /// The main generation; `None` once the service has ended.
    current: Option<Generation>,
    /// Former main generations, which finish their connections.
    leaving: Vec<Leaving>,
    /// How the last dead main generation ended.
    last: Option<End>,
    /// Children that were reaped, kept because an unread message may still name them.
    reaped: Vec<(u32, Ended)>,
    /// A restart that was asked for, until a generation confirms that it is under way.
    restart: Option<Restart>,
    stop_asked: bool,
}

#[derive(Debug, Clone, Copy)]
struct Restart {
    signal: Signal,
    /// Whether `current` was told. It may still die or hand over before it acts on the signal.
    is_passed_on: bool,
}

impl Service {
    pub(super) fn of(first: PidFd) -> Service {
        Service {
            number: 1,
            current: Some(Generation::new(first)),
            leaving: vec![],
            last: None,
            reaped: vec![],
            restart: None,
            stop_asked: false,
        }
    }

    /// Returns whether every generation has left.
    pub(super) fn has_left(&self) -> bool {
        self.current.is_none() && self.leaving.is_empty()
    }

    /// Returns the exit status of the last main generation, as a shell would report it.
    pub(super) fn status(&self) -> ExitCode {
        match self.last.as_ref().and_then(|last| Some((last.ended?, last))) {
            Some((Ended::Exited(status), _)) => status.into(),
            Some((Ended::Killed(signal), _)) => signal.saturating_add(128).into(),
            None if self.stop_asked || self.last.as_ref().is_some_and(|last| last.stopping) => {
                ExitCode::SUCCESS
            }
            None => ExitCode::FAILURE,
        }
    }

    /// Waits until any generation is dead. Cancel safe.
    pub(super) async fn any_death(&self) {
        let current = self.current.iter().map(|one| &one.process);
        let all = current.chain(self.leaving.iter().map(|one| &one.process));
        let mut deaths: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = vec![];
        for process in all {
            deaths.push(Box::pin(process.dead()));
        }
        std::future::poll_fn(|context| {
            if deaths.iter_mut().any(|death| death.as_mut().poll(context).is_ready()) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Returns whether a message from this process may count.
    pub(super) fn may_speak(&self, pid: u32) -> bool {
        let is = |process: &PidFd| process.pid() == pid;
        self.current.as_ref().is_some_and(|one| is(&one.process) || one.successor.as_ref().is_some_and(is))
    }

    /// Returns the process that a generation has named, dead or alive.
    fn open_named(&self, pid: u32) -> Option<PidFd> {
        if self.reaped.iter().any(|(reaped, _)| *reaped == pid) {
            return Some(PidFd::gone(pid));
        }
        // If the process is gone and not in `reaped`, its predecessor has reaped it.
        let opened = PidFd::named(pid);
        opened.inspect_err(|error| error!(pid, %error, "cannot watch the successor; it is ignored")).ok()
    }

    /// Handles a message from a generation. Returns the fields to forward to the supervisor's service manager.
    pub(super) fn read(&mut self, datagram: &Datagram) -> Vec<String> {
        let is_successor =
            |one: &Generation| one.successor.as_ref().is_some_and(|next| next.pid() == datagram.from);
        // A successor speaks only after it knows that the main generation is dead, and by then all messages of that one are read.
        if self.current.as_ref().is_some_and(is_successor) {
            self.remove_dead(self.dead(), false);
        }
        let named: Vec<_> = datagram.text.lines().map(|field| (field, self.process_in(field))).collect();
        let Some(current) = self.current.as_mut().filter(|one| one.process.pid() == datagram.from) else {
            return vec![];
        };
        current.spoke = true;
        let mut for_manager = vec![];
        let mut next = None;
        for (field, process) in named {
            match field.split_once('=') {
                Some((service_manager::SUCCESSOR, _)) => current.successor = process,
                Some((service_manager::MAIN, _)) => next = process,
                Some((name, _)) if name.starts_with(service_manager::OURS) => {}
                _ => {
                    current.stopping |= field == service_manager::STOPPING;
                    if field == service_manager::RELOADING {
                        self.restart.take_if(|restart| restart.is_passed_on);
                    }
                    for_manager.push(field.to_owned());
                }
            }
        }
        if let Some(next) = next {
            self.move_to(next);
        }
        self.pass_on_restart();
        for_manager
    }

    fn process_in(&self, field: &str) -> Option<PidFd> {
        let (service_manager::SUCCESSOR | service_manager::MAIN, pid) = field.split_once('=')? else {
            return None;
        };
        self.open_named(pid.parse().ok()?)
    }

    fn move_to(&mut self, next: PidFd) {
        let mut next = Generation { spoke: true, ..Generation::new(next) };
        if let Some(before) = self.current.take() {
            // The old main generation may have been told to stop in the moment of its handover, too late to pass it on.
            if before.told_to_stop {
                next.process.signal(Signal::TERM);
                next.told_to_stop = true;
            }
            self.leaving.push(Leaving { process: before.process, told_to_stop: before.told_to_stop });
        }
        self.promote(next);
    }

    fn promote(&mut self, mut next: Generation) {
        self.number += 1;
        next.ended = self.how_ended(next.process.pid());
        self.current = Some(next);
        // The old main generation may not have acted on the restart, so the new one is told again.
        if let Some(restart) = &mut self.restart {
            restart.is_passed_on = false;
        }
    }

    /// Records how a child ended that was reaped.
    pub(super) fn record_exit(&mut self, pid: u32, ended: Ended) {
        if let Some(current) = self.current.as_mut().filter(|one| one.process.pid() == pid) {
            current.ended = Some(ended);
        } else if let Some(last) = self.last.as_mut().filter(|last| last.pid == pid && last.ended.is_none()) {
            last.ended = Some(ended);
        } else {
            self.reaped.push((pid, ended));
        }
    }

    /// Forgets the reaped children, except the successor, which may still become the main generation. Call it once all
    /// messages have been read, because none can name the others any more.
    pub(super) fn forget_the_reaped(&mut self) {
        let successor = self.current.as_ref().and_then(|one| one.successor.as_ref()).map(PidFd::pid);
        self.reaped.retain(|(pid, _)| Some(*pid) == successor);
    }

    fn how_ended(&self, pid: u32) -> Option<Ended> {
        self.reaped.iter().find(|(reaped, _)| *reaped == pid).map(|(_, ended)| *ended)
    }

    /// Returns the pid of the main generation, if it is dead.
    pub(super) fn dead(&self) -> Option<u32> {
        self.current.as_ref().filter(|one| one.process.is_dead()).map(|one| one.process.pid())
    }

    pub(super) fn has_dead_successor(&self) -> bool {
        self.current.as_ref().and_then(|one| one.successor.as_ref()).is_some_and(PidFd::is_dead)
    }

    /// Removes the generations that have left, and the main generation if it is the one found `dead`. Its successor takes its
    /// place, dead or alive, unless that successor `failed` before its predecessor died.
    pub(super) fn remove_dead(&mut self, dead: Option<u32>, failed: bool) {
        self.leaving.retain(|one| !one.process.is_dead());
        let Some(dead) = self.current.take_if(|one| Some(one.process.pid()) == dead) else { return };
        let pid = dead.process.pid();
        // A successor that exited without a message never became the main generation, so the death of its predecessor is the
        // end that counts.
        if self.last.is_none() || dead.spoke || dead.ended != Some(Ended::Exited(0)) {
            self.last = Some(End { pid, stopping: dead.stopping, ended: dead.ended });
        }
        let generation = self.number;
        // A dead successor that was reaped here outlived its predecessor.
        match dead.successor.filter(|next| !failed || self.how_ended(next.pid()).is_some()) {
            Some(next) => {
                let successor = next.pid();
                warn!(
                    generation,
                    pid,
                    successor,
                    "{}: its successor stands for the service",
                    how(dead.ended)
                );
                let told_to_stop = self.stop_asked;
                if told_to_stop {
                    next.signal(Signal::TERM);
                }
                self.promote(Generation { told_to_stop, ..Generation::new(next) });
            }
            None => self.end(pid, dead.stopping, dead.ended),
        }
    }

    fn end(&mut self, pid: u32, stopping: bool, ended: Option<Ended>) {
        let (generation, left) = (self.number, self.leaving.len());
        if stopping || self.stop_asked || ended == Some(Ended::Exited(0)) {
            info!(generation, pid, left, "{}: the service has ended", how(ended));
        } else {
            error!(
                generation,
                pid,
                left,
                "{} without a successor: the service has ended; the supervisor does not restart it",
                how(ended)
            );
        }
        for one in self.leaving.iter_mut().filter(|one| !one.told_to_stop) {
            one.process.signal(Signal::TERM);
            one.told_to_stop = true;
        }
        self.refuse_restart();
    }
}
