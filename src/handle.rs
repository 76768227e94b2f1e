//! The way in and out for the program around a server: ask for a restart or a stop, watch the phase.

use std::net::SocketAddr;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::spawn_blocking;

use crate::listeners::port_group;
use crate::report::{Event, Failure, Handover, Phase, Status};

/// How many events a reader may lag behind before it misses some.
const BACKLOG: usize = 256;

/// What the program around a server may ask for.
#[derive(Debug)]
pub(crate) enum Command {
    Restart,
    Stop,
    HandOver(oneshot::Sender<Result<Underway, Failure>>),
    Status(oneshot::Sender<Status>),
}

/// What is known without asking.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) phase: Phase,
    pub(crate) stopping: bool,
    pub(crate) generation: u64,
    pub(crate) addresses: Vec<SocketAddr>,
}

/// A handover that was asked for by [`Handle::hand_over`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Underway {
    /// It was under way before: its successor may have been started before whatever this one was asked for.
    pub joined: bool,
    /// What happens from now on.
    pub events: Events,
}

/// Restarts, stops and observes one generation from within its program; see [`Server::handle`](crate::Server::handle).
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    seen: watch::Receiver<Seen>,
    events: broadcast::WeakSender<Event>,
}

/// The engine's ends of a handle.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) seen: watch::Sender<Seen>,
    pub(crate) events: broadcast::Sender<Event>,
}

impl Handle {
    pub(crate) fn new() -> (Handle, Remote) {
        let (sender, commands) = mpsc::unbounded_channel();
        let seen = watch::Sender::new(Seen {
            phase: Phase::Starting,
            stopping: false,
            generation: 0,
            addresses: vec![],
        });
        let events = broadcast::Sender::new(BACKLOG);
        let handle = Handle { commands: sender, seen: seen.subscribe(), events: events.downgrade() };
        (handle, Remote { commands, seen, events })
    }

    /// Asks for a successor, as SIGHUP does. Under way already, it is queued; several become one.
    pub fn restart(&self) {
        // It is not heard before the server listens and after it has left; both are visible as a phase.
        let _ = self.commands.send(Command::Restart);
    }

    /// Asks for a successor, or joins the handover that is under way, and says what happens: see [`Events::outcome`].
    /// While a predecessor is still in standby the successor is started when that is over.
    ///
    /// # Errors
    ///
    /// When this generation is none that can hand over: it is still starting, has handed over already, or stops.
    pub async fn hand_over(&self) -> Result<Underway, Failure> {
        let (answer, told) = oneshot::channel();
        let _ = self.commands.send(Command::HandOver(answer));
        told.await.unwrap_or_else(|_| Err(Failure::new("the generation has left")))
    }

    /// Asks this generation to finish its connections and leave, as SIGTERM does; asked twice, to leave at once.
    pub fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
    }

    /// What the generation is doing now.
    pub fn phase(&self) -> Phase {
        self.seen.borrow().phase
    }

    /// Whether the service was told to stop. A generation that merely retires is not stopping: its successor serves.
    pub fn is_stopping(&self) -> bool {
        self.seen.borrow().stopping
    }

    /// The number of this generation, from 1; 0 until it listens.
    pub fn generation(&self) -> u64 {
        self.seen.borrow().generation
    }

    /// Where it listens, with the real port where 0 was asked for; empty until it does.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.seen.borrow().addresses.clone()
    }

    /// Waits for the next change of phase, or of the addresses, and returns the phase; `None` once the generation has
    /// left. Changes that follow each other quickly may be seen as one. Cancel safe.
    pub async fn changed(&mut self) -> Option<Phase> {
        self.seen.changed().await.ok()?;
        Some(self.seen.borrow_and_update().phase)
    }

    /// Everything that happens to this generation from now on.
    pub fn events(&self) -> Events {
        let ended = || broadcast::Sender::new(1).subscribe();
        Events(self.events.upgrade().map_or_else(ended, |events| events.subscribe()))
    }

    /// This generation and its connections at this moment; `None` before it listens and once it has left.
    pub async fn status(&self) -> Option<Status> {
        let (answer, told) = oneshot::channel();
        self.commands.send(Command::Status(answer)).ok()?;
        let mut status = told.await.ok()?;
        // On a thread of its own: /proc is large where there are many connections, and the server goes on meanwhile.
        let addresses = status.addresses.clone();
        status.listeners =
            spawn_blocking(move || port_group::listeners(&addresses)).await.unwrap_or_default();
        Some(status)
    }
}

/// The events of a generation from the moment it was asked for; from [`Handle::events`](crate::Handle::events).
#[derive(Debug)]
pub struct Events(pub(crate) broadcast::Receiver<Event>);

impl Events {
    /// The next event, or `None` when the generation has left. A reader that is more than 256 events behind misses the oldest.
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// Waits for the outcome of the handover that is under way or was asked for.
    ///
    /// # Errors
    ///
    /// When it failed, or this generation was told to stop before it succeeded.
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
