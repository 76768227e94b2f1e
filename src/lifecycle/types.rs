//! The vocabulary of the state machine: what can happen, and what can be done about it.

use std::fmt;

use crate::report::End;

/// Who asked for a stop. The predecessor passes on what its operator asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopSource {
    Operator,
    Predecessor,
}

/// How a child left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// With status 0: it was told to stop.
    Told,
    /// By a signal that asks for a restart, which it had no handler for yet.
    Restarted,
    /// With another status or by another signal.
    Crashed,
}

/// What the end of a child means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitMeaning {
    /// The handover failed.
    BeforeReady,
    /// The same, and the child had been told to leave because it was not ready in time.
    Late,
    /// It crashed in standby.
    AfterReady,
    /// It was told to leave, or leaves a generation that cannot help any more.
    Expected,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// This generation's own start is complete: it accepts, and new connections are steered to it.
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
    /// `shared`: another process listens on one of our addresses.
    StopAsked {
        by: StopSource,
        shared: bool,
    },
    /// The last listener is closed, and its queue was empty.
    PortClosed,
    /// After that the last connection is gone.
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

/// What the child is told; the `signals` module knows by which signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChildCommand {
    Restart,
    Stop,
    /// This generation's listener is closed.
    Closed,
}

/// How connections are treated from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DrainMode {
    /// Keep-alive as the client likes.
    Normal,
    /// Lame duck, with the patience of a handover: the successor serves, no one waits for us.
    Handover,
    /// Lame duck, with the patience of a stop.
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Spawn,
    TellChild(ChildCommand),
    KillChild,
    /// Steer new connections to us, whatever else listens.
    Hold,
    /// Steer new connections to the predecessor, which still listens.
    HandBack,
    SetDrainMode(DrainMode),
    /// The pid that stands for the service becomes the child's.
    MoveMainPid,
    /// The pid that stands for the service becomes ours.
    TakeMainPid,
    /// Accept until the queue is empty, then close.
    CloseListeners,
    /// Not ready in time: leave with an error.
    GiveUp,
    /// Abort what is left and leave.
    Leave(End),
    /// One line for the log about an event that changed nothing.
    Note(&'static str),
    /// The child has exited: one line for the log, and for what failed a reason.
    ReportChildExit(ExitMeaning),
    /// Comes last, because what is told is true by then.
    Notify(Notification),
}

/// What those who watch are told: the program by its events, and the service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notification {
    /// New connections come to this generation.
    Serves,
    /// The predecessor does not listen any more.
    ServesAlone,
    /// A restart was begun or passed on.
    Reloading,
    HandedOver,
    HandoverFailed,
    /// The successor crashed in standby.
    ServesAgain,
    StandbyEnded,
    Stopping,
}
