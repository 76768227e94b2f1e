//! What a response says about a file, with the content of a small one. It is kept for a moment, and used only after the file was
//! found again, unchanged.

use std::collections::HashMap;
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::body::Bytes;
use hyper::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
    LAST_MODIFIED, VARY,
};

use super::Representation;
use super::encodings::Encoding;
use super::path::RequestPath;
use super::validators::Validators;
use crate::open_files::Found;

/// The largest content that is kept, in bytes.
const SMALL: u64 = 16 * 1024;
/// The limit of the contents and paths of a table in bytes.
const MOST: usize = 4 << 20;
/// About what is kept of a file besides its content and its path, in bytes.
const OVERHEAD: usize = 512;
/// How long a content is used. A program that maps a file into its memory can change it without a change of its times.
const FRESH: Duration = Duration::from_secs(1);
/// Coarsest resolution of file times in seconds. Two changes within it may leave the same time.
const COARSE: i64 = 2;

#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) validators: Validators,
    /// The headers of a response with the whole file.
    pub(super) headers: HeaderMap,
    pub(super) content: Option<Bytes>,
}

impl Prepared {
    /// Describes a file, without its content.
    pub(super) fn of(path: &RequestPath<'_>, chosen: &Representation<'_>) -> Prepared {
        let version = &chosen.found.version;
        let (validators, mut headers) = (Validators::of(version), HeaderMap::with_capacity(8));
        headers.insert(CONTENT_TYPE, path.media_type());
        headers.insert(CONTENT_LENGTH, version.size.into());
        if let Some(encoding) = chosen.encoding {
            headers.insert(CONTENT_ENCODING, encoding.name());
        }
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        headers.insert(ETAG, validators.tag.clone());
        if let Some(modified) = &validators.modified {
            headers.insert(LAST_MODIFIED, modified.clone());
        }
        Prepared { validators, headers, content: None }
    }
}

/// How many tables there are, so that workers rarely share one: shared counters cost more than all else here.
const TABLES: usize = 16;

/// The files that were served lately.
#[derive(Debug, Default)]
pub(super) struct Kept([Table; TABLES]);

/// Aligned to a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Table(Mutex<Files>);

#[derive(Debug, Default)]
struct Files {
    /// By the bytes of the path, because paths are slow to compare.
    by_path: HashMap<OsString, File>,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct File {
    encoding: Option<Encoding>,
    state: State,
    since: Instant,
    prepared: Arc<Prepared>,
}

/// Device, inode and size, and the times of the last changes of content and of metadata. A program can set only the first of them
/// back.
type State = (u64, u64, u64, (i64, u32), (i64, u32));

fn state(found: &Found) -> State {
    let version = &found.version;
    (version.device, version.inode, version.size, version.modified, found.changed)
}

impl Kept {
    /// Returns the table of this thread.
    fn own(&self) -> &Table {
        let mut hasher = DefaultHasher::new();
        thread::current().id().hash(&mut hasher);
        &self.0[usize::try_from(hasher.finish() % TABLES as u64).unwrap_or_default()]
    }

    pub(super) fn get(&self, chosen: &Representation<'_>) -> Option<Arc<Prepared>> {
        let Representation { path, found, encoding } = chosen;
        if found.version.size > SMALL {
            return None;
        }
        let files = self.own().lock();
        let file = files.by_path.get(path.as_os_str())?;
        let is_same = (file.encoding, file.state) == (*encoding, state(found));
        (is_same && file.since.elapsed() < FRESH).then(|| Arc::clone(&file.prepared))
    }

    /// Keeps a small file for this worker, or for all of them, unless a further change could leave it the same times.
    pub(super) fn put(
        &self,
        chosen: &Representation<'_>,
        prepared: Arc<Prepared>,
        content: &Bytes,
        for_all: bool,
    ) {
        let Representation { path, found, encoding } = chosen;
        let last = found.version.modified.0.max(found.changed.0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        if found.version.size > SMALL || last.saturating_add(COARSE) >= now.try_into().unwrap_or(i64::MAX) {
            return;
        }
        // A copy, because the buffer of a response counts as in use.
        let content = Some(Bytes::copy_from_slice(content));
        let prepared = Arc::new(Prepared { content, ..Arc::unwrap_or_clone(prepared) });
        let file = File { encoding: *encoding, state: state(found), since: Instant::now(), prepared };
        let tables = if for_all { &self.0[..] } else { std::slice::from_ref(self.own()) };
        tables.iter().for_each(|table| table.lock().put(path, file.clone()));
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files {
    fn put(&mut self, path: &Path, file: File) {
        let content = file.prepared.content.as_ref().map_or(0, Bytes::len);
        let bytes = OVERHEAD + path.as_os_str().len() + content;
        if self.bytes + bytes > MOST {
            *self = Files::default();
        }
        // A file that is replaced here counts twice until all are removed.
        self.bytes += bytes;
        self.by_path.insert(path.into(), file);
    }
}
