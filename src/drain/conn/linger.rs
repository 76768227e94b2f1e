//! The end of a connection after our FIN: further input is read and discarded until the client ends too.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::super::PAUSED;
use super::super::conn_state::{Ends, Pending};
use super::super::open_guard::OpenGuard;
use super::StreamOps;

/// How long a client may send nothing at all.
const SILENT: Duration = Duration::from_secs(2);
/// How long a client that has begun to send may pause: an upload stalls for a while when the network loses packets.
const STALLED: Duration = Duration::from_secs(5);
/// How long a client may keep sending in total.
const SENDING: Duration = Duration::from_secs(30);
/// How many clients may keep sending for longer than [`SILENT`] at a time.
pub(in crate::drain) const LINGER_PERMITS: usize = 1024;

/// Waits until the client has ended, has sent nothing or too much for too long, its slot is needed, or the drain is cut.
pub(super) async fn linger<T>(mut stream: T, mut open_guard: OpenGuard, ends: Ends, ops: StreamOps<T>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut mode = open_guard.requests().drain().0.mode.subscribe();
    let until_client_ends = async {
        let began = Instant::now();
        let patience = if ends.more { STALLED } else { SILENT };
        if ends.sent || matches!(timeout_at(began + patience, stream.shutdown()).await, Ok(Ok(()))) {
            open_guard.sent_end();
            tokio::select! {
                () = read_on(&mut stream, &open_guard, began, patience, ops) => {}
                () = open_guard.slot_needed() => {}
            }
        }
    };
    tokio::select! {
        () = until_client_ends => {}
        _ = mode.wait_for(|mode| mode.told().is_cut()) => {}
    }
    // The stream is closed before the connection stops being counted.
    drop(stream);
    drop(open_guard);
}

async fn read_on<T>(
    stream: &mut T,
    open_guard: &OpenGuard,
    began: Instant,
    patience: Duration,
    ops: StreamOps<T>,
) where
    T: AsyncRead + Unpin,
{
    let mut stalled = began + patience;
    let mut limit = stalled;
    let mut permit: Option<SemaphorePermit<'_>> = None;
    let mut discarded = [0; 4096];
    loop {
        let deadline = stalled.min(limit);
        let read = timeout_at(deadline, stream.read(&mut discarded)).await;
        let now = Instant::now();
        let was_paused = now > deadline + PAUSED;
        match read {
            // The client has ended.
            Ok(Ok(0) | Err(_)) => return,
            Err(_) if !(was_paused && (ops.arrived)(stream) == Pending::Something) => return,
            _ if was_paused => {
                limit = now + SILENT;
                stalled = limit;
            }
            // A client that sends without a pause never runs into the timeout of `read`.
            _ if now >= deadline => return,
            _ => {
                if permit.is_none() {
                    permit = open_guard.requests().drain().0.linger_permits.try_acquire().ok();
                    limit = began + if permit.is_some() { SENDING } else { SILENT };
                }
                stalled = now + STALLED;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use tokio::io::{DuplexStream, duplex};
    use tokio::time::sleep;

    use super::*;
    use crate::Drain;
    use crate::drain::requests::Requests;
    use crate::drain::slots::Pool;

    const SENT: Ends = Ends { received: false, sent: true, more: false, left: false };

    /// Returns how long `linger` takes, on a paused clock that advances only while all tasks wait.
    async fn lingers(drain: &Drain, ours: DuplexStream, ends: Ends) -> Duration {
        let began = Instant::now();
        let peer = SocketAddr::from(([192, 0, 2, 1], 1));
        let requests = Arc::new(Requests::new(drain, peer, peer, Pool::Public, began));
        let open_guard = OpenGuard::new(&requests, drain.slot_anyway(Pool::Public));
        linger(ours, open_guard, ends, StreamOps::none()).await;
        began.elapsed()
    }

    fn send_slowly(mut client: DuplexStream, pause: Duration) {
        tokio::spawn(async move {
            while client.write_all(b"drop").await.is_ok() {
                sleep(pause).await;
            }
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_gone_is_not_waited_for() {
        let (ours, mut client) = duplex(4096);
        client.write_all(b"the rest of a body").await.expect("the pipe has room");
        drop(client);
        assert_eq!(lingers(&Drain::new(), ours, SENT).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_waited_for_as_long_as_it_makes_progress() {
        let (ours, _silent) = duplex(64);
        assert_eq!(lingers(&Drain::new(), ours, SENT).await, SILENT);
        let (ours, _begun) = duplex(64);
        assert_eq!(lingers(&Drain::new(), ours, Ends { more: true, ..SENT }).await, STALLED);
        let (ours, client) = duplex(64);
        send_slowly(client, Duration::from_secs(6));
        assert_eq!(lingers(&Drain::new(), ours, SENT).await, STALLED);
        let (ours, client) = duplex(64);
        send_slowly(client, Duration::from_secs(4));
        assert_eq!(lingers(&Drain::new(), ours, SENT).await, SENDING);
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_keep_sending_hold_a_limited_number_of_sockets() {
        let drain = Drain::new();
        let lingering = (0..LINGER_PERMITS + 10).map(|_| {
            let (ours, client) = duplex(64);
            send_slowly(client, Duration::from_millis(300));
            let drain = drain.clone();
            tokio::spawn(async move { lingers(&drain, ours, SENT).await })
        });
        let lingering: Vec<_> = lingering.collect();
        let mut long = 0;
        for one in lingering {
            let took = one.await.expect("linger() does not panic");
            assert!(took == SILENT || took == SENDING, "{took:?}");
            long += usize::from(took == SENDING);
        }
        assert_eq!(long, LINGER_PERMITS);
        assert_eq!(drain.open(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_cut_ends_lingering() {
        let drain = Drain::new();
        let (ours, client) = duplex(64);
        send_slowly(client, Duration::from_millis(300));
        let cut = drain.clone();
        tokio::spawn(async move {
            sleep(Duration::from_secs(10)).await;
            cut.cut_now();
        });
        assert_eq!(lingers(&drain, ours, SENT).await, Duration::from_secs(10));
    }
}
