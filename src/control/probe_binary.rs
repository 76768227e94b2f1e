//! Runs a program to check that it works. At the deadline the program and its children are killed.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

use crate::error::plain;
use crate::process::lines::Lines;

/// The timeout for reading the output of a program that has exited, because a child of it may keep the pipe open.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The reason why a program did not pass.
#[derive(Debug)]
pub(super) struct Unfit {
    pub(super) reason: String,
    /// The last lines that the program wrote to stderr.
    pub(super) stderr: Vec<String>,
}

/// Runs `program` and returns the first line of its output if its exit status is 0.
pub(super) async fn run<I, S>(program: &Path, args: I, within: Duration) -> Result<String, Unfit>
where
    I: IntoIterator<Item = S>,
    S: AsRef<std::ffi::OsStr>,
{
    let mut command = Command::new(program);
    // An empty stdin that does not need /dev/null.
    let (nothing, _) = std::io::pipe().map_err(|error| Unfit { reason: plain(&error), stderr: vec![] })?;
    command.args(args).stdin(nothing).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in crate::generation::ENVIRONMENT {
        command.env_remove(name);
    }
    // A separate process group, so that the children can be killed with the program.
    command.process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| Unfit { reason: cannot(&error), stderr: vec![] })?;
    let said = Output::of(child.stdout.take(), Lines::first());
    let complained = Output::of(child.stderr.take(), Lines::last());
    let ended = timeout(within, child.wait()).await;
    // Cannot reach another process: `id` is `None` once the child has been waited for.
    if let (Err(_), Some(group)) = (&ended, child.id().and_then(|id| Pid::from_raw(id.cast_signed()))) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let stderr = complained.lines().await;
    let unfit = |reason| Unfit { reason, stderr: stderr.clone() };
    match ended {
        Err(_) => Err(unfit(format!("it did not exit within {within:?}"))),
        Ok(Err(error)) => Err(unfit(plain(&error))),
        Ok(Ok(status)) if !ExitStatus::success(&status) => Err(unfit(status.to_string())),
        Ok(Ok(_)) => Ok(said.lines().await.into_iter().next().unwrap_or_default()),
    }
}

fn cannot(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(nix::libc::ENOEXEC) => "it is not an executable for this machine".into(),
        Some(nix::libc::ENOENT) => "the interpreter or loader it names does not exist".into(),
        _ => plain(error),
    }
}

/// Reads a pipe in a background task.
struct Output {
    lines: Arc<Mutex<Lines>>,
    reading: tokio::task::JoinHandle<()>,
}

impl Output {
    fn of(pipe: Option<impl AsyncRead + Unpin + Send + 'static>, lines: Lines) -> Output {
        let lines = Arc::new(Mutex::new(lines));
        let into = Arc::clone(&lines);
        let reading = tokio::spawn(async move {
            let Some(mut pipe) = pipe else { return };
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut chunk).await {
                into.lock().unwrap_or_else(PoisonError::into_inner).push(&chunk[..n]);
            }
        });
        Output { lines, reading }
    }

    async fn lines(mut self) -> Vec<String> {
        let _ = timeout(LAST_WORDS, &mut self.reading).await;
        self.reading.abort();
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).texts()
    }
}
