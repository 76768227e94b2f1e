//! The one loop of a generation: whatever happens becomes an event, the state machine answers with actions, and these
//! are performed here. It decides nothing that `succession` could decide.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::debug;

use super::Config;
use crate::drain::{Drain, PAUSED};
use crate::error::{Error, Kind};
use crate::generation::{Generation, Predecessor};
use crate::handle::{Command, Remote};
use crate::identity::Identity;
use crate::notify::Notify;
use crate::outcome::Outcome;
use crate::port::{Port, Sink};
use crate::process::{Child, Launch};
use crate::signals::{self, Heard, Signal, Signals, Stops};
use crate::succession::{Action, Asker, End, Event, State, Timings};

mod act;
mod manage;
mod tell;
use tell::Outside;

pub(super) struct Engine {
    state: State,
    timings: Timings,
    idle_grace: Duration,
    stop_idle_grace: Duration,
    generation: Generation,
    launch: Launch,
    identity: Identity,
    notify: Notify,
    port: Port,
    /// The last listener is closed, its queue was empty.
    port_closed: bool,
    drain: Drain,
    child: Option<Child>,
    /// That connections cannot be steered was said.
    warned: bool,
    signals: Signals,
    stops: Stops,
    commands: mpsc::UnboundedReceiver<Command>,
    outside: Outside,
}

/// What the loop waits for.
enum Input {
    Signal(Signal),
    Command(Command),
    ChildExited(io::Result<ExitStatus>),
    PredecessorDead,
    Checked(Result<(), Error>),
    PortClosed,
    Drained,
    Deadline,
}

impl Engine {
    /// Finds out who this generation is, and listens.
    pub(super) fn start(config: Config, remote: Remote, drain: Drain, sink: &Sink) -> Result<Engine, Error> {
        let generation = Generation::from_env();
        let launch = config.launch?;
        let signals = Signals::install().map_err(Kind::Signals)?;
        let identity = Identity::prepare(config.pid_file.as_deref(), generation.supervisor)?;
        let addresses = distinct(&config.addresses.map_err(Kind::NoAddress)?);
        let mut port = Port::open(&addresses, generation.predecessor.as_ref(), config.backlog)?;
        let steered = port.hold_own();
        port.accept(sink, &drain);
        let notify = Notify::from_env(generation.predecessor.is_none());
        let mut engine = Engine {
            state: State::Starting { give_up: std_now() + config.timings.ready_timeout, queued: false },
            timings: config.timings,
            idle_grace: config.idle_grace,
            stop_idle_grace: config.stop_idle_grace,
            generation,
            launch,
            identity,
            notify,
            port,
            port_closed: false,
            drain,
            child: None,
            warned: false,
            signals,
            stops: Stops::default(),
            commands: remote.commands,
            outside: Outside::new(remote.seen, remote.events),
        };
        if engine.generation.predecessor.is_none() {
            engine.restore_stderr();
        }
        engine.publish();
        engine.warn_unless(steered);
        let (generation, pid) = (engine.generation.number, std::process::id());
        debug!(generation, pid, listen = engine.listen(), "listening, not ready yet");
        Ok(engine)
    }

    /// Runs until this generation has left. `ready` is the application's word that it can serve.
    pub(super) async fn run(
        mut self,
        ready: impl Future<Output = Result<(), Error>>,
    ) -> Result<Outcome, Error> {
        let mut ready = pin!(ready);
        let mut not_before = Instant::now();
        loop {
            let deadline = self.state.deadline().map(|deadline| Instant::from_std(deadline).max(not_before));
            let closing = !self.port.is_open() && !self.port_closed;
            let starting = matches!(self.state, State::Starting { .. });
            // Whoever stops takes a successor that was starting along.
            let draining = self.port_closed && (self.child.is_none() || self.has_retired());
            let input = {
                let Engine { signals, commands, child, generation, port, drain, notify, .. } = &mut self;
                tokio::select! {
                    biased;
                    signal = signals.next() => Input::Signal(signal),
                    Some(command) = commands.recv() => Input::Command(command),
                    exit = exited(child) => Input::ChildExited(exit),
                    () = dead(generation.predecessor.as_ref()) => Input::PredecessorDead,
                    checked = &mut ready, if starting => Input::Checked(checked),
                    () = port.closed(), if closing => Input::PortClosed,
                    () = drain.empty(), if draining => Input::Drained,
                    () = at(deadline) => Input::Deadline,
                    () = notify.keep_telling() => continue,
                }
            };
            // A signal that was delivered before something else happened counts before it: a child that says "ready"
            // and dies was ready, and one that is ready at the last moment is not late.
            let mut heard_first = false;
            while let Some(signal) = self.signals.delivered() {
                heard_first = true;
                if let Some(outcome) = self.hear(signal).await? {
                    return Ok(outcome);
                }
            }
            let event = match input {
                Input::Deadline if heard_first => continue,
                // What happened while this process did not run is looked at first: a request that has arrived, a successor
                // that is ready.
                Input::Deadline if deadline.is_some_and(|deadline| deadline.elapsed() > PAUSED) => {
                    not_before = Instant::now() + PAUSED;
                    continue;
                }
                Input::Signal(signal) => self.interpret(signal),
                Input::Command(command) => self.obey(command),
                Input::ChildExited(status) => Some(self.bury(status).await),
                Input::PredecessorDead => {
                    self.generation.predecessor = None;
                    self.restore_stderr();
                    Some(Event::PredecessorClosed)
                }
                // Told to stop in the same instant: whoever stops takes nothing over.
                Input::Checked(_) if !matches!(self.state, State::Starting { .. }) => None,
                Input::Checked(result) => {
                    result?;
                    Some(Event::Ready { predecessor_listens: self.take_over()? })
                }
                Input::PortClosed => {
                    self.port_closed = true;
                    if let (true, Some(child)) = (self.has_retired(), &self.child) {
                        child.signal(signals::CLOSED);
                    }
                    None
                }
                Input::Drained => Some(Event::Drained),
                Input::Deadline => Some(Event::Deadline),
            };
            if let Some(event) = event
                && let Some(outcome) = self.feed(event).await?
            {
                return Ok(outcome);
            }
        }
    }

