//! The kinds of releases, and the place where they are installed.

use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy)]
pub enum Release {
    Good,
    /// The playground with this fault.
    Faulty(&'static str),
    Missing,
    NotExecutable,
    NotAProgram,
}

/// The service's program and the files that may replace it.
pub(super) struct Files {
    good: PathBuf,
    dir: PathBuf,
}

impl Files {
    pub(super) fn new(good: &Path, dir: &Path) -> Files {
        let files = Files { good: good.to_owned(), dir: dir.to_owned() };
        std::fs::write(files.path("text"), "").expect("writable");
        std::fs::write(files.path("empty-program"), "").expect("writable");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(files.path("empty-program"), mode).expect("it is our file");
        files
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn put(&self, release: Release) {
        let fault = if let Release::Faulty(fault) = release { fault } else { "" };
        std::fs::write(self.path("fault"), fault).expect("writable");
        let program = match release {
            Release::Good | Release::Faulty(_) => self.good.clone(),
            Release::Missing => self.path("missing"),
            Release::NotExecutable => self.path("text"),
            Release::NotAProgram => self.path("empty-program"),
        };
        std::os::unix::fs::symlink(program, self.path("draft")).expect("writable");
        std::fs::rename(self.path("draft"), self.path("server")).expect("writable");
    }
}
