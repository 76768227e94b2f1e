//! The cache of listings, limited in pages and in bytes. Each page has the state of its directory, which tells whether the page
//! is still right.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hyper::body::Bytes;

use crate::file_state::FileState;

const PAGES: usize = 64;
/// Limit of all pages in bytes. A page of 10,000 names of usual length has 1 MB.
const BYTES: usize = 32 << 20;
/// Lifetime of a page whose changes the state of its directory may miss.
const BRIEFLY: Duration = Duration::from_secs(1);
/// Longest lifetime of a page, because some file systems (FUSE, network) do not update the time of a directory.
const LONGEST: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Made {
    dir: PathBuf,
    state: FileState,
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
    pub(super) fn get(&self, title: &str, dir: &Path, state: &FileState) -> Option<Bytes> {
        let made = self.pages.get(title).filter(|made| made.dir == dir && made.state == *state)?;
        let most = if made.lasts { LONGEST } else { BRIEFLY };
        (made.at.elapsed() < most).then(|| made.page.clone())
    }

    /// Adds a page, and removes the oldest ones to make room. `lasts` means that the state reveals every change of the page.
    pub(super) fn put(&mut self, title: String, dir: PathBuf, state: FileState, lasts: bool, page: Bytes) {
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
        self.pages.insert(title, Made { dir, state, at: Instant::now(), lasts, page });
    }

    fn remove(&mut self, title: &str) {
        if let Some(made) = self.pages.remove(title) {
            self.bytes -= made.page.len();
        }
    }
}
