//! The descriptors of the files that are being served: at most a quarter of those that this process may have. One more
//! closes the one that was read least recently. A file that is not at its path any more, or has changed, could not be opened
//! again, so its descriptor stays as long as there are not as many of these again. Everything here blocks.

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

/// So many files may have a descriptor however few there are.
const LEAST: usize = 16;
/// How many are closed in vain for one that the system refuses.
const TRIES: usize = 16;

/// What one response reads.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
    /// As it was opened first.
    pub(super) metadata: Metadata,
    /// Locked while it is read, so that no other file is read by its number.
    file: Mutex<Option<fs::File>>,
    /// Its key in one of the maps, or one of those below. Only changed while these are locked.
    rank: AtomicU64,
}

/// Its descriptor is closed, or about to be.
const NONE: u64 = 0;
/// The response has ended.
const ENDED: u64 = u64::MAX;

/// By when they were read last. To be locked for a moment, and after that of a file.
#[derive(Debug, Default)]
pub(super) struct Table(Mutex<Ranks>);

#[derive(Debug, Default)]
struct Ranks {
    last: u64,
    found: BTreeMap<u64, Arc<Held>>,
    /// Those that were replaced, changed or removed.
    lost: BTreeMap<u64, Arc<Held>>,
}

impl Held {
    /// Whether its path still leads to it.
    fn is_found(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| self.is(&found))
    }

    fn is(&self, other: &Metadata) -> bool {
        let key = |of: &Metadata| (of.dev(), of.ino(), of.len(), of.mtime(), of.mtime_nsec());
        key(&self.metadata) == key(other)
    }
}

impl Table {
    pub(super) fn open(&self, path: PathBuf) -> io::Result<Arc<Held>> {
        let file = self.open_regular(&path)?;
        let metadata = file.metadata()?;
        let held = Held { path, metadata, file: Mutex::new(Some(file)), rank: AtomicU64::new(NONE) };
        let held = Arc::new(held);
        self.lock().insert(&held, Which::Found);
        Ok(held)
    }

    /// Reads so many bytes at most, or as many as the buffer has room for; none at the end of the file.
    pub(super) fn read(
        &self,
        held: &Arc<Held>,
        position: u64,
        most: usize,
        mut buffer: Vec<u8>,
    ) -> io::Result<Vec<u8>> {
        let mut file = held.file.lock().unwrap_or_else(PoisonError::into_inner);
        let open = match &mut *file {
            Some(open) => {
                // What was opened just now has the highest rank.
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

    /// The response has ended.
    pub(super) fn forget(&self, held: &Held) {
        let mut ranks = self.lock();
        let rank = held.rank.swap(ENDED, Relaxed);
        drop(ranks.found.remove(&rank).or_else(|| ranks.lost.remove(&rank)));
    }

    fn open_again(&self, held: &Arc<Held>) -> io::Result<fs::File> {
        let file = self.open_regular(&held.path)?;
        if !held.is(&file.metadata()?) {
            return Err(io::Error::other("the file was replaced or changed while it was not read"));
        }
        self.lock().insert(held, Which::Found);
        Ok(file)
    }

    fn open_regular(&self, path: &PathBuf) -> io::Result<fs::File> {
        if !fs::metadata(path)?.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let most = most();
        // Each is looked at once, and those that come meanwhile make room for themselves.
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

    /// Closes the one that was read least recently, if there are so many. Says whether there were.
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
            // It is being read.
            Err(TryLockError::WouldBlock) => self.lock().insert(&held, which),
            Err(TryLockError::Poisoned(_)) => {}
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Ranks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone, Copy)]
enum Which {
    Found,
    Lost,
}

impl Ranks {
    fn insert(&mut self, held: &Arc<Held>, which: Which) {
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

    /// It is being read.
    fn touch(&mut self, held: &Arc<Held>) {
        let rank = held.rank.load(Relaxed);
        if self.found.remove(&rank).is_some() {
            self.insert(held, Which::Found);
        } else if self.lost.remove(&rank).is_some() {
            self.insert(held, Which::Lost);
        }
    }

    fn take_least(&mut self, most: usize) -> Option<(Arc<Held>, Which)> {
        let (ranks, which) = match self {
            Ranks { found, .. } if found.len() >= most => (found, Which::Found),
            Ranks { lost, .. } if lost.len() >= most => (lost, Which::Lost),
            _ => return None,
        };
        let (_, held) = ranks.pop_first()?;
        held.rank.store(NONE, Relaxed);
        Some((held, which))
    }
}

/// ReopenSignal each time, because it can be changed while the process runs (prlimit(1)).
fn most() -> usize {
    let quarter = getrlimit(Resource::Nofile).current.map_or(u64::MAX, |limit| limit / 4);
    usize::try_from(quarter).unwrap_or(usize::MAX).max(LEAST)
}
