//! Tests the drain on real sockets, with and without TLS. They create data that the kernel has received and tokio has not seen:
//! a test sends the request and polls the connection while the runtime has no chance to ask the kernel in between.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{pause, resume, sleep, timeout};

use super::secs;
use crate::{Conn, Drain};

#[cfg(feature = "tls")]
mod tls;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A client and its connection, which is served only while a test polls it.
struct Pair {
    drain: Drain,
    client: Box<dyn Stream>,
    serving: Pin<Box<dyn Future<Output = Result<(), BoxError>>>>,
    /// A copy of the server's socket, for asking the kernel.
    socket: OwnedFd,
    /// Notified when a request for `/wait` has come.
    begun: Arc<Notify>,
    /// Lets that request be answered.
    go: Arc<Notify>,
}

async fn connect(drain: &Drain) -> (TcpStream, Conn, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let client = TcpStream::connect(listener.local_addr().expect("it is bound")).await.expect("it listens");
    let (server, remote) = listener.accept().await.expect("it has connected");
    let socket = server.as_fd().try_clone_to_owned().expect("a descriptor");
    (client, drain.conn(server, remote), socket)
}

async fn plain() -> Pair {
    let drain = Drain::new();
    let (client, conn, socket) = connect(&drain).await;
    Pair::new(drain, client, conn, socket)
}

async fn of_both_kinds() -> Vec<(&'static str, Pair)> {
    vec![
        ("plain", plain().await),
        #[cfg(feature = "tls")]
        ("TLS", tls::pair().await),
    ]
}

impl Pair {
    fn new(drain: Drain, client: impl Stream, conn: Conn<impl Stream>, socket: OwnedFd) -> Pair {
        let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (told, may) = (Arc::clone(&begun), Arc::clone(&go));
        let service = service_fn(move |request: Request<Incoming>| {
            let (told, may) = (Arc::clone(&told), Arc::clone(&may));
            async move {
                let path = request.uri().path();
                if path == "/wait" {
                    told.notify_one();
                    may.notified().await;
                }
                Ok::<_, Infallible>(Response::new(path.to_owned()))
            }
        });
        Pair { drain, client: Box::new(client), serving: Box::pin(conn.serve(service)), socket, begun, go }
    }

    async fn ask(&mut self, path: &str) {
        let head = format!("GET {path} HTTP/1.1\r\n\r\n");
        self.client.write_all(head.as_bytes()).await.expect("still open");
        self.client.flush().await.expect("still open");
    }

    /// Sends a request, and waits until the kernel has received it, without a turn of the runtime.
    fn ask_unseen(&mut self, path: &str) {
        self.ask(path).now_or_never().expect("there is room");
        self.wait_in_kernel();
    }

    fn wait_in_kernel(&self) {
        let mut readable = [PollFd::new(&self.socket, PollFlags::IN)];
        let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
        assert_eq!(poll(&mut readable, Some(&patience)), Ok(1), "the input has not arrived");
    }

    /// Lets the runtime see the input.
    async fn arrive(&mut self) {
        let _ = timeout(Duration::from_millis(50), &mut self.serving).await;
    }

    fn poll_by_hand(&mut self) {
        assert!(self.serving.as_mut().now_or_never().is_none(), "the connection has ended");
    }

    /// Returns the remaining responses: the path of each, and whether it says that the connection will be closed.
    async fn rest(self) -> Vec<(String, bool)> {
        let Pair { mut client, serving, socket, .. } = self;
        drop(socket);
        let read = async move {
            let mut all = String::new();
            client.read_to_string(&mut all).await.expect("closed properly");
            all
        };
        let (all, _) =
            timeout(secs(20), async { tokio::join!(read, serving) }).await.expect("it is closed in time");
        let answers = all.split("HTTP/1.1 200 OK\r\n").skip(1);
        answers
            .map(|answer| {
                let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
                (body.to_owned(), head.contains("connection: close"))
            })
            .collect()
    }
}

#[tokio::test]
async fn a_request_that_only_the_kernel_has_seen_at_the_end_of_the_grace_is_answered() {
    for has_asked in [false, true] {
        for (kind, mut pair) in of_both_kinds().await {
            if has_asked {
                pair.ask("/0").await;
                let mut answer = [0; 512];
                tokio::select! {
                    read = pair.client.read(&mut answer) => assert!(read.expect("an answer") > 0),
                    served = &mut pair.serving => panic!("serving has ended: {served:?}"),
                }
            }
            pause();
            pair.drain.lame_duck(secs(5));
            pair.poll_by_hand();
            // The timer expires, but has not been polled yet.
            sleep(secs(6)).await;
            pair.ask_unseen("/1");
            pair.poll_by_hand();
            resume();
            assert_eq!(pair.rest().await, [("/1".to_owned(), true)], "{kind}, asked before: {has_asked}");
        }
    }
}

#[tokio::test]
async fn a_request_that_only_the_kernel_has_seen_behind_one_in_flight_is_answered_too() {
    for (kind, mut pair) in of_both_kinds().await {
        pair.ask("/wait").await;
        tokio::select! {
            () = pair.begun.notified() => {}
            served = &mut pair.serving => panic!("serving has ended: {served:?}"),
        }
        pair.drain.lame_duck(secs(60));
        pair.poll_by_hand();
        pair.ask_unseen("/1");
        pair.go.notify_one();
        pair.poll_by_hand();
        assert_eq!(pair.rest().await, [("/wait".to_owned(), false), ("/1".to_owned(), true)], "{kind}");
    }
}

