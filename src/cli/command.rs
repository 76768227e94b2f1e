//! The subcommands: each asks a server that runs, over its control socket, says what comes of it, and is a client only. It
//! reads the server's answers and changes nothing by itself, but for the file that `upgrade` puts beside the program. Two
//! print what packages need and ask no server.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::options::Named;

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
        which: Which,
        /// Wait until the old generation has left
        #[arg(long)]
        wait_drained: bool,
    },
    /// Show every generation that is alive
    Status {
        #[command(flatten)]
        which: Which,
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Stop, and wait until every generation has left
    Stop {
        #[command(flatten)]
        which: Which,
        /// At once: connections are cut
        #[arg(long)]
        now: bool,
    },
    /// Open the log files anew, after they were renamed: every generation does, and none is restarted
    Reopen {
        #[command(flatten)]
        which: Which,
    },
    /// Replace the program by another file and hand over to it; if that fails, everything is as before
    Upgrade {
        #[command(flatten)]
        which: Which,
        /// The new program; the one before is kept as PROGRAM.old
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

/// Which server is meant. Without either, the only one of this user that runs.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The server that was started with this --control
    #[arg(long, value_name = "DIR", conflicts_with = "listen")]
    control: Option<PathBuf>,
    /// The server that listens on this address
    #[arg(long, short, value_name = "IP:PORT", value_parser = Named::parse)]
    listen: Option<Named>,
}

/// After so long a subcommand says what it waits for.
const SILENCE: Duration = Duration::from_secs(1);

/// Why a subcommand did not do what it was asked for.
#[derive(Debug)]
enum Trouble {
    /// Exit status 3.
    NotRunning(String),
    /// Exit status 1.
    Failed(String),
}

fn failed(reason: impl Into<String>) -> Trouble {
    Trouble::Failed(reason.into())
}

impl Command {
    /// `program` describes the whole command line.
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
            Err(Trouble::NotRunning(text)) => (text, ExitCode::from(3)),
            Err(Trouble::Failed(text)) => (text, ExitCode::FAILURE),
        };
        // At once, because a server may write its lines to the same file. The reader may be gone, and that is no reason to
        // panic.
        let _ = io::stderr().write_all(harmless(&format!("error: {text}\n")).as_bytes());
        code
    }
}

fn say(text: impl Display) {
    let _ = writeln!(io::stdout(), "{}", harmless(&text.to_string()));
}

/// Nothing that a terminal obeys: root may ask the server of another user.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}
