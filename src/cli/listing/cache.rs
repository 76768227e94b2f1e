//! The cache of listings, limited in pages and in bytes. Each page has the version of its directory, which tells whether the page
//! is still right.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::body::Bytes;

const PAGES: usize = 64;
/// Limit of all pages in bytes. A page of 10,000 names of usual length has 1 MB.
const BYTES: usize = 32 << 20;
/// Lifetime of a page whose changes the version may miss.
const BRIEFLY: Duration = Duration::from_secs(1);
/// Longest lifetime of a page, because some file systems (FUSE, network) do not update the time of a directory.
const LONGEST: Duration = Duration::from_secs(10);
/// Coarsest resolution of file times in seconds. Two changes within it may leave the same time.
const COARSE: i64 = 2;

/// The version of a directory: differs after a name was added or removed, but not after the target of a symbolic link changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Version {
    inode: (u64, u64),
    modified: (i64, i64),
    /// Unlike `modified`, a program cannot set the ctime back.
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

    /// Returns whether the next change is certain to give the directory another time.
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

/// The pages by path below ROOT.
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

    /// Adds a page, and removes the oldest ones to make room. `lasts` means that the version reveals every change of the page.
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
