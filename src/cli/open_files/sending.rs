//! Segments of a file on their way to a client, with at most two buffers at a time.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::task::JoinHandle;

use super::buffers::{Buffer, Gate};
use super::table::{HeldFile, Sent};
use super::{Access, Files};

/// How many of the last bytes that were sent are remembered.
const REMEMBERED: usize = 256;

/// A part of a response body.
#[derive(Debug, Clone)]
pub(crate) enum Segment {
    /// These bytes of the file.
    File(Range<u64>),
    Text(Bytes),
}

impl Segment {
    pub(crate) fn length(&self) -> u64 {
        match self {
            Segment::File(range) => range.end - range.start,
            Segment::Text(text) => text.len() as u64,
        }
    }
}

/// A body. A piece is read when hyper has given the one before the last to the kernel, so a client that does not read makes it
/// hold two, while hyper alone would buffer many.
#[derive(Debug)]
pub(crate) struct Sending {
    files: Files,
    held: Arc<HeldFile>,
    segments: VecDeque<Segment>,
    sent: Sent,
    gate: Gate,
    reading: Option<JoinHandle<io::Result<Buffer>>>,
    /// The last piece was in memory, and nothing has waited since.
    is_eager: bool,
}

impl Sending {
    pub(super) fn new(files: Files, held: Arc<HeldFile>, mut segments: VecDeque<Segment>) -> Sending {
        segments.retain(|segment| segment.length() > 0);
        Sending {
            files,
            held,
            segments,
            sent: Sent::default(),
            gate: Gate::default(),
            reading: None,
            is_eager: false,
        }
    }

    fn poll_piece(&mut self, position: u64, most: usize, cx: &mut Context<'_>) -> Poll<io::Result<Buffer>> {
        if self.reading.is_none() && self.held.access() == Access::Blocking {
            match read(&self.files, &self.held, position, most, &self.sent, Access::Cached) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    self.is_eager = true;
                    return Poll::Ready(read);
                }
            }
        }
        let reading = self.reading.get_or_insert_with(|| {
            let (files, held, sent) = (self.files.clone(), Arc::clone(&self.held), self.sent.clone());
            tokio::spawn(async move {
                let (own, access) = (files.clone(), held.access());
                files.blocking(access, move |access| read(&own, &held, position, most, &sent, access)).await
            })
        });
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        Poll::Ready(read?)
    }
}

fn read(
    files: &Files,
    held: &Arc<HeldFile>,
    position: u64,
    most: usize,
    sent: &Sent,
    access: Access,
) -> io::Result<Buffer> {
    let mut buffer = files.0.buffers.take(most);
    let read = files.0.table.read(held, position, buffer.bytes(), sent, access)?;
    buffer.truncate(read);
    Ok(buffer)
}

impl Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let range = match this.segments.front() {
            None => return Poll::Ready(None),
            Some(Segment::File(range)) => range.clone(),
            Some(Segment::Text(text)) => {
                let frame = Frame::data(text.clone());
                this.segments.pop_front();
                return Poll::Ready(Some(Ok(frame)));
            }
        };
        // A file in memory is always ready. The other tasks of this worker get their turn between two pieces, and an encoder passes
        // on what it has: otherwise it would first take the whole file, and for seconds.
        if std::mem::take(&mut this.is_eager) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(this.gate.poll_open(cx));
        let left = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut piece = ready!(this.poll_piece(range.start, left.min(this.files.0.buffers.piece()), cx))?;
        let bytes = piece.as_ref();
        let end = range.start + bytes.len() as u64;
        this.sent = Sent { end, last: bytes[bytes.len().saturating_sub(REMEMBERED)..].to_vec() };
        match this.segments.front_mut() {
            Some(Segment::File(range)) if end < range.end => range.start = end,
            _ => drop(this.segments.pop_front()),
        }
        this.gate.enter(&mut piece);
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.segments.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.segments.iter().map(Segment::length).sum())
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.files.0.table.forget(&self.held);
    }
}
