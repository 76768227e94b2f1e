//! The socket file in a control directory: binding it, checking that it is still there, and removing stale ones.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, chmodat, fchmod};
use rustix::process::{Pid, geteuid, test_kill_process};
use socket2::{Domain, SockAddr, Socket, Type};

use super::runtime_dir::{Problem, RuntimeDir};

/// The backlog of the socket.
const QUEUE: i32 = 128;
/// The capacity of sun_path without the final null byte (unix(7)).
const MAX_PATH: usize = 107;

/// A listening socket and its file.
#[derive(Debug)]
pub(super) struct BoundSocket {
    pub(super) listener: net::UnixListener,
    pub(super) at: SocketFile,
}

/// The socket file: its path and its inode, which shows whether the path still leads to our socket.
#[derive(Debug, Clone)]
pub(super) struct SocketFile {
    pub(super) dir: RuntimeDir,
    pub(super) path: PathBuf,
    inode: u64,
}

impl SocketFile {
    /// Returns whether the socket is still at its path. Its directory may have been removed, as $XDG_RUNTIME_DIR is at logout.
    pub(super) fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|about| about.ino() == self.inode)
    }

    pub(super) fn remove(&self) {
        if self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
        self.dir.tidy();
    }
}

/// Listens in the first directory that can be used. If there is none, returns the problem of the first one.
pub(super) fn listen_in(dirs: &[RuntimeDir]) -> Result<BoundSocket, Problem> {
    let mut first = None;
    for dir in dirs {
        match listen(dir) {
            Ok(bound) => return Ok(bound),
            Err(problem) => first = first.or(Some(problem)),
        }
    }
    Err(first.unwrap_or_else(|| Problem::with(Path::new("/"), "there is none")))
}

fn listen(dir: &RuntimeDir) -> Result<BoundSocket, Problem> {
    let path = dir.path.join(format!("{}.sock", std::process::id()));
    check_length(dir, &path)?;
    let bound = || {
        // Retried if another server that leaves has removed the empty directory meanwhile.
        for _ in 0..3 {
            dir.prepare()?;
            remove_stale(&dir.path);
            match bind(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                bound => return bound.map_err(|error| Problem::new("listen on", &path, &error)),
            }
        }
        Err(Problem::with(&dir.path, "it was removed each time it was made"))
    };
    let listener = bound()?;
    let inode = fs::symlink_metadata(&path).map_err(|error| Problem::new("find", &path, &error))?.ino();
    Ok(BoundSocket { listener, at: SocketFile { dir: dir.clone(), path, inode } })
}

fn check_length(dir: &RuntimeDir, path: &Path) -> Result<(), Problem> {
    let length = path.as_os_str().len();
    let cause = || format!("the path of its sockets has {length} bytes, and the kernel allows {MAX_PATH}");
    if length > MAX_PATH { Err(Problem::with(&dir.path, &cause())) } else { Ok(()) }
}

/// Checks whether the server could start with this control directory, as far as possible without making anything there.
pub fn check(dir: &Path) -> Result<(), String> {
    let dir = RuntimeDir::named(dir);
    let found =
        check_length(&dir, &dir.path.join(format!("{}.sock", std::process::id()))).and_then(|()| dir.check());
    found.map_err(|problem| problem.text)
}

/// Binds a socket that only this user can connect to. The mode is set on the descriptor before the socket gets its name, and
/// bind(2) gives the file that mode without the bits of the umask. So no path is looked up a second time, and the file is safe
/// even if another directory has taken the place of the one that was checked.
fn bind(path: &Path) -> io::Result<net::UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // The umask may have removed bits that the owner needs. No other user can put a link into a directory with this mode.
    if let (Some(dir), Some(name)) = (path.parent(), path.file_name()) {
        let dir = File::open(dir)?;
        let about = dir.metadata()?;
        if about.uid() == geteuid().as_raw() && about.mode() & 0o077 == 0 {
            chmodat(&dir, name, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
        }
    }
    socket.listen(QUEUE)?;
    socket.set_nonblocking(true)?;
    Ok(OwnedFd::from(socket).into())
}

/// Removes the sockets of processes that died without removing them, and a stale one with our own pid.
pub fn remove_stale(dir: &Path) {
    let is_zombie = |pid| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z "));
    for (pid, path) in sockets(dir) {
        let alive = Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid).is_ok()) && !is_zombie(pid);
        let mine = pid.cast_unsigned() == std::process::id();
        // A live process in another pid namespace looks dead, so the socket must also refuse a connection. The attempt does not
        // block: the socket of a dead listener refuses at once.
        let refused =
            || net::UnixStream::connect(&path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
        if (mine || !alive) && refused() {
            let _ = fs::remove_file(path);
        }
    }
}

/// The sockets in a control directory, each with the pid of its process.
pub fn sockets(dir: &Path) -> Vec<(i32, PathBuf)> {
    let files = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let of = |path: PathBuf| Some((path.file_name()?.to_str()?.strip_suffix(".sock")?.parse().ok()?, path));
    files.filter_map(of).collect()
}
