//! The control directory: each server has one for the sockets of its generations, which no other user may enter. This module
//! decides, for the server and for its clients, where the directory is and whether it can be trusted.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::geteuid;

use crate::error::plain;

/// The control directory of one server.
#[derive(Debug, Clone)]
pub(crate) struct RuntimeDir {
    pub(crate) path: PathBuf,
    /// The levels of the path that this program makes, each inside the one before; `None` if a flag named the directory.
    made: Option<Vec<PathBuf>>,
}

impl RuntimeDir {
    pub(crate) fn named(dir: &Path) -> RuntimeDir {
        RuntimeDir { path: dir.to_owned(), made: None }
    }

    /// The candidates for a server with this key and without `--control`, the best one first. A successor uses the directory of
    /// its predecessor, even if its first address differs.
    pub(crate) fn candidates(key: &OsStr, predecessor: Option<u32>) -> Vec<RuntimeDir> {
        let bases = bases();
        let of_predecessor = predecessor.and_then(|pid| control_dir_of(&bases, pid));
        let candidates = bases.iter().map(|base| RuntimeDir::below(base, key));
        of_predecessor.into_iter().chain(candidates).collect()
    }

    fn below(base: &Path, key: &OsStr) -> RuntimeDir {
        let mut levels = vec![base.join("handover"), base.join("handover").join(key)];
        if base == temporary() {
            levels.insert(0, base.to_owned());
        }
        RuntimeDir { path: levels[levels.len() - 1].clone(), made: Some(levels) }
    }

    pub(crate) fn is_default(&self) -> bool {
        self.made.is_some()
    }

    /// Makes the directory if it is missing, and refuses one that other users could enter.
    pub(crate) fn prepare(&self) -> Result<(), Problem> {
        for dir in self.made.as_deref().unwrap_or_default() {
            create(dir).map_err(|error| Problem::new("create", dir, &error))?;
            check_trusted(dir, fs::symlink_metadata(dir))?;
        }
        if self.made.is_none() {
            let missing: Vec<_> = self.path.ancestors().take_while(|dir| !dir.exists()).collect();
            for dir in missing.into_iter().rev().filter(|dir| !dir.as_os_str().is_empty()) {
                create(dir).map_err(|error| Problem::new("create", &self.path, &error))?;
            }
            check_trusted(&self.path, fs::metadata(&self.path))?;
        }
        Ok(())
    }

