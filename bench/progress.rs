//! A progress line, shown on a terminal only.

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

    /// A progress line with the name of the current part.
    pub(crate) fn named(what: impl Into<String>, all: u32) -> Progress {
        let mut what = what.into();
        if !what.is_empty() {
            what += ": ";
        }
        Progress { what, all: all.into(), is_shown: std::io::stderr().is_terminal() }
    }

    /// Shows the number of the current restart. `failed`: the failed requests so far.
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
