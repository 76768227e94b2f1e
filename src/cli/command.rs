//! The subcommands. Each sends requests to the control sockets of a running server and prints the answers. They are clients
//! only: they change nothing themselves, except that `upgrade` puts a file beside the program. `completions` and `man` print
//! files for packages and need no server.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::options::HostPort;

pub(crate) mod client;
mod discover;
mod manual;
mod reload;
mod reopen;
mod status;
mod stop;
mod table;
mod upgrade;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Restart, and wait until the new generation serves or has failed
    Reload {
        #[command(flatten)]
        which: ServerSelector,
        /// Wait until the old generation has left
        #[arg(long)]
        wait_drained: bool,
    },
    /// Show every generation that is alive
    Status {
        #[command(flatten)]
        which: ServerSelector,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Stop, and wait until every generation has left
    Stop {
        #[command(flatten)]
        which: ServerSelector,
        /// Stop at once and cut all connections
        #[arg(long)]
        now: bool,
    },
    /// Reopen the log files in every generation, after a rotation has renamed them; nothing is restarted
    Reopen {
        #[command(flatten)]
        which: ServerSelector,
    },
    /// Replace the program by another file and hand over to it; if that fails, restore the old file
    Upgrade {
        #[command(flatten)]
        which: ServerSelector,
        /// The new program; the old one is kept as PROGRAM.old
        new_binary: PathBuf,
    },
    /// Print completions for a shell: `source <(handover completions bash)`
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page: `handover man | man -l -`
    Man,
}

/// Selects a server. Without either flag it is the only running server of this user.
#[derive(Debug, Args)]
pub(crate) struct ServerSelector {
    /// Select the server that was started with this --control
    #[arg(long, value_name = "DIR", conflicts_with = "listen")]
    control: Option<PathBuf>,
    /// Select the server that listens on this address
    #[arg(long, short, value_name = "IP:PORT", value_parser = HostPort::parse)]
    listen: Option<HostPort>,
}

/// A subcommand that waits longer than this prints the reason.
const SILENCE: Duration = Duration::from_secs(1);

/// The reason why a subcommand failed.
#[derive(Debug)]
enum CommandError {
    /// Exit status 3.
    NotRunning(String),
    /// Exit status 1.
    Failed(String),
}

fn failed(reason: impl Into<String>) -> CommandError {
    CommandError::Failed(reason.into())
}

impl Command {
    /// Runs the subcommand and returns its exit status. `program` describes the whole command line.
    pub(crate) fn run(self, program: fn() -> clap::Command) -> ExitCode {
        let done = match self {
            Command::Reload { which, wait_drained } => reload::run(&which, wait_drained),
            Command::Status { which, json } => status::run(&which, json),
            Command::Stop { which, now } => stop::run(&which, now),
            Command::Reopen { which } => reopen::run(&which),
            Command::Upgrade { which, new_binary } => upgrade::run(&which, &new_binary),
            Command::Completions { shell } => manual::completions(shell, program()),
            Command::Man => manual::man(&program()),
        };
        let (text, code) = match done {
            Ok(()) => return ExitCode::SUCCESS,
            Err(CommandError::NotRunning(text)) => (text, ExitCode::from(3)),
            Err(CommandError::Failed(text)) => (text, ExitCode::FAILURE),
        };
        // In a single write, because a server may write its lines to the same file. `eprintln!` would panic if the reader of
        // stderr is gone.
        let _ = io::stderr().write_all(harmless(&format!("error: {text}\n")).as_bytes());
        code
    }
}

fn say(text: impl Display) {
    let _ = writeln!(io::stdout(), "{}", harmless(&text.to_string()));
}

/// Replaces control characters, which a terminal would obey: root may ask the server of another user.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}