#[tokio::test]
async fn input_behind_the_last_request_does_not_reset_the_connection() {
    let mut pair = plain().await;
    pair.client.write_all(b"GET /wait HTTP/1.1\r\nconnection: close\r\n\r\n").await.expect("still open");
    tokio::select! {
        () = pair.begun.notified() => {}
        served = &mut pair.serving => panic!("serving has ended: {served:?}"),
    }
    // More input than hyper reads while it answers, so that some is unread when the connection ends.
    pair.client.write_all(&[b'x'; 40_000]).now_or_never().expect("there is room").expect("still open");
    pair.go.notify_one();
    let Pair { mut client, serving, socket, .. } = pair;
    drop(socket);
    let read = async move {
        let mut all = String::new();
        client.read_to_string(&mut all).await.expect("closed properly");
        // RST would destroy data that a slower client has not read. On loopback FIN comes first, so only this write shows the RST.
        client.write_all(b"x").await.expect("not reset");
        all
    };
    let (all, _) =
        timeout(secs(20), async { tokio::join!(read, serving) }).await.expect("it is closed in time");
    assert!(all.ends_with("\r\n\r\n/wait"), "{all}");
}

#[tokio::test]
async fn a_head_that_was_completed_in_time_is_answered_even_if_it_is_read_late() {
    // The timeout of the first head begins at accept.
    for number in 0..2 {
        let (kind, mut pair) = of_both_kinds().await.into_iter().nth(number).expect("two");
        pair.client.write_all(b"GET /1 HT").await.expect("still open");
        pair.client.flush().await.expect("still open");
        pair.arrive().await;
        pair.poll_by_hand();
        pause();
        sleep(secs(31)).await;
        pair.client.write_all(b"TP/1.1\r\n\r\n").now_or_never().expect("there is room").expect("still open");
        pair.client.flush().now_or_never().expect("there is room").expect("still open");
        pair.wait_in_kernel();
        pair.poll_by_hand();
        resume();
        pair.drain.lame_duck(secs(0));
        assert_eq!(pair.rest().await, [("/1".to_owned(), true)], "{kind}");
    }
}

#[tokio::test]
async fn a_client_that_sends_a_byte_now_and_then_exceeds_the_header_timeout() {
    let mut pair = plain().await;
    pair.client.write_all(b"GET /1 HT").await.expect("still open");
    pair.arrive().await;
    pair.poll_by_hand();
    pause();
    sleep(secs(31)).await;
    pair.client.write_all(b"T").now_or_never().expect("there is room").expect("still open");
    pair.wait_in_kernel();
    pair.poll_by_hand();
    resume();
    assert_eq!(pair.rest().await, []);
}

/// Has the client send before and after `end`, which writes `goodbye` and ends the connection. Returns what the client reads.
async fn reads_after_sending(client: TcpStream, end: impl Future<Output = ()>) -> String {
    let mut client = client;
    client.write_all(&[b'x'; 10_000]).await.expect("still open");
    end.await;
    for _ in 0..20 {
        client.write_all(&[b'x'; 1000]).await.expect("not reset");
        sleep(Duration::from_millis(5)).await;
    }
    let mut all = String::new();
    timeout(secs(20), client.read_to_string(&mut all)).await.expect("it is closed").expect("closed properly");
    all
}

#[tokio::test]
async fn a_client_that_keeps_sending_reads_all_output_of_a_connection_that_is_shut_down_or_dropped() {
    for shuts_down in [true, false] {
        let drain = Drain::new();
        let (client, mut conn, socket) = connect(&drain).await;
        drop(socket);
        let end = async {
            conn.write_all(b"goodbye").await.expect("still open");
            if shuts_down {
                conn.shutdown().await.expect("still open");
            }
            drop(conn);
        };
        assert_eq!(reads_after_sending(client, end).await, "goodbye", "shuts down: {shuts_down}");
        timeout(secs(20), drain.empty()).await.expect("the client has ended");
    }
}

#[tokio::test]
async fn a_program_can_read_after_its_shutdown() {
    let drain = Drain::new();
    let (mut client, mut conn, socket) = connect(&drain).await;
    drop(socket);
    conn.shutdown().await.expect("still open");
    assert_eq!(client.read(&mut [0; 1]).await.expect("closed properly"), 0);
    client.write_all(b"still here").await.expect("still open");
    client.shutdown().await.expect("still open");
    let mut all = String::new();
    conn.read_to_string(&mut all).await.expect("closed properly");
    assert_eq!(all, "still here");
}

#[tokio::test]
async fn an_http2_client_that_keeps_sending_reads_the_last_goaway() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0";
    let drain = Drain::new();
    let (mut client, conn, socket) = connect(&drain).await;
    drop(socket);
    let service =
        service_fn(|_: Request<Incoming>| async { Ok::<_, Infallible>(Response::new(String::new())) });
    let serving = tokio::spawn(conn.serve(service));
    client.write_all(PREFACE).await.expect("still open");
    sleep(Duration::from_millis(50)).await;
    drain.lame_duck(secs(5));
    // The client acknowledges nothing, so it gets the last stream at once.
    timeout(secs(20), serving).await.expect("it ends").expect("it does not panic").expect("properly");
    for _ in 0..20 {
        client.write_all(b"\0\0\x08\x06\0\0\0\0\0 a ping ").await.expect("not reset");
        sleep(Duration::from_millis(5)).await;
    }
    let mut all = Vec::new();
    timeout(secs(20), client.read_to_end(&mut all)).await.expect("it is closed").expect("closed properly");
    assert!(all.ends_with(b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0"), "{all:?}");
}
