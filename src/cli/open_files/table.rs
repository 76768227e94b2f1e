//! The descriptors of the files that are being served: at most a quarter of the descriptors that this process may have. Opening
//! one more file closes the least recently read one. A file that was removed, replaced or changed cannot be opened again, so its
//! descriptor stays open; these lost files have a separate limit of the same size. All functions here block.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use rustix::buffer::spare_capacity;
use rustix::io::{Errno, pread, retry_on_intr};
use rustix::process::{Resource, getrlimit};

/// Smallest limit of open files, even if the process may have few descriptors.
const LEAST: usize = 16;
/// How many files are closed, at most, to make an open succeed that fails with EMFILE or ENFILE.
const TRIES: usize = 16;

/// The file of one response.
#[derive(Debug)]
pub(super) struct OpenedFile {
    path: PathBuf,
    /// The metadata from when the file was first opened.
    pub(super) metadata: Metadata,
    /// Locked during a read, so that the descriptor cannot be closed and its number reused for another file.
    file: Mutex<Option<fs::File>>,
    /// The key in one of the maps of `ReadOrder`, or `NONE` or `ENDED`. Only changed while `ReadOrder` is locked.
    rank: AtomicU64,
}

/// Rank of a file whose descriptor is closed or about to be closed.
const NONE: u64 = 0;
/// Rank of a file whose response has ended.
const ENDED: u64 = u64::MAX;

/// The open files in the order of their last read. The lock is held only briefly. Lock order: a file first, then the table.
#[derive(Debug, Default)]
pub(super) struct Table(Mutex<ReadOrder>);

#[derive(Debug, Default)]
struct ReadOrder {
    last: u64,
    found: BTreeMap<u64, Arc<OpenedFile>>,
    /// Files that were replaced, changed or removed.
    lost: BTreeMap<u64, Arc<OpenedFile>>,
}

impl OpenedFile {
    /// Returns whether the path still leads to the same, unchanged file.
    fn is_found(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| self.is(&found))
    }

    fn is(&self, other: &Metadata) -> bool {
        let key = |of: &Metadata| (of.dev(), of.ino(), of.len(), of.mtime(), of.mtime_nsec());
        key(&self.metadata) == key(other)
    }
}

impl Table {
    pub(super) fn open(&self, path: PathBuf) -> io::Result<Arc<OpenedFile>> {
        let file = self.open_regular(&path)?;
        let metadata = file.metadata()?;
        let held = OpenedFile { path, metadata, file: Mutex::new(Some(file)), rank: AtomicU64::new(NONE) };
        let held = Arc::new(held);
        self.lock().insert(&held, Which::Found);
        Ok(held)
    }

    /// Reads up to `most` bytes, or more if the buffer has more capacity; no bytes at the end of the file.
    pub(super) fn read(
        &self,
        held: &Arc<OpenedFile>,
        position: u64,
        most: usize,
        mut buffer: Vec<u8>,
    ) -> io::Result<Vec<u8>> {
        let mut file = held.file.lock().unwrap_or_else(PoisonError::into_inner);
        let open = match &mut *file {
            Some(open) => {
                // The first read needs no update: a file that was just opened has the highest rank.
                if position > 0 {
                    self.lock().touch(held);
                }
                open
            }
            closed => closed.insert(self.open_again(held)?),
        };
        buffer.clear();
        buffer.reserve_exact(most);
        retry_on_intr(|| pread(&*open, spare_capacity(&mut buffer), position))?;
        Ok(buffer)
    }

    /// Removes the file of a response that has ended.
    pub(super) fn forget(&self, held: &OpenedFile) {
        let mut ranks = self.lock();
        let rank = held.rank.swap(ENDED, Relaxed);
        drop(ranks.found.remove(&rank).or_else(|| ranks.lost.remove(&rank)));
    }

    fn open_again(&self, held: &Arc<OpenedFile>) -> io::Result<fs::File> {
        let file = self.open_regular(&held.path)?;
        if !held.is(&file.metadata()?) {
            return Err(io::Error::other("the file was replaced or changed while it was closed"));
        }
        self.lock().insert(held, Which::Found);
        Ok(file)
    }

    fn open_regular(&self, path: &PathBuf) -> io::Result<fs::File> {
        if !fs::metadata(path)?.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let most = most();
        // Bounded: visits each file once; files that other threads open meanwhile make room for themselves.
        for _ in 0..2 * most {
            if !self.close_one(most) {
                break;
            }
        }
        let mut opened = fs::File::open(path);
        for _ in 0..TRIES {
            let full =
                |error: &io::Error| matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE));
            if !opened.as_ref().is_err_and(full) || !self.close_one(1) {
                break;
            }
            opened = fs::File::open(path);
        }
        opened
    }

    /// Closes the least recently read file if at least `most` are open. Returns whether there were that many.
    fn close_one(&self, most: usize) -> bool {
        let Some((held, which)) = self.lock().take_least(most) else { return false };
        match held.file.try_lock() {
            Ok(mut file) => {
                if matches!(which, Which::Lost) || held.is_found() {
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone, Copy)]
enum Which {
    Found,
    Lost,
}

impl ReadOrder {
    fn insert(&mut self, held: &Arc<OpenedFile>, which: Which) {
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
    fn touch(&mut self, held: &Arc<OpenedFile>) {
        let rank = held.rank.load(Relaxed);
        if self.found.remove(&rank).is_some() {
            self.insert(held, Which::Found);
        } else if self.lost.remove(&rank).is_some() {
            self.insert(held, Which::Lost);
        }
    }

    fn take_least(&mut self, most: usize) -> Option<(Arc<OpenedFile>, Which)> {
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
