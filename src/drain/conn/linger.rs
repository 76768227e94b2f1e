//! The end of a connection, after our FIN. Input that is unread when a socket is closed makes the kernel send RST, which
//! destroys a response that the client has not read yet.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long, and for how many bytes, a connection is read from.
const TIME: Duration = Duration::from_secs(2);
const BYTES: usize = 64 * 1024;

pub(super) enum Linger {
    NotYet,
    /// FIN is sent; what still comes is discarded. There is a timer only once the client is waited for: most have gone by
    /// now, and it costs more than all else here.
    Until {
        timer: Option<Pin<Box<Sleep>>>,
        left: usize,
    },
}

impl Linger {
    pub(super) fn begin() -> Linger {
        Linger::Until { timer: None, left: BYTES }
    }

    pub(super) fn has_begun(&self) -> bool {
        !matches!(self, Linger::NotYet)
    }

    /// Ready when the connection may be dropped.
    pub(super) fn poll<T: AsyncRead + Unpin>(&mut self, stream: &mut T, cx: &mut Context<'_>) -> Poll<()> {
        let Linger::Until { timer, left } = self else { return Poll::Ready(()) };
        let mut discarded = [0; 1024];
        while *left > 0 {
            let mut buf = ReadBuf::new(&mut discarded);
            match Pin::new(&mut *stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    *left = left.saturating_sub(buf.filled().len());
                }
                // The client has gone, which is what we waited for.
                Poll::Ready(Ok(()) | Err(_)) => break,
                Poll::Pending => return timer.get_or_insert_with(|| Box::pin(sleep(TIME))).as_mut().poll(cx),
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;

    /// How long it takes, in a time that passes only while everybody waits.
    async fn linger(mut ours: DuplexStream) -> Duration {
        let began = Instant::now();
        let mut linger = Linger::begin();
        poll_fn(|cx| linger.poll(&mut ours, cx)).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_gone_is_not_waited_for() {
        let (ours, mut client) = duplex(BYTES);
        client.write_all(b"the rest of a body").await.expect("there is room");
        drop(client);
        assert_eq!(linger(ours).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stays_is_waited_for_as_long_whether_it_sends_or_not() {
        let (ours, _client) = duplex(BYTES);
        assert_eq!(linger(ours).await, TIME);
        let (ours, mut client) = duplex(BYTES);
        tokio::spawn(async move {
            while client.write_all(b"drop").await.is_ok() {
                sleep(Duration::from_millis(300)).await;
            }
        });
        assert_eq!(linger(ours).await, TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_floods_is_not_read_for_ever() {
        let (ours, mut client) = duplex(2 * BYTES);
        client.write_all(&vec![0; 2 * BYTES]).await.expect("there is room");
        assert_eq!(linger(ours).await, Duration::ZERO);
    }
}
