//! The steps of chaos and their times, drawn from the seed alone: the same seed gives the same steps in every run.

use std::time::Duration;

use super::releases::Release;
use crate::load::Clients;

/// An endless sequence of steps.
pub struct Schedule(fastrand::Rng);

#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// The time since the previous step.
    pub after: Duration,
    pub deed: Deed,
    /// The target: a position among the allowed processes, from 0 to 1.
    pub whom: f64,
}

#[derive(Debug, Clone, Copy)]
pub enum Deed {
    /// Installs a release and asks a process to restart.
    Release(Release),
    Kill,
    /// Sends SIGSTOP, and SIGCONT after this time.
    Stop(Duration),
    /// Starts other clients, this many of them.
    Load(Clients, usize),
}

const FAULTS: [&str; 9] = [
    "exit-before-ready",
    "exit-zero-before-ready",
    "abort-before-ready",
    "panic-in-check",
    "hang-before-ready",
    "never-listens",
    "never-accepts",
    "exit-after-ready=0",
    "exit-after-ready=200",
];

impl Schedule {
    pub fn new(seed: u64) -> Schedule {
        Schedule(fastrand::Rng::with_seed(seed))
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.0.u64(range))
    }

    fn deed(&mut self) -> Deed {
        match self.0.u32(0..100) {
            0..45 => Deed::Release(self.release()),
            45..65 => Deed::Kill,
            // Half of the stops are short, the other half may exceed standby and the ready timeout.
            65..75 => Deed::Stop(self.millis(1..200)),
            75..85 => Deed::Stop(self.millis(200..3000)),
            _ => {
                let pause = self.millis(1..100);
                let count = self.0.usize(1..40);
                match self.0.u32(0..3) {
                    0 => Deed::Load(Clients::Fresh, count.div_ceil(4)),
                    1 => Deed::Load(Clients::FreshNowAndThen { pause }, count),
                    _ => Deed::Load(Clients::KeepAlive { pause }, count),
                }
            }
        }
    }

    fn release(&mut self) -> Release {
        match self.0.u32(0..100) {
            0..55 => Release::Good,
            55..65 => Release::Faulty("slow-start=300"),
            65..90 => Release::Faulty(FAULTS[self.0.usize(0..FAULTS.len())]),
            90..94 => Release::Missing,
            94..97 => Release::NotExecutable,
            _ => Release::NotAProgram,
        }
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let after = self.millis(0..500);
        let deed = self.deed();
        Some(Step { after, deed, whom: self.0.f64() })
    }
}
