//! What a successor writes to stderr before it is ready: passed on as it comes, and its last lines kept, because they say
//! why a handover failed.
//!
//! Until then the successor's stderr is a pipe to its predecessor, and the true one lies behind its stdin; when it is
//! ready it puts the true one in place itself, so nothing depends on a predecessor that leaves. The pipe is opened for
//! reading *and* writing: should the predecessor die, a write still never fails.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::io::ioctl_fionread;
use rustix::stdio::{dup2_stderr, dup2_stdin, stderr, stdin};
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::lines::Lines;

/// Tells a successor which file (`DEVICE:INODE`) to expect behind its stdin.
pub(crate) const VARIABLE: &str = "HANDOVER_STDERR";

/// What others cannot come between when it is written to a pipe at once: PIPE_BUF (pipe(7)).
const ATOMIC: usize = 4096;
/// How long to wait for the last lines of a successor that is dead: as long as it takes to read what is in the pipe,
/// unless a process that it started still has the other end.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The last lines that were written to a pipe.
#[derive(Debug)]
pub(crate) struct Tail {
    lines: Arc<Mutex<Lines>>,
    end: Option<oneshot::Receiver<()>>,
    /// Where the system has no thread to pass them on.
    unread: Option<io::PipeReader>,
}

/// The reading end of a pipe that a successor is to get as stderr.
pub(super) struct Pipe(io::PipeReader);

impl Pipe {
    /// Has the command write to a pipe. Where /proc is missing or stderr closed, it inherits stderr as it is.
    pub(super) fn give(command: &mut Command) -> io::Result<Pipe> {
        let (reader, _writer) = io::pipe()?;
        let writer =
            File::options().read(true).write(true).open(format!("/proc/self/fd/{}", reader.as_raw_fd()))?;
        let truth = io::stderr().as_fd().try_clone_to_owned()?;
        command.env(VARIABLE, name(&truth)?).stdin(Stdio::from(truth)).stderr(Stdio::from(writer));
        Ok(Pipe(reader))
    }

    /// Passes on what is written until no process has the pipe open for writing. A thread does it, because stderr may block.
    pub(super) fn pass_on(self) -> Tail {
        let (lines, (ended, end)) = (Arc::new(Mutex::new(Lines::last())), oneshot::channel());
        let kept = Arc::clone(&lines);
        let spare = self.0.try_clone().ok();
        let mut reader = self.0;
        let passing = move || {
            let (mut chunk, mut waiting) = ([0; ATOMIC], Vec::new());
            while let Ok(n @ 1..) = reader.read(&mut chunk) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(&chunk[..n]);
                waiting.extend_from_slice(&chunk[..n]);
                while let Some(whole) = whole_lines(&waiting) {
                    let _ = io::stderr().write_all(&waiting[..whole]);
                    waiting.drain(..whole);
                }
            }
            let _ = io::stderr().write_all(&waiting);
            let _ = ended.send(());
        };
        // Without a thread nothing is passed on before the successor has ended; it finds that its pipe is never read, and that
        // is survivable until 64 KiB are in it.
        let passed_on = std::thread::Builder::new().name("stderr".into()).spawn(passing).is_ok();
        Tail { lines, end: Some(end), unread: spare.filter(|_| !passed_on) }
    }
}

impl Tail {
    /// The last lines of a process that has ended.
    pub(crate) async fn last_words(&mut self) -> Vec<String> {
        if let Some(end) = self.end.take() {
            let _ = timeout(LAST_WORDS, end).await;
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut reader) = self.unread.take() {
            let mut left = vec![0; ioctl_fionread(&reader).ok().and_then(|n| n.try_into().ok()).unwrap_or(0)];
            let n = if left.is_empty() { 0 } else { reader.read(&mut left).unwrap_or(0) };
            lines.push(&left[..n]);
            let _ = io::stderr().write_all(&left[..n]);
        }
        lines.texts()
    }
}

/// How much of this can be written now without tearing a line, unless that is too long: others write to the same stderr.
fn whole_lines(bytes: &[u8]) -> Option<usize> {
    let first = &bytes[..bytes.len().min(ATOMIC)];
    let end = first.iter().rposition(|byte| *byte == b'\n').map(|last| last + 1);
    end.or((bytes.len() >= ATOMIC).then_some(ATOMIC))
}

/// Puts the true stderr in place, where it is not.
pub(crate) fn restore(predecessor: Option<u32>) -> io::Result<()> {
    let Ok(expected) = std::env::var(VARIABLE) else { return Ok(()) };
    // No other pipe can be read from at its writing end.
    let is_pipe = FileType::from_raw_mode(fstat(stderr())?.st_mode) == FileType::Fifo;
    if !is_pipe || !fcntl_getfl(stderr())?.contains(OFlags::RDWR) {
        return Ok(());
    }
    let truth = match predecessor {
        _ if name(stdin())? == expected => stdin().try_clone_to_owned()?,
        Some(pid) => reopen(pid)?,
        // It may be a pipe of another program.
        None => return Ok(()),
    };
    // No other reader is left.
    if predecessor.is_none() {
        let mut left = vec![0; usize::try_from(ioctl_fionread(stderr())?).unwrap_or(0)];
        let n = if left.is_empty() { 0 } else { rustix::io::read(stderr(), &mut left)? };
        let _ = File::from(truth.try_clone()?).write_all(&left[..n]);
    }
    dup2_stderr(truth)?;
    // Where there is no /dev, a pipe without a writer is as empty.
    let nothing = File::open("/dev/null").map(OwnedFd::from);
    Ok(dup2_stdin(nothing.or_else(|_| io::pipe().map(|(reader, _)| reader.into()))?)?)
}

/// The predecessor's stderr, for a successor whose stdin was replaced by a wrapper. A socket cannot be opened.
fn reopen(predecessor: u32) -> io::Result<OwnedFd> {
    let truth = File::options().append(true).open(format!("/proc/{predecessor}/fd/2"));
    truth.map(OwnedFd::from).or_else(|_| {
        tracing::warn!(
            "a wrapper replaced stdin, behind which stderr was: from now on nothing is written to it"
        );
        // A pipe that is open and not read would be full one day, and each line of the log would wait then. Without a reader
        // each write fails.
        let nothing = File::options().write(true).open("/dev/null");
        nothing.map(OwnedFd::from).or_else(|_| io::pipe().map(|(_, writer)| writer.into()))
    })
}

fn name(file: impl AsFd) -> io::Result<String> {
    let stat = fstat(file)?;
    Ok(format!("{}:{}", stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_passed_on_whole_unless_one_is_longer_than_can_be() {
        assert_eq!(whole_lines(b""), None);
        assert_eq!(whole_lines(b"half"), None);
        assert_eq!(whole_lines(b"one\ntwo\nhalf"), Some(8));
        assert_eq!(whole_lines(&[b'x'; ATOMIC - 1]), None);
        assert_eq!(whole_lines(&[b'x'; ATOMIC + 1]), Some(ATOMIC));
        assert_eq!(whole_lines(&[b"one\n", &[b'x'; 2 * ATOMIC][..], b"\n"].concat()), Some(4));
    }
}