    async fn hear(&mut self, signal: Signal) -> Result<Option<Outcome>, Error> {
        match self.interpret(signal) {
            Some(event) => self.feed(event).await,
            None => Ok(None),
        }
    }

    /// Who the sender is decides what a signal means.
    fn interpret(&mut self, signal: Signal) -> Option<Event> {
        let is_child = self.child.as_ref().is_some_and(|c| c.pid() == signal.sender);
        let is_predecessor =
            self.generation.predecessor.as_ref().is_some_and(|p| p.parent.pid() == signal.sender);
        match signal.heard {
            Heard::Restart => Some(Event::RestartAsked),
            Heard::Closed => is_predecessor.then_some(Event::PredecessorClosed),
            Heard::Term if is_child => Some(Event::ChildReady),
            Heard::Term if is_predecessor => Some(self.stop_asked(Asker::Predecessor)),
            Heard::Term if self.notify.is_repetition(signal.sender) => None,
            Heard::Term => {
                let passed_on = self.generation.supervisor == Some(signal.sender);
                self.stops.is_new(passed_on).then(|| self.stop_asked(Asker::Operator))
            }
        }
    }

    fn obey(&mut self, command: Command) -> Option<Event> {
        match command {
            Command::Restart => Some(Event::RestartAsked),
            Command::Stop => Some(self.stop_asked(Asker::Operator)),
            Command::Status(answer) => {
                let _ = answer.send(self.status());
                None
            }
            Command::HandOver(answer) => {
                let (answered, event) = self.hand_over();
                let _ = answer.send(answered);
                event
            }
        }
    }

    fn stop_asked(&self, by: Asker) -> Event {
        Event::StopAsked { by, shared: self.port.is_shared() }
    }

    /// Everything an event leads to, until there is nothing left to do.
    async fn feed(&mut self, event: Event) -> Result<Option<Outcome>, Error> {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let before = self.state;
            let (state, actions) = before.on(event, std_now(), &self.timings);
            self.state = state;
            for action in actions {
                match action {
                    Action::Leave(end) => {
                        self.tell_manager(before, event);
                        self.report(before, event);
                        return Ok(Some(self.leave(end).await));
                    }
                    Action::GiveUp => return Err(Kind::ReadyTimeout(self.timings.ready_timeout).into()),
                    Action::Spawn => next = self.spawn(),
                    action => self.perform(action),
                }
            }
            self.publish();
            self.tell_manager(before, event);
            // Last, so that what the line says is true when it is read.
            self.report(before, event);
        }
        Ok(None)
    }

    fn has_retired(&self) -> bool {
        matches!(self.state, State::Draining { end: End::Retired, .. })
    }
}

fn std_now() -> std::time::Instant {
    Instant::now().into_std()
}

/// An address that is named twice is one address; port 0 is another port each time.
fn distinct(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first = |(i, a): (usize, &SocketAddr)| (a.port() == 0 || !addresses[..i].contains(a)).then_some(*a);
    addresses.iter().enumerate().filter_map(first).collect()
}

async fn exited(child: &mut Option<Child>) -> io::Result<ExitStatus> {
    match child {
        Some(child) => child.exited().await,
        None => std::future::pending().await,
    }
}

async fn dead(predecessor: Option<&Predecessor>) {
    match predecessor {
        Some(predecessor) => predecessor.parent.dead().await,
        None => std::future::pending().await,
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

impl Drop for Engine {
    /// Also when the future of the server is dropped before its end.
    fn drop(&mut self) {
        self.drain.cut_now();
    }
}
