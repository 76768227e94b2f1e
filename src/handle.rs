//! The program's handle to its server: asks for a restart or a stop, and observes the generation.

use std::net::SocketAddr;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::spawn_blocking;

use crate::listeners::port_group;
use crate::report::{Event, Failure, Handover, Phase, Status};

/// The number of events that a reader may lag behind before it misses some.
const BACKLOG: usize = 256;

/// A request from the program to the engine.
#[derive(Debug)]
pub(crate) enum Command {
    Restart,
    Stop,
    HandOver(oneshot::Sender<Result<Underway, Failure>>),
    Status(oneshot::Sender<Status>),
}

/// The facts about a generation that a handle can read without asking the engine.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) phase: Phase,
    pub(crate) stopping: bool,
    pub(crate) generation: u64,
    pub(crate) addresses: Vec<SocketAddr>,
}

/// A handover that was asked for by [`Handle::hand_over`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Underway {
    /// Whether the handover was already under way. If so, its successor may have been started before the change that prompted
    /// this request, such as a new configuration.
    pub joined: bool,
    /// The events of this generation from now on.
    pub events: Events,
}

/// Restarts, stops and observes one generation from within its program; see [`Server::handle`](crate::Server::handle).
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    seen: watch::Receiver<Published>,
    events: broadcast::WeakSender<Event>,
}

/// The engine's ends of a handle.
#[derive(Debug)]
pub(crate) struct EngineSide {
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) seen: watch::Sender<Published>,
    pub(crate) events: broadcast::Sender<Event>,
}

impl Handle {
    pub(crate) fn new() -> (Handle, EngineSide) {
        let (sender, commands) = mpsc::unbounded_channel();
        let seen = watch::Sender::new(Published {
            phase: Phase::Starting,
            stopping: false,
            generation: 0,
            addresses: vec![],
        });
        let events = broadcast::Sender::new(BACKLOG);
        let handle = Handle { commands: sender, seen: seen.subscribe(), events: events.downgrade() };
        (handle, EngineSide { commands, seen, events })
    }

    /// Asks for a successor, as SIGHUP does. If a handover is already under way, one further restart is queued, however many
    /// are asked for.
    pub fn restart(&self) {
        // Fails only after the server has left. A restart asked for before the server listens waits in the channel.
        let _ = self.commands.send(Command::Restart);
    }

    /// Asks for a successor, or joins the handover that is under way. Await the result with [`Events::outcome`]. While a
    /// predecessor is still in standby, the successor is started only when that standby is over.
    ///
    /// # Errors
    ///
    /// When this generation cannot hand over, because it is still starting, has already handed over, is stopping or has left.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn run() -> () {
    /// # let handle = handover::Server::bind("0.0.0.0:8080").handle();
    /// match handle.hand_over().await {
    ///     Ok(mut under_way) => match under_way.events.outcome().await {
    ///         Ok(handover) => println!("pid {} serves after {:?}", handover.successor, handover.took),
    ///         Err(failure) => println!("{}: {:?}", failure.reason, failure.stderr),
    ///     },
    ///     Err(refused) => println!("{}", refused.reason),
    /// }
    /// # }
    /// ```
    pub async fn hand_over(&self) -> Result<Underway, Failure> {
        let (answer, told) = oneshot::channel();
        let _ = self.commands.send(Command::HandOver(answer));
        told.await.unwrap_or_else(|_| Err(Failure::new("the generation has left")))
    }

    /// Asks this generation to finish its connections and leave, as SIGTERM does. A second call makes it leave at once.
    pub fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
    }

    /// Returns the current phase of the generation.
    pub fn phase(&self) -> Phase {
        self.seen.borrow().phase
    }

    /// Returns whether the service was told to stop. A generation that retires is not stopping: its successor serves.
    pub fn is_stopping(&self) -> bool {
        self.seen.borrow().stopping
    }

    /// Returns the number of this generation, counted from 1, or 0 until it listens.
    pub fn generation(&self) -> u64 {
        self.seen.borrow().generation
    }

    /// Returns the addresses of this generation, with the real port where port 0 was requested. Empty until it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.seen.borrow().addresses.clone()
    }

    /// Waits for the next change of the phase, of the addresses or of [`is_stopping`](Handle::is_stopping), and returns the
    /// phase, or `None` once the generation has left. Several changes in quick succession may be reported as one. Cancel safe.
    pub async fn changed(&mut self) -> Option<Phase> {
        self.seen.changed().await.ok()?;
        Some(self.seen.borrow_and_update().phase)
    }

    /// Returns the events of this generation from now on.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn run() -> () {
    /// # let handle = handover::Server::bind("0.0.0.0:8080").handle();
    /// let mut events = handle.events();
    /// while let Some(event) = events.next().await {
    ///     if let handover::Event::HandoverFailed(failure) = event {
    ///         eprintln!("the old generation goes on serving: {}", failure.reason);
    ///     }
    /// }
    /// # }
    /// ```
    pub fn events(&self) -> Events {
        let ended = || broadcast::Sender::new(1).subscribe();
        Events(self.events.upgrade().map_or_else(ended, |events| events.subscribe()))
    }

    /// Returns the current status of this generation and its connections, or `None` once it has left. Before the generation
    /// listens, this waits until it does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn run() -> () {
    /// # let handle = handover::Server::bind("0.0.0.0:8080").handle();
    /// if let Some(status) = handle.status().await {
    ///     println!("generation {}: {} connections open", status.generation, status.connections.open);
    /// }
    /// # }
    /// ```
    pub async fn status(&self) -> Option<Status> {
        let (answer, told) = oneshot::channel();
        self.commands.send(Command::Status(answer)).ok()?;
        let mut status = told.await.ok()?;
        // On a blocking thread, because /proc is large when there are many connections.
        let addresses = status.addresses.clone();
        status.listeners =
            spawn_blocking(move || port_group::listeners(&addresses)).await.unwrap_or_default();
        Some(status)
    }
}

/// A stream of the events of a generation, from [`Handle::events`](crate::Handle::events) or
/// [`Handle::hand_over`](crate::Handle::hand_over). It starts when it is created.
#[derive(Debug)]
pub struct Events(pub(crate) broadcast::Receiver<Event>);

impl Events {
    /// Waits for the next event, and returns `None` once the generation has left. A reader that is more than 256 events behind
    /// misses the oldest, and learns of it by [`Event::Missed`]. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Event::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// Waits for the outcome of the handover that is under way or was asked for.
    ///
    /// # Errors
    ///
    /// When the handover failed, or this generation was told to stop or has left before the handover succeeded.
    pub async fn outcome(&mut self) -> Result<Handover, Failure> {
        loop {
            match self.next().await {
                Some(Event::HandedOver(handover)) => return Ok(handover),
                Some(Event::HandoverFailed(failure)) => return Err(failure),
                Some(Event::Stopping) => return Err(Failure::new("the server was told to stop")),
                Some(Event::Left(_)) | None => return Err(Failure::new("the generation has left")),
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_learns_how_many_events_it_has_missed() {
        let (handle, engine) = Handle::new();
        let mut events = handle.events();
        for _ in 0..BACKLOG + 3 {
            engine.events.send(Event::StandbyEnded).expect("a reader");
        }
        assert!(matches!(events.next().await, Some(Event::Missed(3))));
        assert!(matches!(events.next().await, Some(Event::StandbyEnded)));
        drop(engine);
        let mut rest = 1;
        while events.next().await.is_some() {
            rest += 1;
        }
        assert_eq!(rest, BACKLOG);
    }
}
