//! The command line of the binary: what may be said, and what comes of it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

mod lines;
mod log;
mod options;
mod site;

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
    /// Answer GET /healthz (200 while alive) and GET /readyz (503 once told to stop) ahead of ROOT
    #[arg(long)]
    probes: bool,
    #[command(flatten)]
    server: ServerOptions,
    #[command(flatten)]
    log: log::LogOptions,
}

pub(crate) fn run() -> ExitCode {
    // Prints usage errors itself, and exits with status 2.
    let cli = Cli::parse();
    let (_flush, opened) = cli.log.install();
    let in_file = cli.log.log_file.is_some() && opened.is_ok();
    match opened.map_err(Into::into).and_then(|()| serve(cli)) {
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

fn serve(cli: Cli) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(root) = &cli.root {
        check_root(root)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let server = cli.server.server();
        let site = Site::new(cli.root, cli.probes, server.handle());
        server.serve(site).await
    });
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
