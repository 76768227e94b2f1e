//! Log rotation without a restart: on SIGUSR1 and on `handover reopen` every generation reopens its log files. All processes of
//! this program handle SIGUSR1, so that it never ends one.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use handover::control::listening::sockets;
use handover::control::runtime_dir::{bases, control_dirs};
use handover::control::{self, Api, LogFiles as _};
use hyper::Method;
use nix::libc::{SIGUSR1, SIGXFSZ};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::{flag, low_level::pipe};
use tokio::io::AsyncReadExt;
use tokio::task::spawn_blocking;

use super::command::client::ask;
use super::log_file;
use super::log_writer::LogWriter;
use super::options::ControlOptions;

/// The log files and their writers.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogFiles(Arc<Mutex<Vec<LogFile>>>);

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    lines: LogWriter,
}

impl LogFiles {
    pub(crate) fn add(&self, path: PathBuf, lines: LogWriter) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(LogFile { path, lines });
    }
}

impl control::LogFiles for LogFiles {
    fn reopen(&self) -> Result<Vec<PathBuf>, String> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut opened = Ok(vec![]);
        for LogFile { path, lines } in files.iter() {
            match log_file::append(path, true).and_then(|file| lines.go_to(file)) {
                Ok(()) => opened.iter_mut().for_each(|all| all.push(path.clone())),
                Err(error) => {
                    let why =
                        format!("cannot reopen {}: {error}; lines still go to the old file", path.display());
                    tracing::warn!("{why}");
                    opened = Err(why);
                }
            }
        }
        opened
    }
}

/// The read end of a pipe that gets a byte for each SIGUSR1.
#[derive(Debug)]
pub(crate) struct ReopenSignal(UnixStream);

impl ReopenSignal {
    /// Installs the handlers. Called first, so that SIGUSR1 cannot end this process at any moment. A log at the file size limit
    /// raises SIGXFSZ, which gets a handler that does nothing: the write fails, and the line is dropped and counted. The signal is
    /// not set to be ignored, because child processes would inherit that.
    pub(crate) fn listen() -> io::Result<ReopenSignal> {
        flag::register(SIGXFSZ, Arc::default())?;
        let (read, write) = UnixStream::pair()?;
        pipe::register(SIGUSR1, write)?;
        Ok(ReopenSignal(read))
    }

    /// Reopens the log files of this generation on each signal, and tells its siblings, because the sender may know only one pid.
    pub(crate) async fn reopen_when_told(self, files: LogFiles, api: Api) {
        let asked = self.0.set_nonblocking(true).and_then(|()| tokio::net::UnixStream::from_std(self.0));
        let Ok(mut asked) = asked else { return };
        while let Ok(1..) = asked.read(&mut [0; 64]).await {
            let files = files.clone();
            let _ = spawn_blocking(move || files.reopen()).await;
            api.reopen_others().await;
        }
    }

    /// Passes each signal on from the supervisor, which has no log file, to its generations: over their control sockets, or by
    /// SIGUSR1 if none has one.
    pub(crate) fn pass_on(self, control: ControlOptions) {
        let passing = move || {
            while let Ok(1..) = io::Read::read(&mut &self.0, &mut [0; 64]) {
                let dirs = match &control.control {
                    Some(dir) => vec![dir.clone()],
                    None => bases().iter().flat_map(|base| control_dirs(base)).collect(),
                };
                let all = dirs.iter().flat_map(|dir| sockets(dir));
                let told = all
                    .filter(|(pid, _)| is_ours(*pid))
                    .filter(|(_, socket)| ask(socket, Method::POST, "/reopen", Some(PATIENCE)).is_ok());
                if told.count() == 0 {
                    generations().for_each(|held| {
                        // Fails for a generation that has left meanwhile, which needs no reopening.
                        let _ = pidfd_send_signal(held, Signal::USR1);
                    });
                }
            }
        };
        // Without a thread the signal has no effect.
        let _ = std::thread::Builder::new().name("reopen".into()).spawn(passing);
    }
}

const PATIENCE: Duration = Duration::from_secs(5);

/// Returns pidfds of the generations of this supervisor that have a handler for SIGUSR1; the others would be ended by it. A pidfd
/// keeps the signal from reaching a later process with the same pid.
fn generations() -> impl Iterator<Item = OwnedFd> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| {
        let held = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        let catches = u64::from_str_radix(caught.trim(), 16).ok()? >> (SIGUSR1 - 1) & 1 == 1;
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let mark = |name: &&str| format!("{name}={}@", std::process::id());
        let marks: Vec<String> = handover::ENVIRONMENT.iter().map(mark).collect();
        let is_mark = |entry: &[u8]| marks.iter().any(|mark| entry.starts_with(mark.as_bytes()));
        let marked = environment.split(|byte| *byte == 0).any(is_mark);
        (catches && marked && is_ours(pid)).then_some(held)
    })
}

/// Returns whether a process is a descendant of this one.
fn is_ours(pid: i32) -> bool {
    let parent = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let ancestors = std::iter::successors(Some(pid.cast_unsigned()), |pid| parent(*pid).filter(|p| *p > 0));
    ancestors.skip(1).take(64).any(|ancestor| ancestor == std::process::id())
}
