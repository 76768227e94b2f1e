//! Where log lines go and which ones: stderr, as text or JSON. RUST_LOG, if set, overrides -v and -q.
//!
//! A thread of its own writes them. When nobody reads, it waits, lines beyond a bound are dropped, and the server goes on.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use tracing_subscriber::EnvFilter;

#[derive(Debug, Args)]
pub(crate) struct LogOptions {
    /// The form of log lines, which go to stderr
    #[arg(long, value_name = "FORM", default_value = "text")]
    log_format: Format,
    /// Say more; twice for everything
    #[arg(long, short, action = ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Say less: warnings and errors; twice for errors only
    #[arg(long, short, action = ArgAction::Count)]
    quiet: u8,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl LogOptions {
    /// Lines are written until what this returns is dropped.
    pub(crate) fn install(&self) -> Flush {
        let level = match (self.verbose, self.quiet) {
            (_, 2..) => "error",
            (_, 1) => "warn",
            (0, _) => "info",
            (1, _) => "debug",
            (2.., _) => "trace",
        };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
        let (line, queue) = sync_channel(QUEUE);
        let queued = line.clone();
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_target(false)
            .with_writer(move || Queued(queued.clone()));
        match self.log_format {
            Format::Text => lines.with_ansi(is_terminal()).init(),
            Format::Json => lines.json().flatten_event(true).init(),
        }
        // If there is no thread for it there is no log, and the server serves all the same.
        let _ = std::thread::Builder::new().name("log".into()).spawn(move || write_out(&queue));
        Flush(line)
    }
}

/// Until a successor is ready its stderr is a pipe, and the true one lies behind its stdin.
fn is_terminal() -> bool {
    let starting = handover::ENVIRONMENT.iter().all(|name| std::env::var_os(name).is_some());
    io::stderr().is_terminal() || (starting && io::stdin().is_terminal())
}

/// Lines that may wait for a slow reader.
const QUEUE: usize = 1024;
/// How long the end waits for the lines that are left.
const LAST_WORDS: Duration = Duration::from_secs(1);

enum Entry {
    Line(Vec<u8>),
    Flush(Sender<()>),
}

struct Queued(SyncSender<Entry>);

impl Write for Queued {
    /// Called once for each event. It never fails, because tracing-subscriber would print that to stderr and panic when
    /// it cannot.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let _ = self.0.try_send(Entry::Line(one_line(event)));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An event as one line. tracing-subscriber escapes what a terminal obeys in the values of an event, but not a line break,
/// and a path or the name of a process may contain one.
fn one_line(event: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(event.len() + 1);
    for &byte in event.strip_suffix(b"\n").unwrap_or(event) {
        match byte {
            // ESC comes from the colours, which only a terminal gets.
            0..b' ' if byte != 0x1b => line.extend(byte.escape_ascii()),
            _ => line.push(byte),
        }
    }
    line.push(b'\n');
    line
}

fn write_out(queue: &Receiver<Entry>) {
    for entry in queue {
        match entry {
            Entry::Line(line) => drop(io::stderr().write_all(&line)),
            Entry::Flush(done) => drop(done.send(())),
        }
    }
}

/// Writes the lines that are left when it is dropped, if somebody reads them.
#[must_use]
pub(crate) struct Flush(SyncSender<Entry>);

impl Drop for Flush {
    fn drop(&mut self) {
        let (done, written) = channel();
        if self.0.try_send(Entry::Flush(done)).is_ok() {
            let _ = written.recv_timeout(LAST_WORDS);
        }
    }
}
