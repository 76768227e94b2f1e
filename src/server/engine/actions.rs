//! The actions of the event loop: one function for each action that takes more than one call.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use tracing::{error, info, warn};

use super::Engine;
use crate::error::no_pidfd;
use crate::lifecycle::{Action, DrainMode, Event, Exit, ExitMeaning};
use crate::process::{Child, pidfd, stderr};
use crate::report::{Event as Happened, Failure, GenerationEnd, Outcome};
use crate::service_manager;
use crate::signals;

/// Advice about a successor that left with status 0 before it was ready.
const IN_THE_BACKGROUND: &str = ": if it forked into the background: a successor must not, because its predecessor waits \
     for the process that it started; daemonise only if handover::generation() is 1";

/// The number of consecutive successors that may be killed by a restart signal before the next one counts as crashed.
const EARLY_RESTARTS: u32 = 3;

/// A child that has exited.
pub(super) struct ExitedChild {
    child: Child,
    status: io::Result<ExitStatus>,
}

impl Engine {
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::TellChild(command) => {
                self.child.iter().for_each(|c| c.signal(signals::signal_for(command)));
            }
            Action::KillChild => self.child.iter_mut().for_each(Child::start_kill),
            Action::Hold => self.hold(),
            Action::HandBack => self.warn_unless(self.listeners.hold()),
            Action::SetDrainMode(mode) => self.set_drain_mode(mode),
            Action::MoveMainPid => self.move_main_pid(),
            Action::TakeMainPid => {
                self.pid_file.move_to(std::process::id());
                self.service_manager.become_main();
            }
            Action::CloseListeners => self.listeners.begin_close(),
            Action::Note(text) => {
                warn!("{text}");
                self.observers.tell(Happened::Noted(text));
            }
            Action::Spawn
            | Action::ReportChildExit(_)
            | Action::Notify(_)
            | Action::Leave(_)
            | Action::GiveUp => {}
        }
    }

    fn move_main_pid(&mut self) {
        if let Some(child) = &self.child {
            self.pid_file.move_to(child.pid());
            self.service_manager.move_to(child.pid());
        }
    }

    /// Steers new connections to this generation, unless there is a foreign listener in the reuseport group. In that case it
    /// is unknown which index is ours: the foreign listener may have moved into the slot of a predecessor that closed, and a
    /// hold would give it every connection. The steering program already in force keeps working.
    fn hold(&mut self) {
        match self.listeners.foreign_listener(usize::from(self.child.is_some())) {
            None => self.warn_unless(self.listeners.hold()),
            Some((addr, holders)) => warn!(
                "another process listens on {addr}{holders}: steering is left as it is, and a restart fails until it is \
                 gone"
            ),
        }
    }

    fn set_drain_mode(&self, mode: DrainMode) {
        match mode {
            DrainMode::Normal => self.drain.normal(),
            DrainMode::Handover => self.drain.lame_duck(self.idle_grace),
            DrainMode::Stop => self.drain.lame_duck(self.stop_idle_grace),
        }
    }

    pub(super) fn spawn(&mut self) -> Option<Event> {
        // Again, because a foreign listener may have prevented the last hold.
        self.hold();
        let environment = self.generation.environment(&self.listeners.addresses());
        let started = match (service_manager::why_no_successor_can_survive(), pidfd::is_supported()) {
            (Some(reason), _) => Err(reason.to_owned()),
            // The successor needs pidfds too, so it would fail.
            (None, Err(error)) => Err(no_pidfd(&error)),
            (None, Ok(())) => self.launch.spawn(&environment),
        };
        match started {
            Ok(child) => {
                // First, because a supervisor can adopt the successor of a dead generation only if it knows the pid.
                self.service_manager.tell(&[service_manager::successor(child.pid())]);
                info!(successor = child.pid(), "successor started");
                self.observers.tell(Happened::SuccessorStarted { pid: child.pid() });
                self.child = Some(child);
                None
            }
            Err(error) => {
                error!("handover failed: {error}; this generation goes on serving");
                self.observers.failed(Failure::new(error));
                Some(Event::SpawnFailed)
            }
        }
    }

    /// Takes the child that has exited, and returns the event that says how it left.
    pub(super) fn on_child_exit(&mut self, status: io::Result<ExitStatus>) -> Event {
        let signal = status.as_ref().ok().and_then(ExitStatusExt::signal);
        let asked = signal.is_some_and(signals::asks_for_restart);
        self.ended_by_restart = if asked { self.ended_by_restart + 1 } else { 0 };
        let exit = if status.as_ref().is_ok_and(ExitStatus::success) {
            Exit::Told
        } else if asked && self.ended_by_restart <= EARLY_RESTARTS {
            Exit::Restarted
        } else {
            Exit::Crashed
        };
        self.exited = self.child.take().map(|child| ExitedChild { child, status });
        Event::ChildExited(exit)
    }

    pub(super) async fn report_child_exit(&mut self, meaning: ExitMeaning) {
        let Some(ExitedChild { mut child, status }) = self.exited.take() else { return };
        let successor = child.pid();
        let mut failure =
            Failure { successor: Some(successor), status: status.as_ref().ok().copied(), ..Failure::new("") };
        let advice = if status.as_ref().is_ok_and(ExitStatus::success) { IN_THE_BACKGROUND } else { "" };
        let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
        match meaning {
            ExitMeaning::BeforeReady | ExitMeaning::Late => {
                failure.stderr = child.last_words().await;
                failure.reason = if meaning == ExitMeaning::Late {
                    let within = self.timings.ready_timeout;
                    format!("the successor was not ready within {within:?} and was told to leave: {status}")
                } else {
                    format!("the successor left before it was ready: {status}{advice}")
                };
                self.observers.failed(failure);
                error!(
                    successor,
                    status,
                    "handover failed: the successor left before it was ready{advice}; this generation goes on serving"
                );
            }
            ExitMeaning::AfterReady => {
                failure.reason = format!("the successor took over and crashed: {status}");
                self.observers.crashed(failure);
                error!(successor, status, "the successor crashed");
            }
            ExitMeaning::Expected => info!(successor, status, "the successor has left"),
        }
    }

    pub(super) fn on_hang_up(&self) {
        let told = self.generation.supervisor.unwrap_or_else(std::process::id);
        warn!("the terminal is gone; this server goes on without it: `kill {told}` stops it");
    }

    /// Forgets the dead supervisor. A container runtime, say, may start a new supervisor, which would find the port taken
    /// while this generation serves; the caller therefore stops this generation.
    pub(super) fn on_supervisor_gone(&mut self) {
        let supervisor = self.supervisor.take().map_or(0, |supervisor| supervisor.pid());
        self.generation.supervisor = None;
        warn!(
            supervisor,
            "the supervisor is gone: this generation stops, so that a new supervisor can be started"
        );
    }

    /// Stops sending stderr through the predecessor, which will leave.
    pub(super) fn restore_stderr(&self) {
        if let Err(error) = stderr::restore(self.generation.predecessor.as_ref().map(|p| p.parent.pid())) {
            warn!(%error, "cannot restore stderr");
        }
    }

    pub(super) async fn leave(&mut self, end: GenerationEnd) -> Outcome {
        if end == GenerationEnd::Stopped {
            if let Some(child) = &mut self.child {
                child.kill().await;
            }
            self.pid_file.give_up();
        }
        let drained = self.drain.cut().await;
        info!(
            finished = drained.finished,
            cut = drained.cut,
            requests_cut = drained.requests_cut,
            took = ?drained.took,
            "{}",
            match end {
                GenerationEnd::Retired => "retired",
                GenerationEnd::Stopped => "stopped",
            }
        );
        self.service_manager.finish().await;
        let outcome = Outcome { end, drained, connections: self.drain.connections() };
        self.observers.tell(Happened::Left(outcome));
        outcome
    }

    pub(super) fn warn_unless(&mut self, steered: io::Result<()>) {
        if let Err(error) = steered
            && !std::mem::replace(&mut self.steering_warning_logged, true)
        {
            warn!(
                %error,
                "new connections cannot be steered: during a handover both generations receive them, also a successor \
                 that is not ready yet, and handshakes under way when the old listener closes are lost"
            );
        }
    }
}
