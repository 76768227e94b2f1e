//! The command line of the binary `handover`: what may be said, and what comes of it. It is a library only because the playground
//! has the same flags, and promises nothing to others.

#![doc(hidden)]

use std::convert::Infallible;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgAction, Parser, Subcommand};
use handover::control::{Api, socket::Control};
use handover::metrics::Metrics;
use handover::{Server, Signals};
use hyper::body::{Body, Bytes, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};

mod access;
mod admin;
mod check;
mod command;
mod config;
mod encoders;
mod extras;
mod files;
pub mod lines;
mod listing;
pub mod log;
mod open_files;
pub mod options;
mod release;
mod reopen;
mod runtime;
mod site;
pub mod tls;

use admin::{Admin, AdminOptions, Front};
use config::Config;
use extras::Extras;
use options::{ControlOptions, ServerOptions};
use reopen::{Asked, LogFiles};
use site::Site;

/// Serve a directory over HTTP, and be replaced by a new version without losing a request: `kill -HUP PID`
///
/// SIGHUP and SIGUSR2 start a successor with the same command line and hand over to it; SIGTERM and SIGINT stop when
/// the connections are finished, a second one at once. The exit status is 0 when retired or stopped, 1 on an error,
/// 2 on wrong usage.
#[derive(Debug, Parser)]
#[command(name = "handover", version, max_term_width = 110, args_override_self = true)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
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
    /// Keep one process in front whose pid stays the same; by default as pid 1, and under systemd without Type=notify
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", hide_possible_values = true)]
    supervise: Option<bool>,
    #[command(flatten)]
    extras: extras::ExtraOptions,
    #[command(flatten)]
    access: access::AccessOptions,
    #[command(flatten)]
    server: ServerOptions,
    #[command(flatten)]
    tls: tls::TlsOptions,
    #[command(flatten)]
    control: ControlOptions,
    #[command(flatten)]
    admin: AdminOptions,
    #[command(flatten)]
    log: log::LogOptions,
    #[command(subcommand)]
    command: Option<command::Command>,
}

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
    let asked = Asked::listen();
    // Prints usage errors itself, and exits with status 2.
    let (mut cli, config, read) = config::parse::<Cli>();
    if let Some(command) = cli.command {
        return command.run();
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
    // What a check has to say is for whoever asked, and not for the log of a server. The process in front would keep the
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
            serve(cli, config, files, asked, signals)
        }
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

fn serve(
    cli: Cli,
    config: Config,
    files: LogFiles,
    asked: Option<Asked>,
    signals: Option<Signals>,
) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(root) = &cli.root {
        check_root(root).map_err(|problem| config.blame("root", problem))?;
        release::warn_of_another(root);
    }
    let (server, admin, _) = configured(&cli, &config)?;
    let server = signals.into_iter().fold(server, Server::signals);
    let handle = server.handle();
    let access =
        cli.access.open(&handle, &files).map_err(|problem| config.blame("access-log-file", problem))?;
    let (access, _flush) = access.unzip();
    let site = Site::new(cli.root.clone(), cli.probes, handle);
    let runtime = runtime::build()?;
    let operation = Operation { control: cli.control, admin, files, asked };
    let served = match Extras::of(&site, cli.root, &cli.extras, config.tables, access) {
        Some(extras) => runtime.block_on(operated(server, extras, operation)),
        None => runtime.block_on(operated(server, site, operation)),
    };
    // A thread that hangs in a file system must not keep a generation that has retired.
    runtime.shutdown_background();
    served.map_err(reason)?;
    Ok(())
}

/// The server that the flags and the config describe, and whether it has TLS.
fn configured(cli: &Cli, config: &Config) -> Result<(Server, Option<Admin>, bool), String> {
    let listen = cli.server.listen().map_err(|problem| config.blame("listen", problem))?;
    let admin = cli.admin.check(&listen).map_err(|problem| config.blame("admin", problem))?;
    let tls = cli.tls.load().map_err(|(key, problem)| config.blame(key, problem))?;
    let has_tls = tls.is_some();
    let server = cli.tls.apply(cli.server.server(&listen), tls);
    let server = admin.iter().fold(server, |server, admin| admin.bind(server));
    server.check().map_err(|problem| match problem.is_invalid_setting() {
        // The flags have bounds of their own, so it is about the addresses.
        true => config.blame("listen", problem.to_string()),
        false => problem.to_string(),
    })?;
    Ok((server, admin, has_tls))
}

/// How a generation is operated.
struct Operation {
    control: ControlOptions,
    admin: Option<Admin>,
    files: LogFiles,
    asked: Option<Asked>,
}

/// Serves the site, and answers whoever operates it.
async fn operated<S, B>(server: Server, site: S, operation: Operation) -> Result<(), handover::Error>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let handle = server.handle();
    let metrics = Metrics::new(&handle);
    let Operation { control, admin, files, asked } = operation;
    let api = Api::new(handle.clone(), metrics.clone(), Arc::new(files.clone()));
    if let Some(asked) = asked {
        tokio::spawn(asked.obey(files, api.clone()));
    }
    let no_control = control.no_control;
    let control = Control::new(control.control, handle.clone(), api.clone());
    let front = Front::new(site, metrics, admin, &api, handle);
    let opening = control.clone();
    let open = async move { if no_control { Ok(()) } else { opening.open().await } };
    let served = server.ready_when(open).serve(front).await;
    if let Ok(outcome) = &served {
        api.leave(outcome).await;
    }
    control.close().await;
    served.map(drop)
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
        let name = root.display().to_string();
        let advice = match command::Command::has_subcommand(&name) {
            true => format!("`handover {name}` must come before its flags"),
            false => "name a directory this user may read".to_owned(),
        };
        format!("cannot serve {name}: {error}; {advice}")
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
