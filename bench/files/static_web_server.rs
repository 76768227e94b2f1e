//! static-web-server, which is compiled on first use.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::servers::packages;

const VERSION: &str = "2.44.1";

fn folder() -> PathBuf {
    packages::peers().join("static-web-server")
}

fn binary() -> PathBuf {
    folder().join("bin/static-web-server")
}

/// Installs the program into the folder of the peers, unless it is there. Returns its version, or why it is missing.
pub(super) fn install() -> Result<String, String> {
    let version = format!("static-web-server {VERSION}");
    if installed().as_deref() == Some(VERSION) {
        return Ok(version);
    }
    eprintln!("compiling static-web-server, which takes some minutes");
    let mut cargo = support::cargo();
    cargo.args(["install", "static-web-server", "--locked", "--version", VERSION, "--root"]).arg(folder());
    cargo.arg("--target-dir").arg(packages::peers()).stdin(Stdio::null());
    let output = cargo.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if output.status.success() {
        return Ok(version);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let error = said.lines().find(|line| line.starts_with("error")).unwrap_or("cargo does not say why");
    Err(format!("does not build: {error}"))
}

/// The version that is installed, from the first line of `--version`.
fn installed() -> Option<String> {
    let output = Command::new(binary()).arg("--version").output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout);
    Some(said.lines().next()?.split_whitespace().last()?.to_owned())
}

/// A command that serves `root` on a port of 127.0.0.1, with a thread for each core, which logs errors only and compresses
/// nothing. `tls`: the certificate and the key.
pub(super) fn command(port: u16, root: &Path, tls: Option<(&Path, &Path)>) -> Command {
    let mut command = Command::new(binary());
    command.args(["--host", "127.0.0.1", "--port", &port.to_string()]).arg("--root").arg(root);
    command.args(["--log-level", "error", "--threads-multiplier", "1", "--compression", "false"]);
    command.args(["--cache-control-headers", "false", "--security-headers", "false"]);
    if let Some((cert, key)) = tls {
        command.args(["--http2", "true", "--http2-tls-cert"]).arg(cert).arg("--http2-tls-key").arg(key);
    }
    command
}
