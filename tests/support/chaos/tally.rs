//! The result of a run of chaos.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// The counts of a run.
#[derive(Debug, Default, Serialize)]
pub struct Tally {
    pub requests: usize,
    /// Requests that were lost inside a killed process.
    #[serde(rename = "lost_inside_of_killed")]
    pub(super) inside: usize,
    #[serde(rename = "slowest_ms", serialize_with = "as_ms")]
    pub(super) slowest: Duration,
    pub releases: u64,
    pub(super) took_over: u64,
    pub(super) failed: u64,
    pub(super) healed: u64,
    pub kills: u64,
    pub stops: u64,
}

fn as_ms<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64() * 1000.0)
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} releases, {} took over, {} failed, {} healed after the flip; {} kills, {} stops; {} requests answered, {} \
             lost inside of killed processes, slowest answer {:.1?}",
            self.releases,
            self.took_over,
            self.failed,
            self.healed,
            self.kills,
            self.stops,
            self.requests,
            self.inside,
            self.slowest
        )
    }
}
