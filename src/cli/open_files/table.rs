//! The descriptors of the files that are being sent: at most a quarter of the descriptors that this process may have. Opening
//! one more file closes the least recently read one. A file that was removed, replaced or changed cannot be opened again, so its
//! descriptor stays open; these lost files have a separate limit of the same size.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::find::{FileSystem, Found};
use super::{Access, FileState, changed, read_at, would_block};
use crate::file_state::Version;

/// Smallest limit of open files, even if the process may have few descriptors.
const LEAST: usize = 16;
/// How many files are closed, at most, to make an open succeed that fails with EMFILE or ENFILE.
const TRIES: usize = 16;

/// The file of one response.
#[derive(Debug)]
pub(super) struct HeldFile {
    path: PathBuf,
    file_system: FileSystem,
    /// The version that was announced to the client.
    version: Version,
    /// Locked during a read, so that the descriptor cannot be closed and its number reused for another file.
    file: Mutex<Option<File>>,
    /// The key in one of the maps of `ReadOrder`, or `NONE` or `ENDED`. Only changed while `ReadOrder` is locked.
    rank: AtomicU64,
}

/// Rank of a file whose descriptor is closed or about to be closed.
const NONE: u64 = 0;
/// Rank of a file whose response has ended.
const ENDED: u64 = u64::MAX;

/// The open files in the order of their last read. The lock is held only briefly. Lock order: a file first, then the table.
#[derive(Debug)]
pub(super) struct Table {
    root: PathBuf,
    order: Mutex<ReadOrder>,
}

#[derive(Debug, Default)]
struct ReadOrder {
    last: u64,
    found: BTreeMap<u64, Arc<HeldFile>>,
    /// Files that were replaced, changed or removed.
    lost: BTreeMap<u64, Arc<HeldFile>>,
}

/// The last bytes of a file that were sent. If the file has grown, they tell whether it is otherwise the same.
#[derive(Debug, Default, Clone)]
pub(super) struct Sent {
    pub(super) end: u64,
    pub(super) last: Vec<u8>,
}

impl HeldFile {
    pub(super) fn new(file: File, path: PathBuf, file_system: FileSystem, version: Version) -> HeldFile {
        HeldFile { path, file_system, version, file: Mutex::new(Some(file)), rank: AtomicU64::new(NONE) }
    }

    /// Returns how long an operation on the file may take, if it is not in memory.
    pub(super) fn access(&self) -> Access {
        if self.file_system == FileSystem::Foreign { Access::Foreign } else { Access::Blocking }
    }

    /// Finds the file again. Fails if its path leads to another or a changed one.
    fn find(&self, root: &Path) -> io::Result<Found> {
        let found = Found::at(root, &self.path, self.access())?;
        if found.state.is_dir() || found.state.version != self.version { Err(changed()) } else { Ok(found) }
    }

    /// Checks, after a read, that the bytes belong to those that were sent. A file that was only appended to is still the same.
    fn check(&self, file: &File, sent: &Sent, access: Access) -> io::Result<()> {
        let now = FileState::of(file)?.version;
        if now == self.version {
            return Ok(());
        }
        let mut again = vec![0; sent.last.len()];
        let from = sent.end - again.len() as u64;
        if now.size <= self.version.size
            || read_at(file, from, &mut again, self.file_system, access)? < again.len()
            || again != sent.last
        {
            return Err(changed());
        }
        Ok(())
    }
}

impl Table {
    pub(super) fn new(root: PathBuf) -> Table {
        Table { root, order: Mutex::default() }
    }

