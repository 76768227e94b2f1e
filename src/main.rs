//! The `handover` server: serves a directory over HTTP and is replaced by its next generation on SIGHUP.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::run()
}
