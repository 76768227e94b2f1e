//! What a response says about a file, with the content of a small one. It is kept for a moment, and used only after the file was
//! found again, unchanged.

use std::collections::HashMap;
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{slice, thread};

use hyper::body::Bytes;
use hyper::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
    LAST_MODIFIED, VARY,
};

use super::Representation;
use super::encodings::Encoding;
use super::path::RequestPath;
use super::validators::Validators;
use crate::file_state::FileState;

/// The largest content that is kept, in bytes.
const SMALL: u64 = 16 * 1024;
/// The limit of the contents and paths of a table in bytes.
const MOST: usize = 4 << 20;
/// About what is kept of a file besides its content and its path, in bytes.
const OVERHEAD: usize = 512;
/// How long a content is used. A program that maps a file into its memory can change it without a change of its times.
const FRESH: Duration = Duration::from_secs(1);
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
        let version = &chosen.found.state.version;
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

/// How many shards there are, so that workers rarely share one: shared counters cost more than all else here.
const SHARDS: usize = 16;

/// The files that were served lately.
#[derive(Debug, Default)]
pub(super) struct Cache([Shard; SHARDS]);

/// Aligned to a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    /// By the bytes of the path, because paths are slow to compare.
    by_path: HashMap<OsString, Entry>,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct Entry {
    encoding: Option<Encoding>,
    state: FileState,
    since: Instant,
    prepared: Arc<Prepared>,
}

impl Cache {
    /// Returns the shard of this thread.
    fn own(&self) -> &Shard {
        let mut hasher = DefaultHasher::new();
        thread::current().id().hash(&mut hasher);
        &self.0[usize::try_from(hasher.finish() % SHARDS as u64).unwrap_or_default()]
    }

    pub(super) fn get(&self, chosen: &Representation<'_>) -> Option<Arc<Prepared>> {
        if !is_small(chosen) {
            return None;
        }
        let entries = self.own().lock();
        let entry = entries.by_path.get(chosen.path.as_os_str())?;
        let is_same = (entry.encoding, entry.state) == (chosen.encoding, chosen.found.state);
        (is_same && entry.since.elapsed() < FRESH).then(|| Arc::clone(&entry.prepared))
    }

    /// Keeps a small file for this worker, or for all of them, unless a further change could leave it the same times.
    pub(super) fn put(
        &self,
        chosen: &Representation<'_>,
        prepared: Arc<Prepared>,
        content: &Bytes,
        for_all: bool,
    ) {
        let state = chosen.found.state;
        if !is_small(chosen) || !state.is_settled() {
            return;
        }
        // A copy, because the buffer of a response counts as in use.
        let content = Some(Bytes::copy_from_slice(content));
        let prepared = Arc::new(Prepared { content, ..Arc::unwrap_or_clone(prepared) });
        let entry = Entry { encoding: chosen.encoding, state, since: Instant::now(), prepared };
        let shards = if for_all { &self.0[..] } else { slice::from_ref(self.own()) };
        shards.iter().for_each(|shard| shard.lock().put(&chosen.path, entry.clone()));
    }
}

fn is_small(chosen: &Representation<'_>) -> bool {
    chosen.found.state.version.size <= SMALL
}

impl Shard {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn put(&mut self, path: &Path, entry: Entry) {
        let content = entry.prepared.content.as_ref().map_or(0, Bytes::len);
        let bytes = OVERHEAD + path.as_os_str().len() + content;
        if self.bytes + bytes > MOST {
            *self = Entries::default();
        }
        // A file that is replaced here counts twice until all are removed.
        self.bytes += bytes;
        self.by_path.insert(path.into(), entry);
    }
}
