//! Processes: how this one was started, how a successor is started the same way, and a handle of the predecessor
//! through which a signal never reaches another process.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getppid, getrlimit, kill_process, pidfd_open,
    pidfd_send_signal, setrlimit,
};
use tokio::io::unix::AsyncFd;
use tokio::process::Command;
use tokio::time::Instant;

use crate::error::{Error, Kind, plain};

pub(crate) mod lines;
pub(crate) mod pidfd;
pub(crate) mod stderr;
use stderr::{Pipe, Tail};

/// The program, arguments and working directory that this process was started with.
///
/// The program is the path given to `execve` (AT_EXECFN, see getauxval(3)), made absolute. Symlinks are kept in
/// it and in the directory: after the file was replaced or the link was changed, a restart starts the *new* file.
/// `/proc/self/exe`, and so `current_exe()`, would name the deleted file or the old release.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    program: PathBuf,
    args: Vec<OsString>,
    dir: PathBuf,
}

impl Launch {
    pub(crate) fn capture() -> Result<Launch, Error> {
        let dir = logical_dir().map_err(|source| Kind::Launch { what: "working directory", source })?;
        let execfn = OsStr::from_bytes(rustix::param::linux_execfn().to_bytes());
        Ok(Launch { program: dir.join(execfn), args: std::env::args_os().collect(), dir })
    }

    /// Starts the program again as a successor. The variables in `env` are set; all others are inherited as they are now.
    pub(crate) fn spawn(&self, env: &[(&str, String)]) -> Result<Child, String> {
        let mut command = Command::new(&self.program);
        let mut args = self.args.iter();
        if let Some(arg0) = args.next() {
            command.arg0(arg0);
        }
        command.args(args).current_dir(&self.dir).env("PWD", &self.dir);
        command.envs(env.iter().map(|(name, value)| (name, value)));
        // Set by our predecessor for this process; `Pipe::give` sets it again for the successor.
        command.env_remove(stderr::VARIABLE);
        let pipe = Pipe::give(&mut command);
        let started = Instant::now();
        let process = command.spawn().map_err(|e| self.explain(&e))?;
        let pid = process.id().expect("a child has a pid until it has been waited for");
        Ok(Child { process, pid, started, stderr: pipe.ok().map(Pipe::pass_on) })
    }

    /// Starts the program as the first generation under this process, the supervisor, which reaps it with [`pidfd::reap`].
    /// stdin, stdout and stderr are inherited.
    pub(crate) fn spawn_first(&self, env: &[(&str, String)], without: &[&str]) -> Result<u32, String> {
        let mut command = std::process::Command::new(&self.program);
        let mut args = self.args.iter();
        if let Some(arg0) = args.next() {
            command.arg0(arg0);
        }
        command.args(args).current_dir(&self.dir).env("PWD", &self.dir);
        for name in without {
            command.env_remove(name);
        }
        command.envs(env.iter().map(|(name, value)| (name, value)));
        let started = command.spawn().map_err(|e| self.explain(&e))?;
        Ok(started.id())
    }

    /// Turns the error of a spawn into a message. `Command` reports a missing directory and a missing program alike.
    fn explain(&self, error: &io::Error) -> String {
        let program = self.program.display();
        if !self.dir.is_dir() {
            return format!("cannot start {program}: its working directory {} is gone", self.dir.display());
        }
        match error.raw_os_error() {
            Some(nix::libc::ENOEXEC) => format!("cannot start {program}: not an executable for this machine"),
            _ => format!("cannot start {program}: {}", plain(error)),
        }
    }
}

/// The shell's `$PWD` if it is the working directory, because it keeps symlinks (`cd /srv/app/current`), else getcwd(3).
fn logical_dir() -> io::Result<PathBuf> {
    let here = fs::metadata(".")?;
    let same = |dir: &Path| fs::metadata(dir).is_ok_and(|d| (d.dev(), d.ino()) == (here.dev(), here.ino()));
    match std::env::var_os("PWD").map(PathBuf::from) {
        Some(pwd) if pwd.is_absolute() && same(&pwd) => Ok(pwd),
        _ => std::env::current_dir(),
    }
}

