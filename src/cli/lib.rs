//! The command line of the binary `handover`: what may be said, and what comes of it. It is a library only because the playground
//! has the same flags, and promises nothing to others.

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
pub mod tls;

use flags::Cli;
use reopen::{LogFiles, ReopenSignal};

/// Whether this process is to serve, from a glance at its arguments. What only asks or commands is ended by Ctrl-C as usual.
pub fn is_server() -> bool {
    const QUESTIONS: [&str; 5] = ["--check", "--help", "-h", "--version", "-V"];
    let mut args = std::env::args_os().skip(1).peekable();
    let is_command = args.peek().and_then(|first| first.to_str()).is_some_and(|first| {
        // To ask for the list takes longer than all the rest.
        !first.starts_with('-') && command::Command::has_subcommand(first)
    });
    !is_command && args.all(|arg| QUESTIONS.iter().all(|question| arg != *question))
}

/// `signals` are those that were caught already.
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
        // The log needs a thread too.
        let _ = io::stderr().write_all(format!("ERROR {problem}\n").as_bytes());
        return ExitCode::FAILURE;
    }
    // What a check has to say is for the caller, and not for the log of a server. The supervisor would keep the
    // file open after it was rotated.
    let log_file = if cli.check || in_front { cli.log.log_file.take() } else { None };
    let (lines, _flush, opened) = cli.log.install();
    let mut asked = asked
        .inspect_err(|error| tracing::warn!(%error, "cannot hear SIGUSR1, which ends this process"))
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
    let done = done.map_err(Into::into).and_then(|()| match cli.check {
        true => check::check(&cli, log_file.as_deref(), &config),
        false => {
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
                // Its starter should not have to look for the reason.
                let _ = io::stderr().write_all(&[log::one_line(error.as_bytes()), b"\n".to_vec()].concat());
            }
            ExitCode::FAILURE
        }
    }
}
