//! The command line of the binary: what may be said, and what comes of it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgAction, Parser};

mod access;
mod check;
mod config;
mod extras;
mod lines;
mod listing;
mod log;
mod options;
mod site;

use config::Config;
use extras::Extras;
use options::ServerOptions;
use site::Site;

/// Serve a directory over HTTP, and be replaced by a new version without losing a request: `kill -HUP PID`
///
/// SIGHUP and SIGUSR2 start a successor with the same command line and hand over to it; SIGTERM and SIGINT stop when
/// the connections are finished, a second one at once. The exit status is 0 when retired or stopped, 1 on an error,
/// 2 on wrong usage.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110, args_override_self = true)]
struct Cli {
    /// The directory to serve; without it, a page that says who answers
    root: Option<PathBuf>,
    /// Take from this TOML file what no flag says; each generation reads it anew
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Say whether a server would start with these flags and this config, and do not start it
    #[arg(long)]
    check: bool,
    /// Answer GET /healthz (200 while alive) and GET /readyz (503 once told to stop) ahead of ROOT
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", hide_possible_values = true)]
    probes: bool,
    #[command(flatten)]
    extras: extras::ExtraOptions,
    #[command(flatten)]
    access: access::AccessOptions,
    #[command(flatten)]
    server: ServerOptions,
    #[command(flatten)]
    log: log::LogOptions,
}

pub(crate) fn run() -> ExitCode {
    // Prints usage errors itself, and exits with status 2.
    let (mut cli, config, read) = config::parse::<Cli>();
    // What a check has to say is for whoever asked, and not for the log of a server.
    let log_file = if cli.check { cli.log.log_file.take() } else { None };
    let (_flush, opened) = cli.log.install();
    let in_file = cli.log.log_file.is_some() && opened.is_ok();
    let done = read.and_then(|()| opened.map_err(|problem| config.blame("log-file", problem)));
    let done = done.map_err(Into::into).and_then(|()| match cli.check {
        true => check::check(&cli, log_file.as_deref(), &config),
        false => serve(cli, config),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = error.to_string();
            tracing::error!("{error}");
            if in_file {
                // Whoever started it should not have to look for the reason.
                let _ = io::stderr().write_all(&[log::one_line(error.as_bytes()), b"\n".to_vec()].concat());
            }
            ExitCode::FAILURE
        }
    }
}

fn serve(cli: Cli, config: Config) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(root) = &cli.root {
        check_root(root).map_err(|problem| config.blame("root", problem))?;
    }
    let server = cli.server.server();
    let handle = server.handle();
    let access = cli.access.open(&handle).map_err(|problem| config.blame("access-log-file", problem))?;
    let (access, _flush) = access.unzip();
    let site = Site::new(cli.root.clone(), cli.probes, handle);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = match Extras::of(&site, cli.root, &cli.extras, config.tables, access) {
        Some(extras) => runtime.block_on(server.serve(extras)),
        None => runtime.block_on(server.serve(site)),
    };
    // A thread that hangs in a file system must not keep a generation that has retired.
    runtime.shutdown_background();
    served?;
    Ok(())
}

fn check_root(root: &Path) -> Result<(), String> {
    std::fs::read_dir(root).map(drop).map_err(|error| {
        format!("cannot serve {}: {error}; name a directory this user may read", root.display())
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