impl Launch {
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The arguments without the name of the program.
    pub(crate) fn args(&self) -> &[OsString] {
        self.args.get(1..).unwrap_or_default()
    }
}

/// A successor that this process started. No other process can get its pid before [`Child::exited`] has returned.
#[derive(Debug)]
pub(crate) struct Child {
    process: tokio::process::Child,
    pid: u32,
    started: Instant,
    stderr: Option<Tail>,
}

impl Child {
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// The last lines that the child wrote to stderr before it was ready. Call this once the child has exited.
    pub(crate) async fn last_words(&mut self) -> Vec<String> {
        match &mut self.stderr {
            Some(tail) => tail.last_words().await,
            None => vec![],
        }
    }

    /// Waits for the child and reaps it. Cancel safe.
    pub(crate) async fn exited(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // Cannot reach another process: `id` is `None` once the child has been waited for. ESRCH cannot happen before that.
        if let Some(pid) = self.process.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Sends SIGKILL and waits, so that no zombie is left.
    pub(crate) async fn kill(&mut self) {
        let _ = self.process.kill().await;
    }

    pub(crate) fn start_kill(&mut self) {
        let _ = self.process.start_kill();
    }
}

/// The parent that started this process, with a pidfd that was opened while it was still the parent.
#[derive(Debug)]
pub(crate) struct Parent {
    pid: u32,
    pidfd: AsyncFd<OwnedFd>,
}

impl Parent {
    /// Opens the parent, if it is the process that `pid` and `expected_start` (see [`started`]) describe; otherwise returns
    /// `None`. Fails if no pidfd can be opened.
    pub(crate) fn verified(pid: u32, expected_start: Option<u64>) -> io::Result<Option<Parent>> {
        let Some(parent) = getppid().filter(|_| is_parent(pid, None)) else { return Ok(None) };
        let pidfd = match pidfd_open(parent, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            opened => opened?,
        };
        // Checked again: if the parent died before pidfd_open, another process may have got its pid, but then this
        // process has a new parent by now.
        if !is_parent(pid, expected_start) {
            return Ok(None);
        }
        #[allow(deprecated, reason = "sound for an OwnedFd; its replacement cannot be called in this crate")]
        Ok(Some(Parent { pid, pidfd: AsyncFd::new(pidfd)? }))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(self.pidfd.get_ref(), signal)?)
    }

    /// Waits until the parent is dead, which makes its pidfd readable (pidfd_open(2)). Cancel safe.
    pub(crate) async fn dead(&self) {
        let _ = self.pidfd.readable().await;
    }

    /// Returns whether the parent is dead.
    pub(crate) fn is_dead(&self) -> bool {
        pidfd::is_dead(self.pidfd.get_ref())
    }
}

/// Raises the soft limit of file descriptors to the hard one and returns how many are free then.
pub(crate) fn raise_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // An unprivileged process may always do this; if a sandbox forbids it, the soft limit stays in force.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).is_ok();
    let limit = if raised { limit.maximum } else { limit.current };
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    limit.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX)).saturating_sub(open)
}

/// Returns whether the parent is the process that `pid` and `expected_start` (see [`started`]) describe.
pub(crate) fn is_parent(pid: u32, expected_start: Option<u64>) -> bool {
    getppid().is_some_and(|parent| parent.as_raw_pid().cast_unsigned() == pid)
        && expected_start.is_none_or(|at| started(pid) == Some(at))
}

/// The start time of a process in clock ticks after boot (field 22 of proc_pid_stat(5)), which no clock step changes.
pub(crate) fn started(pid: u32) -> Option<u64> {
    stat(&pid.to_string(), 22)?.parse().ok()
}

/// Returns whether the session of this process has a terminal (field 7 of proc_pid_stat(5)).
pub(crate) fn has_terminal() -> bool {
    stat("self", 7).is_some_and(|device| device != "0")
}

fn stat(process: &str, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the name in parentheses, which may itself contain spaces and parentheses.
    stat.rsplit_once(')')?.1.split_whitespace().nth(field - 3).map(str::to_owned)
}
