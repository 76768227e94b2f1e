//! The command line of the binary: what may be said, and what comes of it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

mod admin;
mod command;
mod control;
mod log;
mod metrics;
mod options;
mod site;

use admin::{AdminOptions, Front};
use control::place::ControlOptions;
use control::{Api, socket::Control};
use metrics::Metrics;
use options::ServerOptions;
use site::Site;

/// Serve a directory over HTTP, and be replaced by a new version without losing a request: `kill -HUP PID`
///
/// SIGHUP and SIGUSR2 start a successor with the same command line and hand over to it; SIGTERM and SIGINT stop when
/// the connections are finished, a second one at once. The exit status is 0 when retired or stopped, 1 on an error,
/// 2 on wrong usage.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110, args_override_self = true)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
struct Cli {
    /// The directory to serve; without it, a page that says who answers
    root: Option<PathBuf>,
    /// Answer GET /healthz (200 while alive) and GET /readyz (503 once told to stop) ahead of ROOT
    #[arg(long)]
    probes: bool,
    #[command(flatten)]
    server: ServerOptions,
    #[command(flatten)]
    control: ControlOptions,
    #[command(flatten)]
    admin: AdminOptions,
    #[command(flatten)]
    log: log::LogOptions,
    #[command(subcommand)]
    command: Option<command::Command>,
}

pub(crate) fn run() -> ExitCode {
    // Prints usage errors itself, and exits with status 2.
    let cli = Cli::parse();
    if let Some(command) = cli.command {
        return command.run();
    }
    let _flush = cli.log.install();
    match serve(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(cli: Cli) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(root) = &cli.root {
        check_root(root)?;
    }
    let admin = cli.admin.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let server = cli.server.server();
        let server = admin.iter().fold(server, |server, admin| admin.bind(server));
        let handle = server.handle();
        let metrics = Metrics::new(&handle);
        let api = Api::new(handle.clone(), metrics.clone());
        let control = Control::new(cli.control, handle.clone(), api.clone());
        let site = Site::new(cli.root, cli.probes, handle.clone());
        let front = Front::new(site, metrics.clone(), admin, &api, handle);
        let served = server.ready_when(control.clone().open()).serve(front).await;
        if let Ok(outcome) = &served {
            metrics.leave(outcome).await;
        }
        control.close().await;
        served
    });
    // A thread that hangs in a file system must not keep a generation that has retired.
    runtime.shutdown_background();
    served.map_err(reason)?;
    Ok(())
}

/// The only check is that for the control socket, which says itself what is wrong.
fn reason(error: handover::Error) -> Box<dyn std::error::Error> {
    match std::error::Error::source(&error).map(ToString::to_string) {
        Some(problem) if error.is_not_ready() => problem.into(),
        _ => error.into(),
    }
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