    /// Opens something, after closing files that are in the way. May block.
    pub(super) fn with_room<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let is_full =
            |error: &io::Error| matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE));
        let mut opened = open();
        for _ in 0..TRIES {
            if !opened.as_ref().is_err_and(is_full) || !self.close_one(1) {
                break;
            }
            opened = open();
        }
        opened
    }

    /// Closes files until one more may be open. May block.
    pub(super) fn make_room(&self) {
        let most = most();
        // Bounded: visits each file once; files that other threads open meanwhile make room for themselves.
        for _ in 0..2 * most {
            if !self.close_one(most) {
                break;
            }
        }
    }

    /// Adds a file that was just opened.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if another file has to be closed first, and `access` does not allow that.
    pub(super) fn insert_new(&self, held: HeldFile, access: Access) -> io::Result<Arc<HeldFile>> {
        let (held, mut order) = (Arc::new(held), self.lock());
        if access == Access::Cached && order.found.len().max(order.lost.len()) >= most() {
            return Err(would_block());
        }
        order.insert(&held, Which::Found);
        drop(order);
        Ok(held)
    }

    /// Reads at most as many bytes as fit, after what was `sent`.
    ///
    /// # Errors
    ///
    /// Fails at the end of the file, and if the file has changed: the response cannot be completed then.
    pub(super) fn read(
        &self,
        held: &Arc<HeldFile>,
        position: u64,
        into: &mut [u8],
        sent: &Sent,
        access: Access,
    ) -> io::Result<usize> {
        let mut file = match access {
            Access::Blocking | Access::Foreign => held.file.lock().unwrap_or_else(PoisonError::into_inner),
            Access::Cached => held.file.try_lock().map_err(|_| would_block())?,
        };
        let open = match &mut *file {
            Some(open) => {
                // The first read needs no update: a file that was just opened has the highest rank.
                if sent.end > 0 {
                    self.lock().touch(held);
                }
                open
            }
            None if access == Access::Cached => return Err(would_block()),
            closed => closed.insert(self.open_again(held)?),
        };
        let read = read_at(open, position, into, held.file_system, access)?;
        if read == 0 {
            return Err(changed());
        }
        held.check(open, sent, access)?;
        Ok(read)
    }

    /// Removes the file of a response that has ended.
    pub(super) fn forget(&self, held: &HeldFile) {
        let mut order = self.lock();
        let rank = held.rank.swap(ENDED, Relaxed);
        let removed = order.found.remove(&rank).or_else(|| order.lost.remove(&rank));
        drop(order);
        // Closes the descriptor, without the lock of the table.
        drop(removed);
    }

    fn open_again(&self, held: &Arc<HeldFile>) -> io::Result<File> {
        self.make_room();
        let found = self.with_room(|| held.find(&self.root))?;
        let file = self.with_room(|| found.open(&held.path, held.access()))?;
        self.lock().insert(held, Which::Found);
        Ok(file)
    }

    /// Closes the least recently read file if at least `most` are open. Returns whether there were that many.
    fn close_one(&self, most: usize) -> bool {
        let Some((held, which)) = self.lock().take_least(most) else { return false };
        match held.file.try_lock() {
            Ok(mut file) => {
                // A file system that may never answer is not asked.
                let is_lost = held.access() == Access::Blocking && held.find(&self.root).is_err();
                if matches!(which, Which::Lost) || !is_lost {
                    *file = None;
                } else {
                    self.lock().insert(&held, Which::Lost);
                }
            }
            // The file is being read.
            Err(TryLockError::WouldBlock) => self.lock().insert(&held, which),
            Err(TryLockError::Poisoned(_)) => {}
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, ReadOrder> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone, Copy)]
enum Which {
    Found,
    Lost,
}

impl ReadOrder {
    fn insert(&mut self, held: &Arc<HeldFile>, which: Which) {
        if held.rank.load(Relaxed) == ENDED {
            return;
        }
        self.last += 1;
        held.rank.store(self.last, Relaxed);
        let ranks = match which {
            Which::Found => &mut self.found,
            Which::Lost => &mut self.lost,
        };
        ranks.insert(self.last, Arc::clone(held));
    }

    /// Moves a file that is being read to the highest rank.
    fn touch(&mut self, held: &Arc<HeldFile>) {
        let rank = held.rank.load(Relaxed);
        if self.found.remove(&rank).is_some() {
            self.insert(held, Which::Found);
        } else if self.lost.remove(&rank).is_some() {
            self.insert(held, Which::Lost);
        }
    }

    fn take_least(&mut self, most: usize) -> Option<(Arc<HeldFile>, Which)> {
        let (ranks, which) = match self {
            ReadOrder { found, .. } if found.len() >= most => (found, Which::Found),
            ReadOrder { lost, .. } if lost.len() >= most => (lost, Which::Lost),
            _ => return None,
        };
        let (_, held) = ranks.pop_first()?;
        held.rank.store(NONE, Relaxed);
        Some((held, which))
    }
}

/// Returns the limit of open files. It is computed each time, because prlimit(1) can change the limit of a running process.
fn most() -> usize {
    let quarter = getrlimit(Resource::Nofile).current.map_or(u64::MAX, |limit| limit / 4);
    usize::try_from(quarter).unwrap_or(usize::MAX).max(LEAST)
}
