//! Where the sockets of a server's generations lie: in a directory of its own that no other user may enter. It decides where
//! that is, for the server and for its clients, and whether it can be trusted.

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

/// The directory of one server.
#[derive(Debug, Clone)]
pub(crate) struct RuntimeDir {
    pub(crate) path: PathBuf,
    /// Named by a flag. Otherwise its levels that are ours to make: from the second one on they are inside of the first.
    made: Option<Vec<PathBuf>>,
}

impl RuntimeDir {
    pub(crate) fn named(dir: &Path) -> RuntimeDir {
        RuntimeDir { path: dir.to_owned(), made: None }
    }

    /// Where a server with this key is found that was told nothing, the best place first. A successor goes where its
    /// predecessor is, also when its first address is another one.
    pub(crate) fn usual(key: &OsStr, predecessor: Option<u32>) -> Vec<RuntimeDir> {
        let bases = bases();
        let of_predecessor = predecessor.and_then(|pid| home_of(&bases, pid));
        let usual = bases.iter().map(|base| RuntimeDir::below(base, key));
        of_predecessor.into_iter().chain(usual).collect()
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

    /// Makes the directory if it is missing, and refuses one that others could enter.
    pub(crate) fn prepare(&self) -> Result<(), Problem> {
        for dir in self.made.as_deref().unwrap_or_default() {
            create(dir).map_err(|error| Problem::new("create", dir, &error))?;
            trusted(dir, fs::symlink_metadata(dir))?;
        }
        if self.made.is_none() {
            let missing: Vec<_> = self.path.ancestors().take_while(|dir| !dir.exists()).collect();
            for dir in missing.into_iter().rev().filter(|dir| !dir.as_os_str().is_empty()) {
                create(dir).map_err(|error| Problem::new("create", &self.path, &error))?;
            }
            trusted(&self.path, fs::metadata(&self.path))?;
        }
        Ok(())
    }

    /// Whether a directory that is there can be trusted by its owner, who need not be the one that checks, or one can be
    /// made where there is none.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        match self.path.ancestors().find(|dir| dir.exists()) {
            Some(dir) if dir == self.path => {
                let about = fs::metadata(dir);
                of_user(about.as_ref().map_or(0, MetadataExt::uid), dir, about)
            }
            Some(dir) if !dir.is_dir() => {
                Err(Problem::new("create", &self.path, &io::ErrorKind::NotADirectory.into()))
            }
            _ => Ok(()),
        }
    }

    /// Takes an empty directory away that it has made.
    pub(crate) fn tidy(&self) {
        if self.is_default() {
            // Another generation may be in it.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Where a process that lives has its socket.
fn home_of(bases: &[PathBuf], pid: u32) -> Option<RuntimeDir> {
    let socket = format!("{pid}.sock");
    // One that is left of a process that had the same pid refuses.
    let is_home = |dir: &PathBuf| UnixStream::connect(dir.join(&socket)).is_ok();
    bases.iter().find_map(|base| {
        let dir = homes(base).into_iter().find(is_home)?;
        Some(RuntimeDir::below(base, dir.file_name()?))
    })
}

/// The directories of servers below a base.
pub fn homes(base: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(base.join("handover")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Why there can be no control socket.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) text: String,
    /// It is not the directory's fault, and no reason to refuse a release.
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

/// Makes a directory that its owner may use, whatever the umask.
fn create(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    // Held open, so that nothing else gets the mode.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = fs::File::from(rustix::fs::open(dir, flags, Mode::empty())?);
    let about = held.metadata()?;
    if about.mode() & 0o700 != 0o700 && about.uid() == geteuid().as_raw() {
        let held = format!("/proc/self/fd/{}", held.as_raw_fd());
        fs::set_permissions(held, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn trusted(dir: &Path, metadata: io::Result<fs::Metadata>) -> Result<(), Problem> {
    of_user(geteuid().as_raw(), dir, metadata)
}

fn of_user(me: u32, dir: &Path, metadata: io::Result<fs::Metadata>) -> Result<(), Problem> {
    let metadata = metadata.map_err(|error| Problem::new("look at", dir, &error))?;
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    let cause = if metadata.is_symlink() {
        "it is a symbolic link, which another user may have made".to_owned()
    } else if !metadata.is_dir() {
        "it is no directory".to_owned()
    } else if owner != me {
        format!("it belongs to uid {owner}, and this is uid {me}")
    } else if mode & 0o077 != 0 {
        format!("others may enter it (mode {mode:o}); `chmod 700` it")
    } else {
        return Ok(());
    };
    Err(Problem::with(dir, &cause))
}

/// The end of a name that cannot be guessed, for a draft beside a file.
pub fn secret() -> String {
    // The keys of a hash map come from the kernel's random numbers.
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

/// Whether a file has capabilities (capabilities(7)), which belong to the file itself and to no copy of it.
pub fn has_capabilities(file: &Path) -> bool {
    rustix::fs::getxattr(file, c"security.capability", &mut [0; 64]).is_ok_and(|length| length > 0)
}

/// Where the directories of servers may be, the usual one first.
pub fn bases() -> Vec<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // systemd sets it, and then nothing else is meant. It may name several directories (systemd.exec(5)).
    if let Some(dirs) = var("RUNTIME_DIRECTORY") {
        let first = dirs.to_string_lossy().split(':').next().map(PathBuf::from);
        return first.into_iter().collect();
    }
    let uid = geteuid();
    let of_session = PathBuf::from(format!("/run/user/{}", uid.as_raw()));
    let of_system = if uid.is_root() { Some(PathBuf::from("/run")) } else { None };
    // Root's session ends and takes its directory along, while a server that was started in it goes on.
    let of_session = of_system.or_else(|| of_session.is_dir().then_some(of_session));
    var("XDG_RUNTIME_DIR").into_iter().chain(of_session).chain([temporary()]).collect()
}

/// Where the servers of others keep theirs, for root.
pub fn bases_of_others() -> Vec<PathBuf> {
    let below = |dir: &str| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let temporary = below("/tmp")
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("handover-")));
    // Also those that systemd has made: RuntimeDirectory=site is /run/site.
    below("/run/user")
        .chain(below("/run"))
        .chain(temporary)
        .filter(|base| base.join("handover").is_dir())
        .collect()
}

fn temporary() -> PathBuf {
    PathBuf::from(format!("/tmp/handover-{}", geteuid().as_raw()))
}

/// Tells the network namespaces apart, in each of which the same address may be served.
pub fn network_namespace() -> Option<u64> {
    fs::metadata("/proc/self/ns/net").map(|namespace| namespace.ino()).ok()
}

/// An address as the name of a directory: `127.0.0.1-8080`, `__1-8080`.
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
    fn each_address_has_a_name_of_its_own_that_a_file_can_have() {
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
