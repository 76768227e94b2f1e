//! Finds files without opening them, so nothing happens to a FIFO or a device, and no network or disk is waited for.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstatfs, open, openat2};
use rustix::io::Errno;

use super::{Access, FileState, would_block};

const FIND: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
/// A terminal must not become the controlling one.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// What may block on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileSystem {
    /// Nothing.
    Memory,
    /// Only what is not in memory, and the kernel says so beforehand.
    Disk,
    /// Only what is not in memory, but the kernel does not say so of a read.
    Overlay,
    /// Everything, possibly for ever: a network or another process (FUSE) has to answer.
    Foreign,
}

impl FileSystem {
    /// Returns what is known of a file system by its type (statfs(2)).
    fn of(found: &OwnedFd) -> FileSystem {
        const TMPFS: i64 = 0x0102_1994;
        const RAMFS: i64 = 0x8584_58f6;
        const EXT: i64 = 0xef53;
        const XFS: i64 = 0x5846_5342;
        const BTRFS: i64 = 0x9123_683e;
        const F2FS: i64 = 0xf2f5_2010;
        const EROFS: i64 = 0xe0f5_e1e2;
        const OVERLAYFS: i64 = 0x794c_7630;
        match fstatfs(found).map(|system| system.f_type) {
            Ok(TMPFS | RAMFS) => FileSystem::Memory,
            Ok(EXT | XFS | BTRFS | F2FS | EROFS) => FileSystem::Disk,
            Ok(OVERLAYFS) => FileSystem::Overlay,
            _ => FileSystem::Foreign,
        }
    }
}

/// The file systems of the files that were found lately, by device.
#[derive(Debug, Default)]
pub(super) struct FileSystems(Mutex<Vec<Known>>);

#[derive(Debug)]
struct Known {
    device: u64,
    file_system: FileSystem,
    since: Instant,
}

/// How long a file system is known. Later, its device number may be that of another one.
const KNOWN: Duration = Duration::from_secs(1);

impl FileSystems {
    /// Returns the file system of a file.
    ///
    /// # Errors
    ///
    /// `WouldBlock` with [`Access::Cached`] if it is not known, or has to be asked.
    pub(super) fn of(&self, found: &Found, access: Access) -> io::Result<FileSystem> {
        let device = found.state.version.device;
        match (self.known(device), access) {
            (Some(FileSystem::Foreign) | None, Access::Cached) => Err(would_block()),
            (Some(known), _) => Ok(known),
            (None, Access::Blocking | Access::Foreign) => {
                let file_system = FileSystem::of(&found.handle);
                let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                known.retain(|known| known.device != device && known.since.elapsed() < KNOWN);
                known.push(Known { device, file_system, since: Instant::now() });
                Ok(file_system)
            }
        }
    }

    fn known(&self, device: u64) -> Option<FileSystem> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().find(|known| known.device == device && known.since.elapsed() < KNOWN)?;
        Some(found.file_system)
    }
}

/// A regular file or a directory, which is not opened yet.
#[derive(Debug)]
pub(crate) struct Found {
    handle: OwnedFd,
    pub(crate) state: FileState,
}

impl Found {
    /// Finds what a path below ROOT leads to.
    ///
    /// # Errors
    ///
    /// `NotFound` also for a FIFO, a device or a socket; `WouldBlock` or `CrossesDevices` if `access` does not suffice.
    pub(super) fn at(root: &Path, path: &Path, access: Access) -> io::Result<Found> {
        let handle = match access {
            Access::Cached => openat2(CWD, path, FIND, Mode::empty(), ResolveFlags::CACHED),
            Access::Blocking => {
                let below = path.strip_prefix(root).unwrap_or(path);
                open(root, FIND, Mode::empty())
                    .and_then(|root| openat2(root, below, FIND, Mode::empty(), ResolveFlags::NO_XDEV))
            }
            Access::Foreign => open(path, FIND, Mode::empty()),
        };
        let handle = match (handle, access) {
            (Ok(handle), _) => handle,
            (Err(error @ (Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG)), _)
            | (Err(error @ (Errno::MFILE | Errno::NFILE)), Access::Blocking)
            | (Err(error), Access::Foreign) => return Err(error.into()),
            // The kernel, or a filter of system calls, may know nothing of this.
            (Err(_), Access::Cached) => return Err(would_block()),
            (Err(_), Access::Blocking) => return Err(Errno::XDEV.into()),
        };
        let state = match access {
            Access::Cached => FileState::of_cached(&handle).map_err(|_| would_block())?,
            Access::Blocking | Access::Foreign => FileState::of(&handle)?,
        };
        if !matches!(state.kind, FileType::RegularFile | FileType::Directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Found { handle, state })
    }

    /// Opens the file to read it. `path` is only needed where `/proc` is missing.
    pub(super) fn open(&self, path: &Path, access: Access) -> io::Result<File> {
        let itself = format!("/proc/self/fd/{}", self.handle.as_raw_fd());
        match (open(&*itself, READ, Mode::empty()), access) {
            (Ok(file), _) => Ok(file.into()),
            (Err(error @ Errno::ACCESS), _) => Err(error.into()),
            (Err(_), Access::Cached) => Err(would_block()),
            (Err(Errno::NOENT), Access::Blocking) => Err(Errno::XDEV.into()),
            (Err(Errno::NOENT), Access::Foreign) => Ok(open(path, READ, Mode::empty())?.into()),
            (Err(error), _) => Err(error.into()),
        }
    }
}
