//! LogWriter on their way out of the process: a thread of its own writes them, so that the server never waits for a reader.
//! Without one, lines beyond a bound are dropped and counted, and the server goes on.
//!
//! tracing-appender does nearly the same, but makes one write(2) of each line (187,000 instead of 10,000 for 300,000 lines that
//! come in bursts), panics where the system has no thread for it, and keeps the file that it was given.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

/// So many bytes are written at once, if that many wait. Several generations write to the same pipe, and up to
/// PIPE_BUF the kernel keeps what one of them writes in one piece (pipe(7)).
const PIECE: usize = 4096;
/// How long the end waits for the lines that are left.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often dropped lines are reported.
const REPORT: Duration = Duration::from_secs(10);

/// The way in.
#[derive(Debug, Clone)]
pub struct LogWriter {
    queue: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Entry {
    Line(Vec<u8>),
    /// What comes after it goes there.
    Out(File),
    Flush(Sender<()>),
}

impl LogWriter {
    /// Up to `bound` lines may wait. `report` hears how many were dropped, once there is a reader again.
    pub(crate) fn begin(
        name: &str,
        bound: usize,
        out: Box<dyn Write + Send>,
        report: fn(u64),
    ) -> (LogWriter, Flush) {
        let (queue, entries) = sync_channel(bound);
        let dropped = Arc::new(AtomicU64::new(0));
        let lines = LogWriter { queue, dropped: Arc::clone(&dropped) };
        let thread = std::thread::Builder::new().name(name.into());
        // If there is no thread for it there is no log, and the server serves all the same.
        let _ = thread.spawn(move || write_out(&entries, out, &dropped, report));
        (lines.clone(), Flush(lines.queue))
    }

    /// What is put from now on goes to this file.
    pub(crate) fn go_to(&self, file: File) -> io::Result<()> {
        let full = |_| io::Error::other("too many lines wait to be written");
        self.queue.try_send(Entry::Out(file)).map_err(full)
    }

    /// `line` ends with a line break.
    pub(crate) fn put(&self, line: Vec<u8>) {
        if self.queue.try_send(Entry::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_out(
    entries: &Receiver<Entry>,
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
            next = entries.recv().ok();
        }
    }
}

/// What cannot be written is dropped and counted: the disk is full, the file is as large as it may be, or there is no reader.
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

/// Writes the lines that are left when it is dropped, if there is a reader.
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
