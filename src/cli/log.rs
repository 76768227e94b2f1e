//! The log of the server: its destination, its level and its format, text or JSON. RUST_LOG, if set, overrides --log-level, -v
//! and -q.
//!
//! All generations write to the same stream, so each line names its generation and pid.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use tracing::Metadata;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::log_file;
use super::log_writer::{Flush, LogWriter};

#[derive(Debug, Args)]
pub struct LogOptions {
    /// The format of log lines
    #[arg(long, value_name = "FORM", default_value = "text")]
    log_format: Format,
    /// Append log lines to this file instead of stderr. To rotate, rename it and send USR1 (`handover reopen`), or restart
    #[arg(long, value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,
    /// Log events of this level and of more severe ones
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: Level,
    /// Log one level more; may be repeated
    #[arg(long, short, action = ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Log one level less; may be repeated
    #[arg(long, short, action = ArgAction::Count)]
    quiet: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Returns whether log lines reach a terminal. Until a successor is ready its stderr is a pipe, and its stdin is the real stderr.
fn is_terminal() -> bool {
    io::stderr().is_terminal() || (handover::generation() > 1 && io::stdin().is_terminal())
}

/// How many lines may wait for a slow reader.
const QUEUE: usize = 1024;

impl LogOptions {
    /// Installs the log. Dropping the `Flush` writes the lines that are left. If the log file cannot be opened, lines go to stderr
    /// and the result says why.
    pub fn install(&self) -> (LogWriter, Flush, Result<(), String>) {
        let (out, opened): (Box<dyn Write + Send>, _) = match self.log_file.as_deref() {
            None => (Box::new(io::stderr()), Ok(())),
            Some(path) => match log_file::append(path, true) {
                Ok(file) => (Box::new(file), Ok(())),
                Err(error) => (Box::new(io::stderr()), Err(cannot_open("log file", path, &error))),
            },
        };
        let colours = self.log_file.is_none() && is_terminal();
        let (lines, flush) = LogWriter::begin("log", QUEUE, Duration::ZERO, out, |dropped| {
            tracing::warn!(
                dropped,
                "lines of the log were dropped: they could not be written, or not soon enough"
            );
        });
        let events =
            Events { lines: lines.clone(), format: self.log_format, generation: handover::generation() };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(self.level()));
        let lines_of = tracing_subscriber::fmt::layer().with_target(false).with_writer(events);
        // Spans are left out: the library's span only has fields that are added to every line below, and events of the program
        // have no span.
        let events_only = filter_fn(|metadata: &Metadata<'_>| metadata.is_event());
        let log = tracing_subscriber::registry().with(filter);
        match self.log_format {
            Format::Text => log.with(lines_of.with_ansi(colours).with_filter(events_only)).init(),
            Format::Json => log.with(lines_of.json().flatten_event(true).with_filter(events_only)).init(),
        }
        (lines, flush, opened)
    }

    fn level(&self) -> &'static str {
        let levels = ["error", "warn", "info", "debug", "trace"];
        let wanted = (self.log_level as usize + usize::from(self.verbose)).min(levels.len() - 1);
        levels[wanted.saturating_sub(usize::from(self.quiet))]
    }
}

pub(crate) fn cannot_open(what: &str, path: &std::path::Path, error: &io::Error) -> String {
    format!("cannot open the {what} {}: {error}; name a file that this user may write to", path.display())
}

/// Turns each event into a line.
struct Events {
    lines: LogWriter,
    format: Format,
    generation: u64,
}

impl<'a> MakeWriter<'a> for Events {
    type Writer = Event<'a>;

    fn make_writer(&'a self) -> Event<'a> {
        Event { lines: &self.lines, missing: String::new() }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Event<'a> {
        let mut missing = String::new();
        for (name, value) in [("generation", self.generation), ("pid", std::process::id().into())] {
            if metadata.fields().field(name).is_none() {
                missing.push_str(&match self.format {
                    Format::Text => format!(" {name}={value}"),
                    Format::Json => format!(",\"{name}\":{value}"),
                });
            }
        }
        if self.format == Format::Json {
            missing.push('}');
        }
        Event { lines: &self.lines, missing }
    }
}

/// One event on its way to becoming a line.
struct Event<'a> {
    lines: &'a LogWriter,
    /// The generation and pid to append, as far as the event has no such fields itself.
    missing: String,
}

impl Write for Event<'_> {
    /// Called once for each event. Never fails, because tracing-subscriber would print the error to stderr, and panic if that
    /// fails too.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let mut line = one_line(event);
        if self.missing.ends_with('}') {
            line.pop();
        }
        line.extend(self.missing.as_bytes());
        line.push(b'\n');
        self.lines.put(line);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns an event or another text as one line without a line break at its end. tracing-subscriber escapes most control
/// characters in values, but not line breaks, which a path or a process name may contain.
pub(crate) fn one_line(event: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(event.len() + 64);
    for &byte in event.strip_suffix(b"\n").unwrap_or(event) {
        match byte {
            // An ESC belongs to the colours, which are only written to a terminal.
            0..b' ' if byte != 0x1b => line.extend(byte.escape_ascii()),
            _ => line.push(byte),
        }
    }
    line
}
