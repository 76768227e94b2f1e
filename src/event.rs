//! What happens to a generation, as values for the program around it. The log says the same for people.

use std::fmt;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::sync::broadcast;

use crate::outcome::Outcome;

/// How many events a reader may lag behind before it misses some.
pub(crate) const BACKLOG: usize = 256;

/// What happened to a generation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// New connections come to this generation.
    Serving {
        /// The pid it took over from.
        predecessor: Option<u32>,
    },
    /// It stays as it is, and why: a restart that has to wait, for instance.
    Noted(&'static str),
    /// A successor was started; it has the ready timeout to become ready.
    SuccessorStarted {
        /// Its pid.
        pid: u32,
    },
    /// The successor serves, and this generation stands by.
    HandedOver(Handover),
    /// The handover failed, and this generation serves as before.
    HandoverFailed(Failure),
    /// The successor left in standby, and this generation serves again.
    ServesAgain(Failure),
    /// Standby is over: from now on only the successor can serve.
    StandbyEnded,
    /// The service was told to stop.
    Stopping,
    /// The connections are finished or cut; nothing comes after this.
    Left(Outcome),
}

/// A handover that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Handover {
    /// The pid of the generation that serves now.
    pub successor: u32,
    /// From its start until it served.
    pub took: Duration,
}

/// Why a handover failed. It prints as one line.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Failure {
    /// What went wrong.
    pub reason: String,
    /// The pid of the successor, if it could be started.
    pub successor: Option<u32>,
    /// How it ended.
    pub status: Option<ExitStatus>,
    /// The last lines it wrote to stderr before it was ready, at most 20.
    pub stderr: Vec<String>,
}

impl Failure {
    pub(crate) fn new(reason: impl Into<String>) -> Failure {
        Failure { reason: reason.into(), successor: None, status: None, stderr: vec![] }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Failure {}

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
