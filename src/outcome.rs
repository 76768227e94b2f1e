//! How a generation ended.

use crate::drain::Drained;
use crate::status::Connections;
pub use crate::succession::End;

/// How a generation ended, and what became of its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// Whether a successor took over or the service stopped.
    pub end: End,
    /// What became of its connections.
    pub drained: Drained,
    /// All the connections that it had.
    pub connections: Connections,
}