    /// Checks, without making anything, that the directory's owner can trust it, or that it could be made if it is missing. The
    /// owner need not be the user of this process: root may check the config of a service that runs as another user.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        match self.path.ancestors().find(|dir| dir.exists()) {
            Some(dir) if dir == self.path => {
                let about = fs::metadata(dir);
                check_owner(about.as_ref().map_or(0, MetadataExt::uid), dir, about)
            }
            Some(dir) if !dir.is_dir() => {
                Err(Problem::new("create", &self.path, &io::ErrorKind::NotADirectory.into()))
            }
            _ => Ok(()),
        }
    }

    /// Removes the directory if this program made it and it is empty.
    pub(crate) fn tidy(&self) {
        if self.is_default() {
            // Fails if another generation still has its socket there.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Finds the control directory in which the live process `pid` has its socket.
fn control_dir_of(bases: &[PathBuf], pid: u32) -> Option<RuntimeDir> {
    let socket = format!("{pid}.sock");
    // A stale socket of a dead process that had the same pid refuses the connection.
    let is_home = |dir: &PathBuf| UnixStream::connect(dir.join(&socket)).is_ok();
    bases.iter().find_map(|base| {
        let dir = control_dirs(base).into_iter().find(is_home)?;
        Some(RuntimeDir::below(base, dir.file_name()?))
    })
}

/// The control directories below a base.
pub fn control_dirs(base: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(base.join("handover")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// The reason why the control socket cannot be opened.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) text: String,
    /// Whether the disk or the quota is full, which is no reason to refuse to start.
    pub(crate) is_full: bool,
}

impl Problem {
    pub(crate) fn new(verb: &str, path: &Path, error: &io::Error) -> Problem {
        Problem {
            text: format!("cannot {verb} {}: {}", path.display(), advised(&plain(error))),
            is_full: matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded),
        }
    }

    pub(crate) fn with(path: &Path, cause: &str) -> Problem {
        let text = format!("cannot use the control directory {}: {}", path.display(), advised(cause));
        Problem { text, is_full: false }
    }
}

fn advised(cause: &str) -> String {
    format!("{cause}; choose another directory with --control, or --no-control")
}

/// Makes a directory with mode 0700, whatever the umask.
fn create(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    // The mode is changed through a descriptor, so that no other file can get it if the path is replaced meanwhile.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = fs::File::from(rustix::fs::open(dir, flags, Mode::empty())?);
    let about = held.metadata()?;
    if about.mode() & 0o700 != 0o700 && about.uid() == geteuid().as_raw() {
        let held = format!("/proc/self/fd/{}", held.as_raw_fd());
        fs::set_permissions(held, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn check_trusted(dir: &Path, metadata: io::Result<fs::Metadata>) -> Result<(), Problem> {
    check_owner(geteuid().as_raw(), dir, metadata)
}

fn check_owner(me: u32, dir: &Path, metadata: io::Result<fs::Metadata>) -> Result<(), Problem> {
    let metadata = metadata.map_err(|error| Problem::new("look at", dir, &error))?;
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    let cause = if metadata.is_symlink() {
        "it is a symbolic link, which another user may have made".to_owned()
    } else if !metadata.is_dir() {
        "it is not a directory".to_owned()
    } else if owner != me {
        format!("it belongs to uid {owner}, but this process runs as uid {me}")
    } else if mode & 0o077 != 0 {
        format!("others may enter it (mode {mode:o}); `chmod 700` it")
    } else {
        return Ok(());
    };
    Err(Problem::with(dir, &cause))
}

/// Returns a suffix that cannot be guessed, for the name of a temporary file or of a service.
pub fn random_suffix() -> String {
    // `RandomState` takes its keys from the kernel's random numbers.
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

/// Returns whether a file has capabilities (capabilities(7)), which a copy of the file does not get.
pub fn has_capabilities(file: &Path) -> bool {
    rustix::fs::getxattr(file, c"security.capability", &mut [0; 64]).is_ok_and(|length| length > 0)
}

/// The bases that may hold control directories, in the order of preference.
pub fn bases() -> Vec<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // If systemd sets this variable, no other base is used. It may name several directories (systemd.exec(5)).
    if let Some(dirs) = var("RUNTIME_DIRECTORY") {
        let first = dirs.to_string_lossy().split(':').next().map(PathBuf::from);
        return first.into_iter().collect();
    }
    let uid = geteuid();
    let of_session = PathBuf::from(format!("/run/user/{}", uid.as_raw()));
    let of_system = if uid.is_root() { Some(PathBuf::from("/run")) } else { None };
    // Root does not use /run/user/0: it is removed at logout, while a server started in that session goes on.
    let of_session = of_system.or_else(|| of_session.is_dir().then_some(of_session));
    var("XDG_RUNTIME_DIR").into_iter().chain(of_session).chain([temporary()]).collect()
}

/// The bases of other users, which root may search.
pub fn bases_of_other_users() -> Vec<PathBuf> {
    let below = |dir: &str| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let temporary = below("/tmp")
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("handover-")));
    // /run also covers the directories that systemd makes: RuntimeDirectory=site is /run/site.
    below("/run/user")
        .chain(below("/run"))
        .chain(temporary)
        .filter(|base| base.join("handover").is_dir())
        .collect()
}

fn temporary() -> PathBuf {
    PathBuf::from(format!("/tmp/handover-{}", geteuid().as_raw()))
}

/// The inode number of our network namespace. Each namespace can have its own server on the same address.
pub fn network_namespace() -> Option<u64> {
    fs::metadata("/proc/self/ns/net").map(|namespace| namespace.ino()).ok()
}

/// Formats an address as a directory name: `127.0.0.1-8080`, `__1-8080`.
pub fn key(address: SocketAddr) -> String {
    let ip = match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
        _ => address.ip().to_string(),
    };
    format!("{}-{}", ip.replace(':', "_"), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_valid_file_name() {
        let names =
            ["127.0.0.1:80", "127.0.0.1:8080", "[::1]:80", "[::]:80", "[fe80::1%3]:80", "[fe80::1]:80"]
                .map(|text| key(text.parse().expect("literal")));
        assert_eq!(names[2], "__1-80");
        for (i, name) in names.iter().enumerate() {
            assert!(!name.contains([':', '/', '[']), "{name}");
            assert!(!names[..i].contains(name), "{name}");
        }
    }
}
