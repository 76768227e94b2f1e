//! Pages that were made, each with what tells whether it is still right. So many, and so many bytes of them.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::body::Bytes;

const PAGES: usize = 64;
/// A page of 10,000 names of usual length has 1 MB.
const BYTES: usize = 32 << 20;
/// How long a page is used of which nothing tells when another one is right.
const BRIEFLY: Duration = Duration::from_secs(1);
/// No page is used for longer, because some file systems (FUSE, network) do not change the time of a directory.
const LONGEST: Duration = Duration::from_secs(10);
/// Times of files are that coarse, or less. A change soon after another may leave the same time.
const COARSE: i64 = 2;

/// What changes when a name in a directory does. It does not when the target of a symbolic link does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Version {
    inode: (u64, u64),
    modified: (i64, i64),
    /// It cannot be set back.
    changed: (i64, i64),
}

impl Version {
    pub(super) fn of(dir: &Path) -> io::Result<Version> {
        let about = fs::metadata(dir)?;
        Ok(Version {
            inode: (about.dev(), about.ino()),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
        })
    }

    /// Whether the next change gives it another time.
    pub(super) fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let last = self.modified.0.max(self.changed.0);
        i64::try_from(now).is_ok_and(|now| last.saturating_add(COARSE) < now)
    }
}

#[derive(Debug)]
struct Made {
    dir: PathBuf,
    version: Version,
    at: Instant,
    lasts: bool,
    page: Bytes,
}

/// By the path below ROOT.
#[derive(Debug, Default)]
pub(super) struct Cache {
    pages: HashMap<String, Made>,
    bytes: usize,
}

impl Cache {
    pub(super) fn get(&self, title: &str, dir: &Path, version: &Version) -> Option<Bytes> {
        let made = self.pages.get(title).filter(|made| made.dir == dir && made.version == *version)?;
        let most = if made.lasts { LONGEST } else { BRIEFLY };
        (made.at.elapsed() < most).then(|| made.page.clone())
    }

    /// `lasts` if only another version of the directory makes another page.
    pub(super) fn put(&mut self, title: String, dir: PathBuf, version: Version, lasts: bool, page: Bytes) {
        self.remove(&title);
        if page.len() > BYTES {
            return;
        }
        while self.pages.len() >= PAGES || self.bytes + page.len() > BYTES {
            let oldest = self.pages.iter().min_by_key(|(_, made)| made.at).map(|(title, _)| title.clone());
            let Some(oldest) = oldest else { break };
            self.remove(&oldest);
        }
        self.bytes += page.len();
        self.pages.insert(title, Made { dir, version, at: Instant::now(), lasts, page });
    }

    fn remove(&mut self, title: &str) {
        if let Some(made) = self.pages.remove(title) {
            self.bytes -= made.page.len();
        }
    }
}
