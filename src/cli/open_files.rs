//! Opens and reads the files of ROOT. What the kernel has in memory is opened and read at once; everything else may block, and
//! belongs on a thread for blocking work. A client that stops reading holds no descriptor: a small file is read whole and
//! closed, and a larger one is closed when another file needs its descriptor, and opened again for the next read.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::body::Bytes;
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2, retry_on_intr};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::file_state::FileState;

mod buffers;
mod find;
mod sending;
mod table;

use buffers::Buffers;
pub(crate) use find::Found;
use find::{FileSystem, FileSystems};
pub(crate) use sending::{Segment, Sending};
use table::{HeldFile, Table};

/// How many threads may wait for file systems that may never answer. There are 512 threads in all.
const FOREIGN: usize = 128;

/// How long an operation may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// It may not block. It fails with `WouldBlock` instead.
    Cached,
    /// It may wait for a disk. It fails with `CrossesDevices` where the way leaves the file system of ROOT.
    Blocking,
    /// It may wait for a network or another process, possibly for ever.
    Foreign,
}

/// The files of one ROOT.
#[derive(Debug, Clone)]
pub(crate) struct Files(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    systems: FileSystems,
    table: Table,
    buffers: Buffers,
    foreign: Arc<Semaphore>,
}

impl Files {
    pub(crate) fn new(root: PathBuf) -> Files {
        let foreign = Arc::new(Semaphore::new(FOREIGN));
        let (systems, table, buffers) =
            (FileSystems::default(), Table::new(root.clone()), Buffers::default());
        Files(Arc::new(Inner { root, systems, table, buffers, foreign }))
    }

    /// Finds a regular file or a directory.
    ///
    /// # Errors
    ///
    /// `NotFound` also for everything else that has a name.
    pub(crate) fn find(&self, path: &Path, access: Access) -> io::Result<Found> {
        let find = || Found::at(&self.0.root, path, access);
        if access == Access::Cached { find() } else { self.0.table.with_room(find) }
    }

    /// Returns whether a file is on a file system that has to be asked, so that nothing of it may be kept.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if so and `access` is [`Access::Cached`]: then not even its version can be relied on.
    pub(crate) fn is_foreign(&self, found: &Found, access: Access) -> io::Result<bool> {
        Ok(self.0.systems.of(found, access)? == FileSystem::Foreign)
    }

    /// Returns how many bytes a response may hold in memory now.
    pub(crate) fn most(&self) -> usize {
        self.0.buffers.most()
    }

    /// Reads a part of a file.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` if the file has changed since it was found, unless it has only grown and `may_grow`.
    pub(crate) fn read(
        &self,
        found: &Found,
        path: &Path,
        part: Range<u64>,
        access: Access,
        may_grow: bool,
    ) -> io::Result<Bytes> {
        let (file_system, file) = self.open(found, path, access)?;
        let length = usize::try_from(part.end - part.start).unwrap_or(usize::MAX);
        let mut buffer = self.0.buffers.take(length);
        let mut read = 0;
        while read < length {
            let rest = &mut buffer.bytes()[read..];
            match read_at(&file, part.start + read as u64, rest, file_system, access)? {
                0 => return Err(changed()),
                n => read += n,
            }
        }
        let (before, now) = (found.state.version, FileState::of(&file)?.version);
        if now != before && !(may_grow && now.size > before.size) {
            return Err(changed());
        }
        Ok(buffer.into())
    }

    /// Returns these segments of a file, to be read when the client takes them.
    pub(crate) fn send(
        &self,
        found: &Found,
        path: &Path,
        segments: Vec<Segment>,
        access: Access,
    ) -> io::Result<Sending> {
        let (file_system, file) = self.open(found, path, access)?;
        if access != Access::Cached {
            self.0.table.make_room();
        }
        let held = self
            .0
            .table
            .insert_new(HeldFile::new(file, path.to_owned(), file_system, found.state.version), access)?;
        Ok(Sending::new(self.clone(), held, segments.into()))
    }

    fn open(&self, found: &Found, path: &Path, access: Access) -> io::Result<(FileSystem, File)> {
        let file_system = self.0.systems.of(found, access)?;
        let open = || found.open(path, access);
        let file = if access == Access::Cached { open()? } else { self.0.table.with_room(open)? };
        Ok((file_system, file))
    }

    /// Does something on a thread for blocking work. Only some threads do [`Access::Foreign`].
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        access: Access,
        work: impl FnOnce(Access) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let turn = match access {
            Access::Foreign => Arc::clone(&self.0.foreign).acquire_owned().await.ok(),
            Access::Cached | Access::Blocking => None,
        };
        let working = spawn_blocking(move || {
            // Held while the thread works, even if the request is dropped meanwhile.
            let _turn = turn;
            work(access)
        });
        working.await?
    }
}

fn would_block() -> io::Error {
    io::ErrorKind::WouldBlock.into()
}

fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, "the file has changed")
}

/// Reads at most as many bytes as fit; 0 at the end of the file.
fn read_at(
    file: &File,
    from: u64,
    into: &mut [u8],
    file_system: FileSystem,
    access: Access,
) -> io::Result<usize> {
    if access != Access::Cached || file_system == FileSystem::Memory {
        return Ok(retry_on_intr(|| pread(file, &mut *into, from))?);
    }
    if file_system != FileSystem::Disk {
        return Err(would_block());
    }
    match preadv2(file, &mut [IoSliceMut::new(into)], from, ReadWriteFlags::NOWAIT) {
        Ok(n) => Ok(n),
        Err(Errno::IO) => Err(Errno::IO.into()),
        Err(_) => Err(would_block()),
    }
}
