//! How a generation ended.

use std::time::Duration;

pub use crate::succession::End;

/// How a generation ended, and what became of its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// Whether a successor took over or the service stopped.
    pub end: End,
    /// Connections that ended by themselves after the drain began.
    pub finished: u64,
    /// Connections that were still open at the deadline, or at a second request to stop.
    pub cut: u64,
    /// From the beginning of the drain to its end.
    pub took: Duration,
}
