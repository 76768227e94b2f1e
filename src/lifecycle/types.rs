//! The vocabulary of the state machine: its events and actions.

use std::fmt;

use crate::report::GenerationEnd;

/// The origin of a request to stop. A predecessor passes on its operator's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopSource {
    Operator,
    Predecessor,
}

/// How a child exited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The child exited with status 0: it was told to stop.
    Told,
    /// The child was killed by a restart signal that it had no handler for yet.
    Restarted,
    /// The child exited with another status or by another signal.
    Crashed,
}

/// What the exit of a child means for the handover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitMeaning {
    /// The handover failed.
    BeforeReady,
    /// The handover failed, and the child had been told to leave because it was not ready in time.
    Late,
    /// The child took over, and crashed while this generation was in standby.
    AfterReady,
    /// The child was told to leave, or its exit comes too late for this generation to serve again.
    Expected,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// This generation has started: it accepts, and new connections are steered to it.
    Ready {
        predecessor_listens: bool,
    },
    RestartAsked,
    /// The child serves and new connections are steered to it.
    ChildReady,
    SpawnFailed,
    ChildExited(Exit),
    /// The predecessor closed its listener, or is dead.
    PredecessorClosed,
    /// `shared` means that another process listens on one of our addresses.
    StopAsked {
        by: StopSource,
        shared: bool,
    },
    /// The last listener is closed, after its accept queue was emptied.
    PortClosed,
    /// The last connection is gone, after the listeners were closed.
    Drained,
    Deadline,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Event::Ready { .. } => "ready",
            Event::RestartAsked => "restart asked",
            Event::ChildReady => "successor ready",
            Event::SpawnFailed => "successor not started",
            Event::ChildExited(Exit::Told) => "successor left",
            Event::ChildExited(Exit::Restarted | Exit::Crashed) => "successor crashed",
            Event::PredecessorClosed => "predecessor closed its listener",
            Event::StopAsked { by: StopSource::Operator, .. } => "stop asked",
            Event::StopAsked { by: StopSource::Predecessor, .. } => "stop asked by predecessor",
            Event::PortClosed => "listener closed",
            Event::Drained => "drained",
            Event::Deadline => "deadline",
        })
    }
}

/// A command to the child; the `signals` module maps it to a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChildCommand {
    Restart,
    Stop,
    /// This generation's listener is closed.
    Closed,
}

/// How connections are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DrainMode {
    /// No drain: connections are kept alive.
    Normal,
    /// Lame duck with the idle grace of a handover, which can be long because the successor serves.
    Handover,
    /// Lame duck with the idle grace of a stop.
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Spawn,
    TellChild(ChildCommand),
    KillChild,
    /// Steer all new connections to this generation, also when a successor listens.
    Hold,
    /// Steer new connections back to the predecessor, which still listens.
    HandBack,
    SetDrainMode(DrainMode),
    /// Make the child's pid the main pid of the service.
    MoveMainPid,
    /// Make this process's pid the main pid of the service.
    TakeMainPid,
    /// Accept until the accept queue is empty, then close.
    CloseListeners,
    /// Not ready in time: leave with an error.
    GiveUp,
    /// Cut the remaining connections and leave.
    Leave(GenerationEnd),
    /// Log one line about an event, as a rule one that is queued, refused or ignored.
    Note(&'static str),
    /// Log the exit of the child, and report the failure if the handover failed.
    ReportChildExit(ExitMeaning),
    /// Notify the observers, after all other actions.
    Notify(Notification),
}

/// A notification to the observers: the program (by its events) and the service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notification {
    /// New connections come to this generation.
    Serves,
    /// The predecessor no longer listens.
    ServesAlone,
    /// A restart was begun, queued or passed on.
    Reloading,
    HandedOver,
    HandoverFailed,
    /// The successor crashed in standby.
    ServesAgain,
    StandbyEnded,
    Stopping,
}
