//! What tells whether a file or a directory has changed.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, Stat, StatxFlags, StatxTimestamp, fstat, makedev, stat, statx};

/// Coarsest resolution of file times in seconds. Two changes within it may leave the same time.
const COARSE: i64 = 2;

/// Seconds since 1970, and nanoseconds.
pub(crate) type Time = (i64, u32);

/// Differs after the content of a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    pub(crate) modified: Time,
}

/// Differs after the content or the metadata of a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileState {
    pub(crate) version: Version,
    /// The ctime. Unlike `modified`, a program cannot set it back.
    changed: Time,
    pub(crate) kind: FileType,
}

impl FileState {
    pub(crate) fn of(file: impl AsFd) -> io::Result<FileState> {
        Ok(fstat(file)?.into())
    }

    pub(crate) fn at(path: &Path) -> io::Result<FileState> {
        Ok(stat(path)?.into())
    }

    /// Returns what the kernel has in memory, without asking a network for what is new.
    pub(crate) fn of_cached(file: impl AsFd) -> io::Result<FileState> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let stat = statx(file, "", flags, StatxFlags::BASIC_STATS)?;
        let time = |time: StatxTimestamp| (time.tv_sec, time.tv_nsec);
        let version = Version {
            device: makedev(stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            size: stat.stx_size,
            modified: time(stat.stx_mtime),
        };
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        Ok(FileState { version, changed: time(stat.stx_ctime), kind })
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Returns whether the next change is certain to leave another state.
    pub(crate) fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let last = self.version.modified.0.max(self.changed.0);
        i64::try_from(now).is_ok_and(|now| last.saturating_add(COARSE) < now)
    }
}

impl From<Stat> for FileState {
    fn from(stat: Stat) -> FileState {
        let time = |seconds, nanoseconds: u64| (seconds, u32::try_from(nanoseconds).unwrap_or_default());
        let version = Version {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size.try_into().unwrap_or_default(),
            modified: time(stat.st_mtime, stat.st_mtime_nsec),
        };
        let changed = time(stat.st_ctime, stat.st_ctime_nsec);
        FileState { version, changed, kind: FileType::from_raw_mode(stat.st_mode) }
    }
}
