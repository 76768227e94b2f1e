//! The mode of connections: serve them, let them end, or cut them.

use std::time::Duration;

use tokio::time::Instant;

/// The mode of all connections. A lame duck is served normally, but its responses say `Connection: close`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Normal,
    LameDuck { since: Instant, idle_grace: Duration },
    Cut,
}

impl Mode {
    pub(super) fn lame_duck_since(self) -> Option<Instant> {
        match self {
            Mode::LameDuck { since, .. } => Some(since),
            Mode::Normal | Mode::Cut => None,
        }
    }

    pub(super) fn idle_grace(self) -> Option<Duration> {
        match self {
            Mode::LameDuck { idle_grace, .. } => Some(idle_grace),
            Mode::Normal | Mode::Cut => None,
        }
    }
}

/// A mode and its number. Later modes have larger numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VersionedMode {
    number: u64,
    pub(super) mode: Mode,
}

impl VersionedMode {
    pub(super) fn first() -> VersionedMode {
        VersionedMode { number: 0, mode: Mode::Normal }
    }

    pub(super) fn next(self, mode: Mode) -> VersionedMode {
        VersionedMode { number: self.number + 1, mode }
    }

    pub(super) fn told(self) -> ToldMode {
        let kind = match self.mode {
            Mode::Normal => NORMAL,
            Mode::LameDuck { .. } => LAME_DUCK,
            Mode::Cut => CUT,
        };
        ToldMode(self.number << BITS | kind)
    }
}

const BITS: u32 = 2;
const NORMAL: u64 = 0;
const LAME_DUCK: u64 = 1;
const CUT: u64 = 2;

/// The mode that one connection was told, in one machine word, because every request reads it. Later modes have larger values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ToldMode(pub(super) u64);

impl ToldMode {
    fn kind(self) -> u64 {
        self.0 & ((1 << BITS) - 1)
    }

    pub(super) fn is_normal(self) -> bool {
        self.kind() == NORMAL
    }

    pub(super) fn is_lame_duck(self) -> bool {
        self.kind() == LAME_DUCK
    }

    pub(super) fn is_cut(self) -> bool {
        self.kind() == CUT
    }
}
