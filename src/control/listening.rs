//! A socket in a control directory: how it gets its name, how it is found again, and how one goes that was left behind.

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

/// So many may wait to be accepted.
const QUEUE: i32 = 128;
/// What sun_path holds, without the zero at its end (unix(7)).
const MAX_PATH: usize = 107;

/// A socket that listens, and where.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listener: net::UnixListener,
    pub(super) at: At,
}

#[derive(Debug, Clone)]
pub(super) struct At {
    pub(super) dir: RuntimeDir,
    pub(super) path: PathBuf,
    inode: u64,
}

impl At {
    /// Whether it can still be found: its directory may have been taken away, as $XDG_RUNTIME_DIR is at logout.
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

/// Listens in the first directory that can be used; otherwise says what is wrong with the best.
pub(super) fn listen_in(dirs: &[RuntimeDir]) -> Result<Bound, Problem> {
    let mut first = None;
    for dir in dirs {
        match listen(dir) {
            Ok(bound) => return Ok(bound),
            Err(problem) => first = first.or(Some(problem)),
        }
    }
    Err(first.unwrap_or_else(|| Problem::with(Path::new("/"), "there is none")))
}

fn listen(dir: &RuntimeDir) -> Result<Bound, Problem> {
    let path = dir.path.join(format!("{}.sock", std::process::id()));
    check_length(dir, &path)?;
    let bound = || {
        // Again if another server that leaves has taken the empty directory away meanwhile.
        for _ in 0..3 {
            dir.prepare()?;
            remove_stale(&dir.path);
            match bind(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                bound => return bound.map_err(|error| Problem::new("listen on", &path, &error)),
            }
        }
        Err(Problem::with(&dir.path, "it vanishes again and again"))
    };
    let listener = bound()?;
    let inode = fs::symlink_metadata(&path).map_err(|error| Problem::new("find", &path, &error))?.ino();
    Ok(Bound { listener, at: At { dir: dir.clone(), path, inode } })
}

fn check_length(dir: &RuntimeDir, path: &Path) -> Result<(), Problem> {
    let length = path.as_os_str().len();
    let cause = || format!("the path of its sockets has {length} bytes, and the kernel takes {MAX_PATH}");
    if length > MAX_PATH { Err(Problem::with(&dir.path, &cause())) } else { Ok(()) }
}

/// What a start would have against this directory, as far as it can be told without making anything there.
pub fn check(dir: &Path) -> Result<(), String> {
    let dir = RuntimeDir::named(dir);
    let found =
        check_length(&dir, &dir.path.join(format!("{}.sock", std::process::id()))).and_then(|()| dir.check());
    found.map_err(|problem| problem.text)
}

/// A socket of this user only, also should another directory have taken the place of the one that was looked at: its mode
/// is that of the socket before it gets its name (bind(2) takes the umask from it), so no path is looked up again.
fn bind(path: &Path) -> io::Result<net::UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // A umask may have taken too much. Through a directory that no other user can write to no link is followed.
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

/// Takes away sockets of processes that died without doing so, and one that has the name of ours.
pub fn remove_stale(dir: &Path) {
    let is_zombie = |pid| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z "));
    for (pid, path) in sockets(dir) {
        let alive = Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid).is_ok()) && !is_zombie(pid);
        let mine = pid.cast_unsigned() == std::process::id();
        // With another pid namespace a process may be alive that is not seen. To connect cannot wait: a listener that is
        // dead refuses.
        let refused =
            || net::UnixStream::connect(&path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
        if (mine || !alive) && refused() {
            let _ = fs::remove_file(path);
        }
    }
}

/// The sockets in a control directory, and whose they are.
pub fn sockets(dir: &Path) -> Vec<(i32, PathBuf)> {
    let files = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let of = |path: PathBuf| Some((path.file_name()?.to_str()?.strip_suffix(".sock")?.parse().ok()?, path));
    files.filter_map(of).collect()
}
