//! The way in and out for the program around a server: ask for a restart or a stop, watch the phase.

use std::net::SocketAddr;

use tokio::sync::{mpsc, watch};

/// What a generation is doing, as seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// It listens but is not ready; a predecessor, if there is one, serves.
    Starting,
    /// It serves.
    Serving,
    /// It serves, and a successor is starting.
    Spawning,
    /// A successor serves; this generation can still take over again.
    Standby,
    /// It finishes its connections and leaves.
    Draining,
}

/// What the program around a server may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Restart,
    Stop,
}

#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) phase: Phase,
    pub(crate) stopping: bool,
    pub(crate) generation: u64,
    pub(crate) addresses: Vec<SocketAddr>,
}

/// Restarts, stops and observes one generation from within its program; see [`Server::handle`](crate::Server::handle).
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    status: watch::Receiver<Status>,
}

/// The engine's ends of a handle.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) status: watch::Sender<Status>,
}

impl Handle {
    pub(crate) fn new() -> (Handle, Remote) {
        let (sender, commands) = mpsc::unbounded_channel();
        let status = watch::Sender::new(Status {
            phase: Phase::Starting,
            stopping: false,
            generation: 0,
            addresses: vec![],
        });
        (Handle { commands: sender, status: status.subscribe() }, Remote { commands, status })
    }

    /// Asks for a successor, as SIGHUP does. Under way already, it is queued; several become one.
    pub fn restart(&self) {
        // Nobody is there to hear it before the server listens and after it has left; both are visible as a phase.
        let _ = self.commands.send(Command::Restart);
    }

    /// Asks this generation to finish its connections and leave, as SIGTERM does; asked twice, to leave at once.
    pub fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
    }

    /// What the generation is doing now.
    pub fn phase(&self) -> Phase {
        self.status.borrow().phase
    }

    /// Whether the service was told to stop. A generation that merely retires is not stopping: its successor serves.
    pub fn is_stopping(&self) -> bool {
        self.status.borrow().stopping
    }

    /// The number of this generation, from 1; 0 until it listens.
    pub fn generation(&self) -> u64 {
        self.status.borrow().generation
    }

    /// Where it listens, with the real port where 0 was asked for; empty until it does.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.status.borrow().addresses.clone()
    }

    /// Waits for the next change of phase, or of the addresses, and returns the phase; `None` once the generation has
    /// left. Changes that follow each other quickly may be seen as one. Cancel safe.
    pub async fn changed(&mut self) -> Option<Phase> {
        self.status.changed().await.ok()?;
        Some(self.status.borrow_and_update().phase)
    }
}
