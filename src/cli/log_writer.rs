//! The writer of log lines: a separate thread writes them, so that the server never waits for a slow reader. Lines beyond a bound
//! are dropped and counted.
//!
//! tracing-appender does nearly the same, but makes one write(2) of each line (187,000 instead of 10,000 for 300,000 lines that
//! come in bursts), panics where the system refuses it a thread, and cannot switch to another file.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

/// Largest write in bytes, unless a single line is longer. Several generations write to the same pipe, and the kernel writes up
/// to PIPE_BUF bytes atomically (pipe(7)).
const PIECE: usize = 4096;
/// How long the end of the process waits for the lines that are left.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often dropped lines are reported.
const REPORT: Duration = Duration::from_secs(10);

/// The sending end of the queue of lines.
#[derive(Debug, Clone)]
pub struct LogWriter {
    queue: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Entry {
    Line(Vec<u8>),
    /// The following lines go to this file.
    Out(File),
    Flush(Sender<()>),
}

impl LogWriter {
    /// Starts the thread. At most `bound` lines may wait. The thread pauses after a write, so that a busy server neither wakes it
    /// for each line nor makes a write of each. `report` gets the number of dropped lines once writing works again.
    pub(crate) fn begin(
        name: &str,
        bound: usize,
        pause: Duration,
        out: Box<dyn Write + Send>,
        report: fn(u64),
    ) -> (LogWriter, Flush) {
        let (queue, entries) = sync_channel(bound);
        let dropped = Arc::new(AtomicU64::new(0));
        let lines = LogWriter { queue, dropped: Arc::clone(&dropped) };
        let thread = std::thread::Builder::new().name(name.into());
        // Without a thread there is no log, but the server still serves.
        let _ = thread.spawn(move || write_out(&entries, pause, out, &dropped, report));
        (lines.clone(), Flush(lines.queue))
    }

    /// Writes the lines that are put from now on to this file.
    pub(crate) fn go_to(&self, file: File) -> io::Result<()> {
        let full = |_| io::Error::other("the queue of log lines is full");
        self.queue.try_send(Entry::Out(file)).map_err(full)
    }

    /// Queues a line, which ends with a line break; drops and counts it if the queue is full.
    pub(crate) fn put(&self, line: Vec<u8>) {
        if self.queue.try_send(Entry::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_out(
    entries: &Receiver<Entry>,
    pause: Duration,
    mut out: Box<dyn Write + Send>,
    dropped: &AtomicU64,
    report: fn(u64),
) {
    let mut piece = Vec::with_capacity(PIECE);
    let mut is_written = true;
    let mut reported: Option<Instant> = None;
    let mut next = entries.recv().ok();
    while let Some(entry) = next {
        match entry {
            Entry::Line(line) => {
                if piece.len() + line.len() > PIECE {
                    is_written = write_piece(&mut out, &mut piece, dropped);
                }
                piece.extend(line);
            }
            Entry::Out(file) => {
                write_piece(&mut out, &mut piece, dropped);
                (out, is_written) = (Box::new(file), true);
            }
            Entry::Flush(done) => {
                write_piece(&mut out, &mut piece, dropped);
                let _ = done.send(());
            }
        }
        next = entries.try_recv().ok();
        if next.is_none() {
            is_written &= write_piece(&mut out, &mut piece, dropped);
            if is_written && reported.is_none_or(|at| at.elapsed() > REPORT) {
                let lost = dropped.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    report(lost);
                    reported = Some(Instant::now());
                }
            }
            std::thread::sleep(pause);
            next = entries.recv().ok();
        }
    }
}

/// Writes a piece. Lines that cannot be written are dropped and counted: the disk is full, the file is at its size limit, or the
/// pipe has no reader. Returns whether all lines were written.
fn write_piece(out: &mut impl Write, piece: &mut Vec<u8>, dropped: &AtomicU64) -> bool {
    let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    let mut rest = &piece[..];
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(n @ 1..) => rest = &rest[n..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => break,
        }
    }
    let lost = lines(rest);
    dropped.fetch_add(lost, Ordering::Relaxed);
    piece.clear();
    lost == 0
}

/// A guard that writes the remaining lines on drop, if there is a reader.
#[derive(Debug)]
#[must_use]
pub struct Flush(SyncSender<Entry>);

impl Drop for Flush {
    fn drop(&mut self) {
        let (done, written) = channel();
        if self.0.try_send(Entry::Flush(done)).is_ok() {
            let _ = written.recv_timeout(LAST_WORDS);
        }
    }
}
