//! The event loop of a generation. Each input becomes an event, the state machine answers with actions, and the loop
//! performs them. Every decision that `lifecycle` can make is made there.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{Instrument, debug};

use super::Config;
use crate::drain::{Drain, PAUSED};
use crate::error::{Error, Kind};
use crate::generation::Generation;
use crate::handle::{Command, EngineSide};
use crate::lifecycle::{Action, Event, State, StopSource, Timings};
use crate::listeners::{Listeners, Serve};
use crate::pid_file::PidFile;
use crate::process::pidfd::PidFd;
use crate::process::{Child, Launch};
use crate::report::Outcome;
use crate::service_manager::ServiceManager;
use crate::signals::{Signal, Signals, StopRequests};

mod actions;
mod inputs;
mod observe;
mod take_over;
mod wait;
use actions::ExitedChild;
use observe::Observers;
use wait::{ReadyReminder, at, dead, due, exited, gone};

pub(super) struct Engine {
    state: State,
    timings: Timings,
    idle_grace: Duration,
    stop_idle_grace: Duration,
    generation: Generation,
    /// The supervisor's process; `None` without a supervisor or once it is gone.
    supervisor: Option<PidFd>,
    launch: Launch,
    pid_file: PidFile,
    service_manager: ServiceManager,
    listeners: Listeners,
    /// Whether the last listener is closed, after its accept queue was emptied.
    listeners_closed: bool,
    drain: Drain,
    child: Option<Child>,
    /// A child that has exited, until its exit has been reported.
    exited: Option<ExitedChild>,
    /// Whether the steering warning has already been logged.
    steering_warning_logged: bool,
    signals: Signals,
    stops: StopRequests,
    /// When to send the ready signal to the predecessor again.
    ready_reminder: Option<ReadyReminder>,
    /// The number of consecutive successors killed by a restart signal before they had a handler for it.
    ended_by_restart: u32,
    commands: mpsc::UnboundedReceiver<Command>,
    observers: Observers,
}

/// An input of the event loop.
enum Input {
    Signal(Signal),
    Command(Command),
    ChildExited(io::Result<ExitStatus>),
    PredecessorDead,
    SupervisorGone,
    Checked(Result<(), Error>),
    PortClosed,
    Drained,
    Deadline,
    RepeatReady(ReadyReminder),
}

impl Engine {
    /// Identifies this generation and its predecessor, and listens.
    pub(super) fn start(
        config: Config,
        remote: EngineSide,
        drain: Drain,
        serve: &Serve,
    ) -> Result<Engine, Error> {
        // First, so that no signal that arrives from here on is lost.
        let mut signals = config.signals.map_or_else(Signals::install, Ok)?;
        signals.enter()?;
        let generation = Generation::from_env().map_err(Kind::Pidfd)?;
        let span = generation.span();
        let _entered = span.enter();
        let launch = config.launch?;
        let pid_file = PidFile::prepare(config.pid_file.as_deref(), generation.supervisor)?;
        let asked = config.addresses.map_err(Kind::NoAddress)?;
        let addresses = distinct(&asked);
        // An address that is named both as public and as reserved is public.
        let is_public = |address: &SocketAddr| asked.iter().filter(|one| *one == address).count() > 1;
        let reserved: Vec<_> =
            config.reserved.into_iter().filter(|one| one.port() == 0 || !is_public(one)).collect();
        let mut listeners = Listeners::open(&addresses, generation.predecessor.as_ref(), config.backlog)?;
        let steered = listeners.hold_own();
        listeners.accept(serve, &drain, &reserved);
        let service_manager = ServiceManager::from_env(generation.predecessor.is_none());
        let mut engine = Engine {
            state: State::Starting { give_up: std_now() + config.timings.ready_timeout, queued: false },
            timings: config.timings,
            idle_grace: config.idle_grace,
            stop_idle_grace: config.stop_idle_grace,
            supervisor: generation.supervisor.and_then(|pid| PidFd::named(pid).ok()),
            generation,
            launch,
            pid_file,
            service_manager,
            listeners,
            listeners_closed: false,
            drain,
            child: None,
            exited: None,
            steering_warning_logged: false,
            signals,
            stops: StopRequests::default(),
            ready_reminder: None,
            ended_by_restart: 0,
            commands: remote.commands,
            observers: Observers::new(remote.seen, remote.events),
        };
        if engine.generation.predecessor.is_none() {
            engine.restore_stderr();
        }
        engine.publish();
        engine.warn_unless(steered);
        debug!(listen = engine.listen(), "listening, not ready yet");
        Ok(engine)
    }

    /// Runs until this generation has left. `ready` resolves when the application can serve.
    pub(super) fn run(
        self,
        ready: impl Future<Output = Result<(), Error>>,
    ) -> impl Future<Output = Result<Outcome, Error>> {
        let span = self.generation.span();
        self.until_left(ready).instrument(span)
    }

