//! The command line.

use std::path::PathBuf;

use clap::{ArgAction, Parser};

use super::access::AccessOptions;
use super::admin::AdminOptions;
use super::command::Command;
use super::log::LogOptions;
use super::middleware::MiddlewareOptions;
use super::options::{ControlOptions, ServerOptions};
use super::tls::TlsOptions;

/// Serve a directory over HTTP, and be replaced by a new version without losing a request: `kill -HUP PID`
///
/// SIGHUP and SIGUSR2 start a successor with the same command line and hand over to it; SIGTERM and SIGINT stop when
/// the connections are finished, a second one stops at once. The exit status is 0 when retired or stopped, 1 on an error,
/// 2 on wrong usage.
#[derive(Debug, Parser)]
#[command(name = "handover", version, max_term_width = 110, args_override_self = true)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// The directory to serve; without it, a page that names the answering generation
    pub(crate) root: Option<PathBuf>,
    /// Read the settings that no flag gives from this TOML file; each generation reads it anew
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Check whether a server would start with these flags and this config, without starting it
    #[arg(long)]
    pub(crate) check: bool,
    /// Answer GET /healthz (200 while alive) and GET /readyz (503 once told to stop) ahead of ROOT
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", hide_possible_values = true)]
    pub(crate) probes: bool,
    /// Keep a supervisor whose pid stays the same; by default as pid 1, and under systemd without Type=notify
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", hide_possible_values = true)]
    pub(crate) supervise: Option<bool>,
    #[command(flatten)]
    pub(crate) middleware: MiddlewareOptions,
    #[command(flatten)]
    pub(crate) access: AccessOptions,
    #[command(flatten)]
    pub(crate) server: ServerOptions,
    #[command(flatten)]
    pub(crate) tls: TlsOptions,
    #[command(flatten)]
    pub(crate) control: ControlOptions,
    #[command(flatten)]
    pub(crate) admin: AdminOptions,
    #[command(flatten)]
    pub(crate) log: LogOptions,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
