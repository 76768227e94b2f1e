//! Where the sockets of a server's generations lie: in a directory of its own that nobody else may enter. It decides where
//! that is, for the server and for whoever asks it, and whether it can be trusted.

use std::fs::{self, DirBuilder};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::process::geteuid;

#[derive(Debug, Clone, Args)]
pub(crate) struct ControlOptions {
    /// Keep the sockets that `handover status` and the like ask in this directory [default: one of its own for each
    /// first address, in $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR or /run]
    #[arg(long, value_name = "DIR")]
    pub(crate) control: Option<PathBuf>,
    /// Have no such sockets
    #[arg(long, conflicts_with = "control")]
    pub(crate) no_control: bool,
}

/// The directory of one server.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    /// Named by a flag. Otherwise its levels that are ours to make: from the second one on they are inside of the first.
    made: Option<Vec<PathBuf>>,
}

impl Place {
    pub(crate) fn named(dir: &Path) -> Place {
        Place { dir: dir.to_owned(), made: None }
    }

    /// Where a server is found that was told nothing.
    pub(crate) fn of(address: SocketAddr) -> Place {
        // Cannot fail because there is always the directory in /tmp.
        let base = bases().into_iter().next().expect("a base");
        let mut levels = vec![base.join("handover"), base.join("handover").join(key(address))];
        if base == temporary() {
            levels.insert(0, base);
        }
        Place { dir: levels[levels.len() - 1].clone(), made: Some(levels) }
    }

    pub(crate) fn is_default(&self) -> bool {
        self.made.is_some()
    }

    /// Makes the directory if it is missing, and refuses one that others could enter.
    pub(crate) fn prepare(&self) -> Result<(), Problem> {
        let create = |dir: &Path, recursive| DirBuilder::new().recursive(recursive).mode(0o700).create(dir);
        for dir in self.made.as_deref().unwrap_or_default() {
            match create(dir, false) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Problem::new("create", dir, &error));
                }
                _ => trusted(dir, fs::symlink_metadata(dir))?,
            }
        }
        if self.made.is_none() {
            create(&self.dir, true).map_err(|error| Problem::new("create", &self.dir, &error))?;
            trusted(&self.dir, fs::metadata(&self.dir))?;
        }
        Ok(())
    }

    /// Takes an empty directory away that it has made.
    pub(crate) fn tidy(&self) {
        if self.is_default() {
            // Another generation may be in it.
            let _ = fs::remove_dir(&self.dir);
        }
    }
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

/// The system's message without Rust's "(os error 98)".
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn trusted(dir: &Path, metadata: io::Result<fs::Metadata>) -> Result<(), Problem> {
    let metadata = metadata.map_err(|error| Problem::new("look at", dir, &error))?;
    let (owner, me, mode) = (metadata.uid(), geteuid().as_raw(), metadata.mode() & 0o7777);
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

/// The end of a name that nobody can guess, for a draft beside a file.
pub(crate) fn secret() -> String {
    // The keys of a hash map come from the kernel's random numbers.
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

/// Where the directories of servers may be, the usual one first.
pub(crate) fn bases() -> Vec<PathBuf> {
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

fn temporary() -> PathBuf {
    PathBuf::from(format!("/tmp/handover-{}", geteuid().as_raw()))
}

/// An address as the name of a directory: `127.0.0.1-8080`, `__1-8080`.
pub(crate) fn key(address: SocketAddr) -> String {
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
