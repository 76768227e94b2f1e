//! The buffers of responses. The more responses wait for their clients, the less each of them may hold.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use hyper::body::Bytes;

/// The most bytes that a response holds. A buffer for all of them, or for a piece of them, is kept for the next response: to
/// allocate one for each read costs a fifth of the throughput.
const LARGE: usize = 128 * 1024;
/// How many buffers of a response may be in use: an encoder drops one only when it gets the next.
const AT_ONCE: usize = 2;
const PIECE: usize = LARGE / AT_ONCE;
/// Below this size, a buffer is allocated for each read.
const SMALL: usize = 32 * 1024;
/// How many buffers of either size are kept.
const KEPT: usize = 16;
/// From this number of buffers in use on, each is smaller.
const MANY: usize = 160;
/// From this number of buffers in use on, each is smaller again.
const VERY_MANY: usize = 1024;
/// From this number of buffers in use on, each is a page.
const TOO_MANY: usize = 4096;

#[derive(Debug, Clone, Default)]
pub(super) struct Buffers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    in_use: AtomicUsize,
    large: Mutex<Vec<Box<[u8]>>>,
    pieces: Mutex<Vec<Box<[u8]>>>,
}

impl Shared {
    /// Returns the buffers of this size that are kept, if any are.
    fn kept(&self, size: usize) -> Option<MutexGuard<'_, Vec<Box<[u8]>>>> {
        let kept = match size {
            LARGE => &self.large,
            PIECE => &self.pieces,
            _ => return None,
        };
        Some(kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Buffers {
    /// Returns how many bytes a piece of a response may have now. It may hold [`AT_ONCE`] of them.
    pub(super) fn piece(&self) -> usize {
        self.most() / AT_ONCE
    }

    /// Returns how many bytes a response may hold now.
    pub(super) fn most(&self) -> usize {
        match self.0.in_use.load(Relaxed) {
            ..MANY => LARGE,
            MANY..VERY_MANY => 32 * 1024,
            VERY_MANY..TOO_MANY => 16 * 1024,
            TOO_MANY.. => 8 * 1024,
        }
    }

    /// Returns a buffer for this many bytes, at most [`LARGE`].
    pub(super) fn take(&self, length: usize) -> Buffer {
        self.0.in_use.fetch_add(1, Relaxed);
        let size = match length {
            ..SMALL => length,
            SMALL..=PIECE => PIECE,
            _ => LARGE,
        };
        let kept = self.0.kept(size).and_then(|mut kept| kept.pop());
        let bytes = kept.unwrap_or_else(|| vec![0; size].into());
        Buffer { bytes, length, home: Arc::clone(&self.0), gate: None }
    }
}

/// A buffer in use.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    length: usize,
    home: Arc<Shared>,
    gate: Option<Gate>,
}

impl Buffer {
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }

    /// Cuts off what lies behind the first `length` bytes.
    pub(super) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }
}

/// Closed while too many buffers of its response are in use.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate(Arc<Mutex<GateState>>);

#[derive(Debug, Default)]
struct GateState {
    in_use: usize,
    waker: Option<Waker>,
}

impl Gate {
    /// Counts a buffer until it is dropped.
    pub(super) fn enter(&self, buffer: &mut Buffer) {
        self.lock().in_use += 1;
        buffer.gate = Some(self.clone());
    }

    pub(super) fn poll_open(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.in_use < AT_ONCE {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn leave(&self) {
        let waker = {
            let mut state = self.lock();
            state.in_use -= 1;
            state.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl From<Buffer> for Bytes {
    fn from(buffer: Buffer) -> Bytes {
        Bytes::from_owner(buffer)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(gate) = &self.gate {
            gate.leave();
        }
        self.home.in_use.fetch_sub(1, Relaxed);
        if let Some(mut kept) = self.home.kept(self.bytes.len())
            && kept.len() < KEPT
        {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}
