//! Who stands for the service behind the supervisor, and how it ended. Only that generation is believed, and the
//! successor it has named once it is dead.

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
    /// The number of the generation that stands for the service, or did so last.
    number: u64,
    /// `None` once the service is over.
    current: Option<Generation>,
    /// Those that stood for the service before, and finish their connections.
    leaving: Vec<Leaving>,
    /// How the last one that stood for the service and is dead has ended.
    last: Option<End>,
    /// Children that were reaped and of whom nothing has been read yet: a message may name them all the same.
    reaped: Vec<(u32, Ended)>,
    /// A restart that was asked for, until a generation says that it is under way.
    restart: Option<Restart>,
    stop_asked: bool,
}

#[derive(Debug, Clone, Copy)]
struct Restart {
    signal: Signal,
    /// `current` was told, which may die or hand over at that very moment.
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

    /// No process stands for it, and none is left.
    pub(super) fn has_left(&self) -> bool {
        self.current.is_none() && self.leaving.is_empty()
    }

    /// The status that the last one to stand for the service ended with, as a shell would say it.
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

    /// Returns when a generation is dead. Cancel safe.
    pub(super) async fn any_death(&self) {
        let current = self.current.iter().map(|one| &one.process);
        let all = current.chain(self.leaving.iter().map(|one| &one.process));
        let mut deaths: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = vec![];
        for process in all {
            deaths.push(Box::pin(process.dead()));
        }
        std::future::poll_fn(|context| {
            match deaths.iter_mut().any(|death| death.as_mut().poll(context).is_ready()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Whether a message of this process may mean something.
    pub(super) fn may_speak(&self, pid: u32) -> bool {
        let is = |process: &PidFd| process.pid() == pid;
        self.current.as_ref().is_some_and(|one| is(&one.process) || one.successor.as_ref().is_some_and(is))
    }

    /// A process that a generation has named, whatever has become of it.
    fn named(&self, pid: u32) -> Option<PidFd> {
        if self.reaped.iter().any(|(reaped, _)| *reaped == pid) {
            return Some(PidFd::gone(pid));
        }
        // If it is gone, the generation that has named it has reaped it.
        let opened = PidFd::named(pid);
        opened.inspect_err(|error| error!(pid, %error, "cannot watch a generation; it is not followed")).ok()
    }

    /// Takes in what a generation says. Returns what the manager of this process should hear of it.
    pub(super) fn read(&mut self, datagram: &Datagram) -> Vec<String> {
        let is_successor =
            |one: &Generation| one.successor.as_ref().is_some_and(|next| next.pid() == datagram.from);
        // The process that stood for the service said all it had to say before its successor could know that it is dead.
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
        self.named(pid.parse().ok()?)
    }

    fn move_to(&mut self, next: PidFd) {
        let mut next = Generation { spoke: true, ..Generation::new(next) };
        if let Some(before) = self.current.take() {
            // It may not have passed on what it was told in the very moment that it moved.
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
        // A process that was told may not have come to it.
        if let Some(restart) = &mut self.restart {
            restart.is_passed_on = false;
        }
    }

    /// The status of a child that was reaped.
    pub(super) fn note(&mut self, pid: u32, ended: Ended) {
        if let Some(current) = self.current.as_mut().filter(|one| one.process.pid() == pid) {
            current.ended = Some(ended);
        } else if let Some(last) = self.last.as_mut().filter(|last| last.pid == pid && last.ended.is_none()) {
            last.ended = Some(ended);
        } else {
            self.reaped.push((pid, ended));
        }
    }

    /// Everything has been read that was said before they were reaped. The successor's turn may still come.
    pub(super) fn forget_the_reaped(&mut self) {
        let successor = self.current.as_ref().and_then(|one| one.successor.as_ref()).map(PidFd::pid);
        self.reaped.retain(|(pid, _)| Some(*pid) == successor);
    }

    fn how_ended(&self, pid: u32) -> Option<Ended> {
        self.reaped.iter().find(|(reaped, _)| *reaped == pid).map(|(_, ended)| *ended)
    }

    /// The process that stands for the service, if it is dead.
    pub(super) fn dead(&self) -> Option<u32> {
        self.current.as_ref().filter(|one| one.process.is_dead()).map(|one| one.process.pid())
    }

    pub(super) fn has_dead_successor(&self) -> bool {
        self.current.as_ref().and_then(|one| one.successor.as_ref()).is_some_and(PidFd::is_dead)
    }

    /// Forgets those who have left, and the process that stood for the service if it was found `dead`, and still did so at its end.
    /// Its successor takes its place, dead or alive, unless it was found to have `failed` before its predecessor's death.
    pub(super) fn remove_dead(&mut self, dead: Option<u32>, failed: bool) {
        self.leaving.retain(|one| !one.process.is_dead());
        let Some(dead) = self.current.take_if(|one| Some(one.process.pid()) == dead) else { return };
        let pid = dead.process.pid();
        // One that never said a word never stood for the service: what counts is why it was needed.
        if self.last.is_none() || dead.spoke || dead.ended != Some(Ended::Exited(0)) {
            self.last = Some(End { pid, stopping: dead.stopping, ended: dead.ended });
        }
        let generation = self.number;
        // One that is dead and was reaped here outlived the one that has named it.
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
        match stopping || self.stop_asked || ended == Some(Ended::Exited(0)) {
            true => info!(generation, pid, left, "{}: the service has ended", how(ended)),
            false => error!(
                generation,
                pid,
                left,
                "{} without a successor: the service has ended; its supervisor may start it again",
                how(ended)
            ),
        }
        for one in self.leaving.iter_mut().filter(|one| !one.told_to_stop) {
            one.process.signal(Signal::TERM);
            one.told_to_stop = true;
        }
        self.refuse_restart();
    }
}