    async fn until_left(mut self, ready: impl Future<Output = Result<(), Error>>) -> Result<Outcome, Error> {
        let mut ready = pin!(ready);
        let mut not_before = Instant::now();
        loop {
            let deadline = self.state.deadline().map(|deadline| Instant::from_std(deadline).max(not_before));
            let closing = !self.listeners.is_open() && !self.listeners_closed;
            let starting = self.state.is_starting();
            let draining = self.listeners_closed && (self.child.is_none() || !self.state.waits_for_child());
            let again = self.ready_reminder.filter(|_| self.state.waits_for_predecessor());
            let input = {
                let Engine {
                    signals,
                    commands,
                    child,
                    generation,
                    supervisor,
                    listeners,
                    drain,
                    service_manager,
                    ..
                } = &mut self;
                tokio::select! {
                    biased;
                    signal = signals.next() => Input::Signal(signal),
                    Some(command) = commands.recv() => Input::Command(command),
                    exit = exited(child) => Input::ChildExited(exit),
                    () = dead(generation.predecessor.as_ref()) => Input::PredecessorDead,
                    () = gone(supervisor.as_ref()) => Input::SupervisorGone,
                    checked = &mut ready, if starting => Input::Checked(checked),
                    () = listeners.closed(), if closing => Input::PortClosed,
                    () = drain.empty(), if draining => Input::Drained,
                    () = at(deadline) => Input::Deadline,
                    again = due(again) => Input::RepeatReady(again),
                    () = service_manager.keep_telling() => continue,
                }
            };
            // A signal that was delivered before something else happened counts before it: a child that says "ready"
            // and dies was ready, and one that is ready at the last moment is not late.
            let mut signal_first = false;
            while let Some(signal) = self.signals.delivered() {
                signal_first = true;
                if let Some(outcome) = self.apply_signal(signal).await? {
                    return Ok(outcome);
                }
            }
            let event = match input {
                Input::Deadline if signal_first => continue,
                // This process was paused past its deadline. Inputs from the meantime go first, such as a request that has
                // arrived or a successor that is ready.
                Input::Deadline if deadline.is_some_and(|deadline| deadline.elapsed() > PAUSED) => {
                    not_before = Instant::now() + PAUSED;
                    continue;
                }
                Input::Signal(signal) => self.on_signal(signal),
                Input::Command(command) => self.on_command(command),
                Input::ChildExited(status) => Some(self.on_child_exit(status)),
                Input::PredecessorDead => {
                    self.generation.predecessor = None;
                    self.restore_stderr();
                    Some(Event::PredecessorClosed)
                }
                Input::SupervisorGone => {
                    self.on_supervisor_gone();
                    Some(self.stop_asked(StopSource::Operator))
                }
                // Told to stop in the same instant: a generation that stops must not take over.
                Input::Checked(_) if !self.state.is_starting() => None,
                Input::Checked(result) => {
                    result?;
                    Some(Event::Ready { predecessor_listens: self.take_over().await? })
                }
                Input::PortClosed => {
                    self.listeners_closed = true;
                    Some(Event::PortClosed)
                }
                Input::Drained => Some(Event::Drained),
                Input::Deadline => Some(Event::Deadline),
                Input::RepeatReady(said) => {
                    self.repeat_ready(said);
                    None
                }
            };
            if let Some(event) = event
                && let Some(outcome) = self.apply(event).await?
            {
                return Ok(outcome);
            }
        }
    }

    async fn apply_signal(&mut self, signal: Signal) -> Result<Option<Outcome>, Error> {
        match self.on_signal(signal) {
            Some(event) => self.apply(event).await,
            None => Ok(None),
        }
    }

    /// Applies an event, and any event that follows from its actions, until there is none left.
    async fn apply(&mut self, event: Event) -> Result<Option<Outcome>, Error> {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let before = self.state;
            let (state, actions) = before.on(event, std_now(), &self.timings);
            self.state = state;
            let (mut notifications, mut leaves) = (vec![], None);
            for action in actions {
                match action {
                    Action::Leave(end) => leaves = Some(end),
                    Action::GiveUp => return Err(Kind::ReadyTimeout(self.timings.ready_timeout).into()),
                    Action::Spawn => next = self.spawn(),
                    Action::ReportChildExit(meaning) => self.report_child_exit(meaning).await,
                    Action::Notify(notification) => notifications.push(notification),
                    action => self.perform(action),
                }
            }
            self.publish();
            // After the actions, because an observer may act on a notification at once.
            notifications.iter().for_each(|notification| self.notify_service_manager(*notification));
            notifications.iter().for_each(|notification| self.notify_observers(*notification));
            self.log_state(before, event);
            if let Some(end) = leaves {
                return Ok(Some(self.leave(end).await));
            }
        }
        Ok(None)
    }
}

fn std_now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Removes repeated addresses, except those with port 0: each of them gets a different port.
fn distinct(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first = |(i, a): (usize, &SocketAddr)| (a.port() == 0 || !addresses[..i].contains(a)).then_some(*a);
    addresses.iter().enumerate().filter_map(first).collect()
}

impl Drop for Engine {
    /// Cuts all connections, also when the server's future is dropped early.
    fn drop(&mut self) {
        self.drain.cut_now();
    }
}
