//! The generations behind the supervisor, as far as it knows them.

use crate::process::pidfd::{Ended, PidFd};

#[derive(Debug)]
pub(super) struct Generation {
    pub(super) process: PidFd,
    /// It has said something, so it hears.
    pub(super) spoke: bool,
    pub(super) stopping: bool,
    pub(super) told_to_stop: bool,
    /// What it has started, to follow it.
    pub(super) successor: Option<PidFd>,
    /// Known once it has been reaped here.
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
    /// `None` while it is not known: another generation may reap it.
    pub(super) ended: Option<Ended>,
}

pub(super) fn how(ended: Option<Ended>) -> String {
    match ended {
        Some(Ended::Exited(status)) => format!("left with status {status}"),
        Some(Ended::Killed(signal)) => format!("killed by signal {signal}"),
        None => "gone".to_owned(),
    }
}
