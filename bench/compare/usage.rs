//! The resources of all processes of a server together, sampled periodically.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use support::resources::{cpu_seconds, pss_mib};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// The memory before the first restart; memory that processes share is counted once.
    pub(crate) memory_before_mib: f64,
    /// The highest memory from then on.
    pub(crate) memory_most_mib: f64,
    /// The CPU time of all processes, including starts and restarts, but without the time after the last look at each process.
    pub(crate) cpu_seconds: f64,
    pub(crate) cpu_seconds_per_1000: f64,
}

#[derive(Default)]
pub(super) struct Watch {
    cpu_seconds: BTreeMap<u32, f64>,
    before_mib: f64,
    most_mib: f64,
}

impl Watch {
    pub(super) fn before(&mut self, alive: &[u32]) {
        self.look(alive);
        self.before_mib = self.most_mib;
    }

    pub(super) fn look(&mut self, alive: &[u32]) {
        for pid in alive {
            let seconds = self.cpu_seconds.entry(*pid).or_default();
            // NaN, for a process that has just ended, is ignored by `max`.
            *seconds = seconds.max(cpu_seconds(*pid));
        }
        self.most_mib = self.most_mib.max(alive.iter().map(|pid| pss_mib(*pid)).sum());
    }

    pub(super) fn usage(&self, requests: u64) -> Usage {
        let cpu_seconds: f64 = self.cpu_seconds.values().sum();
        Usage {
            memory_before_mib: self.before_mib,
            memory_most_mib: self.most_mib,
            cpu_seconds,
            cpu_seconds_per_1000: 1000.0 * cpu_seconds / requests as f64,
        }
    }
}
