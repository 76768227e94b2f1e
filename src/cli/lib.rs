//! The command line of the `handover` binary: its flags, its subcommands and the server behind them. This is a library only
//! because the playground shares the flags; its API is not stable.

#![doc(hidden)]

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Subcommand};
use handover::Signals;

mod access;
mod admin;
mod check;
mod command;
mod config;
mod encoders;
mod file_state;
mod files;
mod flags;
mod listing;
pub mod log;
mod log_file;
pub mod log_writer;
mod middleware;
mod open_files;
pub mod options;
mod release;
mod reopen;
mod runtime;
mod serve;
mod static_files;
pub mod tls;

use flags::Cli;
use reopen::{LogFiles, ReopenSignal};

/// Returns whether the arguments ask for a server. A subcommand or a query such as `--help` keeps the default signal handlers, so
/// Ctrl-C ends it as usual.
pub fn is_server() -> bool {
    const QUESTIONS: [&str; 5] = ["--check", "--help", "-h", "--version", "-V"];
    let mut args = std::env::args_os().skip(1).peekable();
    let is_command = args.peek().and_then(|first| first.to_str()).is_some_and(|first| {
        // Flags are sorted out first: building the list of subcommands costs more than the rest of this function.
        !first.starts_with('-') && command::Command::has_subcommand(first)
    });
    !is_command && args.all(|arg| QUESTIONS.iter().all(|question| arg != *question))
}

/// Runs the command line. `signals` are the handlers that `main` has installed already.
pub fn run(mut signals: Option<Signals>) -> ExitCode {
    let asked = ReopenSignal::listen();
    // Prints usage errors itself, and exits with status 2.
    let (mut cli, config, read) = config::parse::<Cli>();
    if let Some(command) = cli.command {
        return command.run(Cli::command);
    }
    let in_front =
        !cli.check && !handover::is_supervised() && cli.supervise.unwrap_or_else(handover::needs_supervisor);
    if !in_front
        && !cli.check
        && let Err(problem) = runtime::check()
    {
        // Written directly to stderr: the log would need a thread too.
        let _ = io::stderr().write_all(format!("ERROR {problem}\n").as_bytes());
        return ExitCode::FAILURE;
    }
    // A check reports to its caller and must not write to the log of a server. A supervisor would keep the log file open
    // after a rotation.
    let log_file = if cli.check || in_front { cli.log.log_file.take() } else { None };
    let (lines, _flush, opened) = cli.log.install();
    let mut asked = asked
        .inspect_err(|error| {
            tracing::warn!(%error, "cannot handle SIGUSR1, which would end this process instead of reopening its logs");
        })
        .ok();
    if in_front {
        asked.take().into_iter().for_each(|asked| asked.pass_on(cli.control.clone()));
        match signals.as_mut().map_or_else(handover::supervise, handover::supervise_with) {
            Ok(Some(status)) => return status,
            Ok(None) => {}
            Err(error) => {
                tracing::error!("{error}");
                return ExitCode::FAILURE;
            }
        }
    }
    let in_file = cli.log.log_file.is_some() && opened.is_ok();
    let done = read.and_then(|()| opened.map_err(|problem| config.blame("log-file", problem)));
    let done = done.map_err(Into::into).and_then(|()| {
        if cli.check {
            check::check(&cli, log_file.as_deref(), &config)
        } else {
            let files = LogFiles::default();
            cli.log.log_file.iter().for_each(|path| files.add(path.clone(), lines.clone()));
            serve::serve(cli, config, files, asked, signals)
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = error.to_string();
            tracing::error!("{error}");
            if in_file {
                // The log went to a file; the caller sees the reason on stderr too.
                let _ = io::stderr().write_all(&[log::one_line(error.as_bytes()), b"\n".to_vec()].concat());
            }
            ExitCode::FAILURE
        }
    }
}
