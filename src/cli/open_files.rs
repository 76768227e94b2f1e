//! The backend with which tower-http reads the files of ROOT. A client that stops reading cannot hold a descriptor: the table
//! closes the file when another one needs the descriptor, and opens it again for the next read. Nothing here blocks a thread of
//! the runtime.

use std::fs::{self, Metadata};
use std::io::{self, SeekFrom};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tokio::task::{JoinHandle, spawn_blocking};
use tower_http::services::fs::{Backend, File};

mod table;

use table::{OpenedFile, Table};

/// The open files; regular files only. Opening a FIFO would block a thread until a writer comes, possibly for ever.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files(Arc<Table>);

/// From this number of responses in flight on, each buffers less.
const MANY: usize = 128;
/// Above this number of responses in flight, each buffers as little as possible.
const VERY_MANY: usize = 1024;

impl Files {
    /// Returns the chunk size for a response that begins now.
    pub(crate) fn chunk(&self) -> usize {
        match under_way(&self.0) {
            ..MANY => 64 * 1024,
            MANY..=VERY_MANY => 16 * 1024,
            _ => 8 * 1024,
        }
    }
}

/// Returns roughly the number of responses in flight: each has a reference to the table, and some have two.
fn under_way(table: &Arc<Table>) -> usize {
    Arc::strong_count(table)
}

impl Backend for Files {
    type File = OpenFile;
    type Metadata = Metadata;
    type OpenFuture = Pin<Box<dyn Future<Output = io::Result<OpenFile>> + Send>>;
    type MetadataFuture = Pin<Box<dyn Future<Output = io::Result<Metadata>> + Send>>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        let table = Arc::clone(&self.0);
        Box::pin(async {
            spawn_blocking(move || {
                let held = table.open(path)?;
                Ok(OpenFile { held, table, position: 0, reading: None, buffer: Vec::new() })
            })
            .await?
        })
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        Box::pin(async { spawn_blocking(move || fs::metadata(path)).await? })
    }
}

/// A file that is being served, up to the length that it had when it was first opened, which is the announced Content-Length.
#[derive(Debug)]
pub(crate) struct OpenFile {
    held: Arc<OpenedFile>,
    table: Arc<Table>,
    position: u64,
    reading: Option<JoinHandle<io::Result<Vec<u8>>>>,
    /// Reused for the next read: allocating a buffer for each read costs a fifth of the throughput.
    buffer: Vec<u8>,
}

impl File for OpenFile {
    type Metadata = Metadata;
    type MetadataFuture<'a> = std::future::Ready<io::Result<Metadata>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        std::future::ready(Ok(self.held.metadata.clone()))
    }
}

impl AsyncRead for OpenFile {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let left = this.held.metadata.len().saturating_sub(this.position);
        let most = buf.remaining().min(usize::try_from(left).unwrap_or(usize::MAX));
        if most == 0 {
            return Poll::Ready(Ok(()));
        }
        let reading = this.reading.get_or_insert_with(|| {
            let (held, table, position) = (Arc::clone(&this.held), Arc::clone(&this.table), this.position);
            let buffer = std::mem::take(&mut this.buffer);
            spawn_blocking(move || table.read(&held, position, most, buffer))
        });
        let read = ready!(Pin::new(reading).poll(cx));
        this.reading = None;
        let read = read??;
        // A read may fill the spare capacity of the buffer beyond `most`.
        let length = read.len().min(most);
        buf.put_slice(&read[..length]);
        this.position += length as u64;
        if under_way(&this.table) <= VERY_MANY {
            this.buffer = read;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for OpenFile {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(from) => self.held.metadata.len().checked_add_signed(from),
            SeekFrom::Current(from) => self.position.checked_add_signed(from),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        self.reading = None;
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position))
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.table.forget(&self.held);
    }
}
