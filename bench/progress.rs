//! What is running and how far, for whoever waits at a terminal.

use std::io::{IsTerminal, Write};

pub(crate) struct Progress {
    all: u64,
    is_shown: bool,
}

impl Progress {
    pub(crate) fn of(all: u32) -> Progress {
        Progress { all: all.into(), is_shown: std::io::stderr().is_terminal() }
    }

    /// `failed`: requests, so far.
    pub(crate) fn show(&self, now: u64, failed: u64) {
        if self.is_shown {
            let _ =
                write!(std::io::stderr(), "\r  restart {now} of {}, {failed} failed so far\x1b[K", self.all);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
