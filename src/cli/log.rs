//! Where log lines go and which ones: stderr, as text or JSON. RUST_LOG, if set, overrides -v and -q.

use std::io::{self, IsTerminal};

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
    pub(crate) fn install(&self) {
        let level = match (self.verbose, self.quiet) {
            (_, 2..) => "error",
            (_, 1) => "warn",
            (0, _) => "info",
            (1, _) => "debug",
            (2.., _) => "trace",
        };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
        let lines =
            tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(io::stderr);
        match self.log_format {
            Format::Text => lines.with_ansi(io::stderr().is_terminal()).init(),
            Format::Json => lines.json().flatten_event(true).init(),
        }
    }
}
