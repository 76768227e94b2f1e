//! Runs one generation of the server that the flags and the config describe, until it has left.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use clap::Subcommand;
use handover::control::{Api, socket::Control};
use handover::metrics::Metrics;
use handover::{ConnectInfo, ErrorKind, Server, Signals};
use hyper::body::{Body, Bytes, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};

use super::admin::{Admin, Router};
use super::command::Command;
use super::config::Config;
use super::files::FileServer;
use super::flags::Cli;
use super::middleware::Middleware;
use super::options::ControlOptions;
use super::reopen::{LogFiles, ReopenSignal};
use super::{release, runtime};

pub(crate) fn serve(
    cli: Cli,
    config: Config,
    files: LogFiles,
    asked: Option<ReopenSignal>,
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
    let site = FileServer::new(cli.root.clone(), cli.probes, handle);
    let runtime = runtime::build()?;
    let operation = Operation { control: cli.control, admin, files, asked };
    let served = match Middleware::of(&site, cli.root, &cli.middleware, config.tables, access) {
        Some(extras) => {
            runtime.block_on(operated(server, move |info| extras.for_client(info.remote()), operation))
        }
        None => runtime.block_on(operated(server, move |_| site.clone(), operation)),
    };
    // Does not wait for blocking threads: one that hangs in a file system must not keep a retired generation alive.
    runtime.shutdown_background();
    served.map_err(reason)?;
    Ok(())
}

/// Builds the server that the flags and the config describe; the bool is true if it has TLS.
pub(crate) fn configured(cli: &Cli, config: &Config) -> Result<(Server, Option<Admin>, bool), String> {
    let listen = cli.server.listen().map_err(|problem| config.blame("listen", problem))?;
    let admin = cli.admin.check(&listen).map_err(|problem| config.blame("admin", problem))?;
    let tls = cli.tls.load().map_err(|(key, problem)| config.blame(key, problem))?;
    let has_tls = tls.is_some();
    let server = cli.tls.apply(cli.server.server(&listen), tls);
    let server = admin.iter().fold(server, |server, admin| admin.bind(server));
    server.check().map_err(|problem| {
        if problem.kind() == ErrorKind::InvalidSetting {
            // The other flags check their own bounds, so the problem is in the addresses.
            config.blame("listen", problem.to_string())
        } else {
            problem.to_string()
        }
    })?;
    Ok((server, admin, has_tls))
}

/// The parts with which operators control a generation.
struct Operation {
    control: ControlOptions,
    admin: Option<Admin>,
    files: LogFiles,
    asked: Option<ReopenSignal>,
}

/// Serves the site, the admin address and the control socket.
async fn operated<M, S, B>(server: Server, site: M, operation: Operation) -> Result<(), handover::Error>
where
    M: Fn(&ConnectInfo) -> S + Send + Sync + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let handle = server.handle();
    let metrics = Metrics::new(&handle);
    let Operation { control, admin, files, asked } = operation;
    let api = Api::new(handle.clone(), metrics.clone(), Arc::new(files.clone()));
    if let Some(asked) = asked {
        tokio::spawn(asked.reopen_when_told(files, api.clone()));
    }
    let no_control = control.no_control;
    let control = Control::new(control.control, handle.clone(), api.clone());
    let router = Router::new(metrics, admin, &api, handle);
    let opening = control.clone();
    let open = async move { if no_control { Ok(()) } else { opening.open().await } };
    let served = server.ready_when(open).serve_with(move |info| router.route(info, site(info))).await;
    if let Ok(outcome) = &served {
        api.leave(outcome).await;
    }
    control.close().await;
    served.map(drop)
}

/// Returns the error to report. The only readiness check opens the control socket, and its own error is clear enough.
fn reason(error: handover::Error) -> Box<dyn std::error::Error> {
    match std::error::Error::source(&error).map(ToString::to_string) {
        Some(problem) if error.kind() == ErrorKind::NotReady => problem.into(),
        _ => error.into(),
    }
}

pub(crate) fn check_root(root: &Path) -> Result<(), String> {
    std::fs::read_dir(root).map(drop).map_err(|error| {
        let name = root.display().to_string();
        let advice = if Command::has_subcommand(&name) {
            format!("`handover {name}` must come before its flags")
        } else {
            "name a directory this user may read".to_owned()
        };
        format!("cannot serve {name}: {error}; {advice}")
    })
}
