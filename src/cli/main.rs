//! The `handover` server: serves a directory over HTTP and is replaced by its next generation on SIGHUP.

use std::process::ExitCode;

use handover::Signals;

fn main() -> ExitCode {
    // First of all, because a SIGHUP ends the process until then. Where it fails, the server says so, which tries again.
    let signals = handover_cli::is_server().then(Signals::install).and_then(Result::ok);
    handover_cli::run(signals)
}
