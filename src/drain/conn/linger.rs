//! The end of a connection, after our FIN. Input that is unread when a socket is closed makes the kernel send RST, which
//! destroys a response that the client has not read yet.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long, and for how many bytes, a connection is read from.
const TIME: Duration = Duration::from_secs(2);
const BYTES: usize = 64 * 1024;

pub(super) enum Linger {
    NotYet,
    /// FIN is sent; what still comes is discarded.
    Until {
        timer: Pin<Box<Sleep>>,
        left: usize,
    },
}

impl Linger {
    pub(super) fn begin() -> Linger {
        Linger::Until { timer: Box::pin(sleep_until(Instant::now() + TIME)), left: BYTES }
    }

    pub(super) fn has_begun(&self) -> bool {
        !matches!(self, Linger::NotYet)
    }

    /// Ready when the connection may be dropped.
    pub(super) fn poll<T: AsyncRead + Unpin>(&mut self, stream: &mut T, cx: &mut Context<'_>) -> Poll<()> {
        let Linger::Until { timer, left } = self else { return Poll::Ready(()) };
        let mut discarded = [0; 4096];
        while *left > 0 && timer.as_mut().poll(cx).is_pending() {
            let mut buf = ReadBuf::new(&mut discarded);
            match ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => *left = left.saturating_sub(buf.filled().len()),
                // The client has gone, which is what we waited for.
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }
}
