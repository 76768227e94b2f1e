//! What the supervisor knows about each generation.

use crate::process::pidfd::{Ended, PidFd};

#[derive(Debug)]
pub(super) struct Generation {
    pub(super) process: PidFd,
    /// Whether it has sent a message, which shows that its signal handlers are installed.
    pub(super) spoke: bool,
    pub(super) stopping: bool,
    pub(super) told_to_stop: bool,
    /// The successor that it has started.
    pub(super) successor: Option<PidFd>,
    /// How it ended; known once the supervisor has reaped it.
    pub(super) ended: Option<Ended>,
}

impl Generation {
    pub(super) fn new(process: PidFd) -> Generation {
        Generation {
            process,
            spoke: false,
            stopping: false,
            told_to_stop: false,
            successor: None,
            ended: None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) process: PidFd,
    pub(super) told_to_stop: bool,
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) pid: u32,
    pub(super) stopping: bool,
    /// How it ended; `None` if that is unknown, because another generation may have reaped it.
    pub(super) ended: Option<Ended>,
}

pub(super) fn how(ended: Option<Ended>) -> String {
    match ended {
        Some(Ended::Exited(status)) => format!("left with status {status}"),
        Some(Ended::Killed(signal)) => format!("killed by signal {signal}"),
        None => "gone".to_owned(),
    }
}
