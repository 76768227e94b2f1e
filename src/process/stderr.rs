//! The stderr of a successor until it is ready: the predecessor forwards it, and keeps the last lines, because they say why a
//! handover failed.
//!
//! Until the successor is ready, its stderr is a pipe to the predecessor, and its stdin is a duplicate of the real stderr. When
//! it is ready, the successor moves the real stderr back into place itself, so that it does not depend on a predecessor that
//! leaves. The pipe is opened for reading *and* writing, so a write does not fail even if the predecessor dies.

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

/// The variable that tells a successor which file (`DEVICE:INODE`) its stdin should be: the real stderr.
pub(crate) const VARIABLE: &str = "HANDOVER_STDERR";

/// The size up to which one write to a pipe is atomic: PIPE_BUF (pipe(7)).
const ATOMIC: usize = 4096;
/// The timeout for the last lines of a dead successor. Reading the rest of the pipe is quick, but the end comes late if a child
/// of the successor still has the write end open.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The last lines of a successor's stderr.
#[derive(Debug)]
pub(crate) struct Tail {
    lines: Arc<Mutex<Lines>>,
    end: Option<oneshot::Receiver<()>>,
    /// The read end, if the system had no thread to forward the lines.
    unread: Option<io::PipeReader>,
}

/// The read end of the pipe that a successor gets as stderr.
pub(super) struct Pipe(io::PipeReader);

impl Pipe {
    /// Makes a pipe the stderr of the command. On an error (/proc is missing, or stderr is closed) the command inherits stderr.
    pub(super) fn give(command: &mut Command) -> io::Result<Pipe> {
        let (reader, _writer) = io::pipe()?;
        let writer =
            File::options().read(true).write(true).open(format!("/proc/self/fd/{}", reader.as_raw_fd()))?;
        let truth = io::stderr().as_fd().try_clone_to_owned()?;
        command.env(VARIABLE, name(&truth)?).stdin(Stdio::from(truth)).stderr(Stdio::from(writer));
        Ok(Pipe(reader))
    }

    /// Forwards the lines until no process has the write end open. A separate thread does it, because our stderr may block.
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
        // Without a thread nothing is forwarded before the successor has ended. The successor can write 64 KiB to the pipe before
        // its writes block.
        let passed_on = std::thread::Builder::new().name("stderr".into()).spawn(passing).is_ok();
        Tail { lines, end: Some(end), unread: spare.filter(|_| !passed_on) }
    }
}

impl Tail {
    /// Returns the last lines of a successor that has ended.
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

/// The number of bytes that can be written now without splitting a line, because other processes write to the same stderr. A line
/// longer than [`ATOMIC`] is split.
fn whole_lines(bytes: &[u8]) -> Option<usize> {
    let first = &bytes[..bytes.len().min(ATOMIC)];
    let end = first.iter().rposition(|byte| *byte == b'\n').map(|last| last + 1);
    end.or((bytes.len() >= ATOMIC).then_some(ATOMIC))
}

/// Moves the real stderr back into place in a successor that is ready, if its stderr is still the pipe.
pub(crate) fn restore(predecessor: Option<u32>) -> io::Result<()> {
    let Ok(expected) = std::env::var(VARIABLE) else { return Ok(()) };
    // Only our pipe is open for reading and writing; the write end of any other pipe is write-only.
    let is_pipe = FileType::from_raw_mode(fstat(stderr())?.st_mode) == FileType::Fifo;
    if !is_pipe || !fcntl_getfl(stderr())?.contains(OFlags::RDWR) {
        return Ok(());
    }
    let truth = match predecessor {
        _ if name(stdin())? == expected => stdin().try_clone_to_owned()?,
        Some(pid) => reopen(pid)?,
        // Without a predecessor stderr may be the pipe of another program.
        None => return Ok(()),
    };
    // The predecessor is gone and reads no more, so the rest of the pipe is written here.
    if predecessor.is_none() {
        let mut left = vec![0; usize::try_from(ioctl_fionread(stderr())?).unwrap_or(0)];
        let n = if left.is_empty() { 0 } else { rustix::io::read(stderr(), &mut left)? };
        let _ = File::from(truth.try_clone()?).write_all(&left[..n]);
    }
    dup2_stderr(truth)?;
    // Without /dev, the read end of a pipe without a writer is just as empty.
    let nothing = File::open("/dev/null").map(OwnedFd::from);
    Ok(dup2_stdin(nothing.or_else(|_| io::pipe().map(|(reader, _)| reader.into()))?)?)
}

/// Opens the predecessor's stderr through /proc, because a wrapper has replaced stdin. This fails if stderr is a socket.
fn reopen(predecessor: u32) -> io::Result<OwnedFd> {
    let truth = File::options().append(true).open(format!("/proc/{predecessor}/fd/2"));
    truth.map(OwnedFd::from).or_else(|_| {
        tracing::warn!(
            "stderr is lost, because a wrapper of this program replaced stdin: nothing more is written to it"
        );
        // If stderr stayed a pipe that is never read, it would fill up and block every log line. Without a reader each write
        // fails at once.
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
    fn lines_are_forwarded_whole_unless_one_is_too_long() {
        assert_eq!(whole_lines(b""), None);
        assert_eq!(whole_lines(b"half"), None);
        assert_eq!(whole_lines(b"one\ntwo\nhalf"), Some(8));
        assert_eq!(whole_lines(&[b'x'; ATOMIC - 1]), None);
        assert_eq!(whole_lines(&[b'x'; ATOMIC + 1]), Some(ATOMIC));
        assert_eq!(whole_lines(&[b"one\n", &[b'x'; 2 * ATOMIC][..], b"\n"].concat()), Some(4));
    }
}
