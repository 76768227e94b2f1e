//! wrk, which measures the throughput of a server.

use std::net::SocketAddr;

use serde::Deserialize;
use support::servers::packages;

use super::site::File;

/// The files from this size on are measured by bytes: when wrk ends, every connection has an incomplete answer, which a count of
/// answers leaves out.
const BY_BYTES: usize = 1 << 20;

/// The counts of one run.
#[derive(Debug, Deserialize)]
pub(super) struct Counts {
    micros: u64,
    requests: u64,
    bytes: u64,
    /// Failed connects, reads and writes, and timeouts.
    pub(super) socket_errors: u64,
    /// Answers with a status other than 2xx and 3xx.
    pub(super) other_statuses: u64,
}

pub(super) fn version() -> Result<String, String> {
    packages::version("wrk", "wrk ")
}

/// Fetches a file over 64 connections, from one thread.
pub(super) fn run(address: SocketAddr, tls: bool, file: File, seconds: u32) -> Result<Counts, String> {
    let scheme = if tls { "https" } else { "http" };
    let mut command = packages::command("wrk")?;
    command.args(["-t", "1", "-c", "64", "--timeout", "30s", "-d", &format!("{seconds}s")]);
    command.arg("-s").arg(support::root().join("bench/files/wrk.lua"));
    command.arg(format!("{scheme}://{address}/{}", file.name));
    let output = command.output().map_err(|error| format!("wrk does not start: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let counts = said.lines().last().and_then(|line| serde_json::from_str(line).ok());
    counts.ok_or_else(|| format!("wrk failed: {}", said.lines().last().unwrap_or("it says nothing")))
}

impl Counts {
    /// The answers per second.
    pub(super) fn per_second(&self, file: File) -> f64 {
        let answers =
            if file.bytes < BY_BYTES { self.requests as f64 } else { self.bytes as f64 / file.bytes as f64 };
        answers * 1e6 / self.micros as f64
    }
}
