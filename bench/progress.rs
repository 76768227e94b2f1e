//! What is running and how far, for whoever waits at a terminal.

use std::io::{IsTerminal, Write};

pub(crate) struct Progress {
    what: String,
    all: u64,
    is_shown: bool,
}

impl Progress {
    pub(crate) fn of(all: u32) -> Progress {
        Progress::named(String::new(), all)
    }

    /// For one of several things that take as long.
    pub(crate) fn named(what: impl Into<String>, all: u32) -> Progress {
        let mut what = what.into();
        if !what.is_empty() {
            what += ": ";
        }
        Progress { what, all: all.into(), is_shown: std::io::stderr().is_terminal() }
    }

    /// `failed`: requests, so far.
    pub(crate) fn show(&self, now: u64, failed: u64) {
        if self.is_shown {
            let Progress { what, all, .. } = self;
            let _ =
                write!(std::io::stderr(), "\r  {what}restart {now} of {all}, {failed} failed so far\x1b[K");
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
