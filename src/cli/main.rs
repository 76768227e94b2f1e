//! The `handover` server: serves a directory over HTTP and is replaced by its next generation on SIGHUP.

use std::process::ExitCode;

use handover::Signals;

fn main() -> ExitCode {
    // Comes first: until the handler is installed a SIGHUP ends the process. A failure is dropped here because the server
    // installs the handlers again and reports the error.
    let signals = handover_cli::is_server().then(Signals::install).and_then(Result::ok);
    handover_cli::run(signals)
}
