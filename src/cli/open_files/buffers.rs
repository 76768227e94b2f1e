//! The buffers of responses. The more responses wait for their clients, the less each of them may hold.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use hyper::body::Bytes;

/// The largest buffer. Buffers of this size are kept for the next response: to allocate one for each read costs a fifth of the
/// throughput.
const LARGE: usize = 128 * 1024;
/// How many buffers are kept.
const KEPT: usize = 16;
/// From this number of buffers in use on, each is smaller.
const MANY: usize = 256;
/// From this number of buffers in use on, each is as small as is sensible.
const VERY_MANY: usize = 1024;

#[derive(Debug, Clone, Default)]
pub(super) struct Buffers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    free: Mutex<Vec<Box<[u8]>>>,
    in_use: AtomicUsize,
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
            VERY_MANY.. => 16 * 1024,
        }
    }

    /// Returns a buffer for this many bytes.
    pub(super) fn take(&self, length: usize) -> Buffer {
        self.0.in_use.fetch_add(1, Relaxed);
        // A small buffer is not worth a large one.
        let kept = if length > LARGE / 4 {
            let kept = self.0.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
            Some(kept.unwrap_or_else(|| vec![0; LARGE].into()))
        } else {
            None
        };
        Buffer {
            bytes: kept.unwrap_or_else(|| vec![0; length].into()),
            length,
            home: Arc::clone(&self.0),
            gate: None,
        }
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

/// How many buffers of a response may be in use: an encoder drops one only when it gets the next.
const AT_ONCE: usize = 2;

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
        if self.bytes.len() == LARGE {
            let mut free = self.home.free.lock().unwrap_or_else(PoisonError::into_inner);
            if free.len() < KEPT {
                free.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}
