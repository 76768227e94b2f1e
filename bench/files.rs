//! The binary as a file server: handovers under load, slow downloads during handovers, cold files, and the memory of slow readers.
//! Every body is compared with the file. [`compare`] measures the throughput beside other servers.

use serde::Serialize;

mod cold;
mod compare;
mod contenders;
mod handovers;
mod memory;
mod site;
mod slow;
mod static_web_server;
mod wrk;

use crate::workloads::Run;
pub(crate) use compare::{Comparison, compare};

/// All figures of the workload.
#[derive(Debug, Serialize)]
pub(crate) struct Files {
    handovers: Vec<Run>,
    slow: slow::Slow,
    /// `None` with `--quick`.
    cold: Option<cold::Cold>,
    memory: memory::Memory,
}

pub(crate) async fn files(quick: bool, handovers: u32) -> Files {
    println!(
        "\nfiles: the binary serves files of random contents, and every answer is compared with its file"
    );
    Files {
        handovers: handovers::all(handovers).await,
        slow: slow::slow().await,
        cold: if quick { None } else { Some(cold::cold().await) },
        memory: memory::memory(if quick { 1_000 } else { 10_000 }).await,
    }
}

impl Files {
    pub(crate) fn failed(&self) -> u64 {
        let handovers: u64 = self.handovers.iter().map(|run| run.measured.failed).sum();
        let cold = self.cold.as_ref().map_or(0, cold::Cold::failed);
        handovers + self.slow.failed() + cold + self.memory.failed
    }
}
