//! HTTP/2: requests around the beginning of the lame duck, the responses, and the end of the connection. The wire is slow, so
//! a GOAWAY can be on its way.

use std::time::Duration;

use h2::client::SendRequest;
use hyper::Request;
use hyper::body::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex, split};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::{rounded, secs};
use crate::Drain;

/// The delay of the wire in each direction.
const LATENCY: Duration = Duration::from_millis(40);

pub(super) struct Client {
    sender: SendRequest<Bytes>,
}

/// Returns an HTTP/2 client at the other end of a wire that passes `chunk` bytes per `latency`.
pub(super) async fn connect(drain: &Drain, chunk: usize, latency: Duration) -> Client {
    let (near, far) = duplex(64 * 1024);
    let (from_client, to_client) = split(far);
    let (from_server, to_server) = split(super::connect(drain));
    tokio::spawn(wire(from_client, to_server, chunk, latency));
    tokio::spawn(wire(from_server, to_client, usize::MAX, latency));
    let (sender, conn) = h2::client::handshake(near).await.expect("writing into a pipe does not fail");
    tokio::spawn(conn);
    Client { sender }
}

async fn wire(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    chunk: usize,
    latency: Duration,
) {
    let mut buf = vec![0; chunk.min(16 * 1024)];
    while let Ok(n @ 1..) = from.read(&mut buf).await {
        sleep(latency).await;
        if to.write_all(&buf[..n]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

impl Client {
    /// Sends a request. Returns the body of the response, or the error.
    pub(super) fn get(&mut self, path: &str) -> JoinHandle<String> {
        let request = Request::get(format!("http://host{path}")).body(()).expect("a valid request");
        let sent = self.sender.send_request(request, true);
        tokio::spawn(async move {
            let got = async {
                let mut body = sent?.0.await?.into_body();
                let mut text = String::new();
                while let Some(data) = body.data().await {
                    text += &String::from_utf8_lossy(&data?);
                }
                Ok::<_, h2::Error>(text)
            };
            got.await.unwrap_or_else(|e| e.to_string())
        })
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Get(&'static str),
    After(u64),
    LameDuck(u64),
    Normal,
    Cut,
}

use Step::{After, Cut, Get, LameDuck, Normal};

const ALL: usize = usize::MAX;
const CUT: &str = "stream closed because of a broken pipe";
const REFUSED: &str = "connection error received: not a result of an error";

/// Name, bytes at a time, steps, the results of the requests in order, and when the connection ends, in seconds.
type Row = (&'static str, usize, Vec<Step>, Vec<&'static str>, u64);

#[rustfmt::skip]
fn table() -> Vec<Row> {
    vec![
        ("idle", ALL, vec![After(10), LameDuck(30)], vec![], 10),
        ("idle after a response", ALL, vec![Get("/1"), After(10), LameDuck(30)], vec!["/1"], 10),
        ("accepted by a lame duck", ALL, vec![LameDuck(30), After(1)], vec![], 0),
        ("a stream in flight", ALL, vec![Get("/slow"), After(4), LameDuck(0)], vec!["/slow"], 8),
        ("a response in parts", ALL, vec![Get("/chunks"), After(3), LameDuck(0)], vec!["abc"], 6),
        ("streams of all kinds", ALL, vec![Get("/1"), Get("/chunks"), Get("/slow"), After(5), LameDuck(0)],
            vec!["/1", "abc", "/slow"], 8),
        ("a stream that crosses the GOAWAY", ALL, vec![After(1), LameDuck(0), Get("/1"), Get("/2")], vec!["/1", "/2"], 1),
        ("a stream after the GOAWAY", ALL, vec![Get("/slow"), After(4), LameDuck(0), After(1), Get("/1")],
            vec!["/slow", REFUSED], 8),
        ("a stream that ends long after the GOAWAY", ALL, vec![Get("/slow"), After(1), LameDuck(0)], vec!["/slow"], 8),
        ("streams that end long after the GOAWAY", ALL, vec![Get("/1"), Get("/chunks"), Get("/slow"), After(1), LameDuck(0)],
            vec!["/1", "abc", "/slow"], 8),
        ("a slow stream that crosses the GOAWAY", ALL, vec![After(1), LameDuck(0), Get("/1"), Get("/slow")],
            vec!["/1", "/slow"], 9),
        ("a request to a lame duck", ALL, vec![LameDuck(30), Get("/1")], vec!["/1"], 0),
        ("a byte at a time", 1, vec![Get("/1"), After(30), LameDuck(0)], vec!["/1"], 31),
        ("a byte at a time to a lame duck", 1, vec![LameDuck(30), Get("/1")], vec!["/1"], 4),
        ("a stream at the cut", ALL, vec![Get("/slow"), After(1), LameDuck(0), After(1), Cut], vec![CUT], 2),
        ("normal mode returns before GOAWAY was sent", ALL,
            vec![After(1), LameDuck(30), Normal, After(20), Get("/1"), After(1), Cut], vec!["/1"], 22),
    ]
}

/// Runs the steps. Returns the results of the requests, and when the connection was gone.
async fn run(chunk: usize, steps: &[Step]) -> (Vec<String>, u64) {
    let drain = Drain::new();
    let began = Instant::now();
    let mut client = connect(&drain, chunk, LATENCY).await;
    let mut gets = Vec::new();
    let gone = async {
        drain.empty().await;
        rounded(began)
    };
    let talk = async {
        for step in steps {
            match *step {
                Get(path) => gets.push(client.get(path)),
                After(n) => sleep(secs(n)).await,
                LameDuck(grace) => drain.lame_duck(secs(grace)),
                Normal => drain.normal(),
                Cut => drain.cut_now(),
            }
        }
        let mut bodies = Vec::new();
        for get in gets {
            bodies.push(get.await.expect("it does not panic"));
        }
        bodies
    };
    timeout(secs(3600), async { tokio::join!(talk, gone) }).await.unwrap_or((vec!["stuck".into()], 0))
}

#[tokio::test(start_paused = true)]
async fn every_http2_connection_gets_goaway_and_ends_with_its_last_stream() {
    let mut failed = Vec::new();
    for (name, chunk, steps, bodies, end) in table() {
        let (actual, actual_end) = run(chunk, &steps).await;
        if actual != bodies || actual_end != end {
            failed.push(format!("{name}: {steps:?}\n  {actual:?} {actual_end}\n  not {bodies:?} {end}"));
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

/// The preface and an empty SETTINGS.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// A GET of `/slow` as stream 1.
const HEADERS: &[u8] = b"\0\0\x09\x01\x05\0\0\0\x01\x82\x86\x04\x05/slow";
/// The beginning of a GOAWAY frame: length and type.
const GOAWAY: &[u8] = b"\0\0\x08\x07";

#[tokio::test(start_paused = true)]
async fn a_peer_that_acknowledges_nothing_is_waited_for_at_most_5_seconds() {
    let half = &PREFACE[..9];
    let with_stream = [PREFACE, HEADERS].concat();
    // Name, input, when the lame duck begins in seconds, when the connection ends, and whether there is a response.
    let table: [(_, &[u8], _, _, _); 5] = [
        ("never a preface", b"", 10, 12, false),
        ("half a preface", half, 10, 30, false),
        ("no stream", PREFACE, 10, 15, false),
        ("a stream", &with_stream, 5, 13, true),
        ("a long stream", &with_stream, 1, 13, true),
    ];
    for (name, sent, lame, end, responds) in table {
        let began = Instant::now();
        let drain = Drain::new();
        let mut client = super::connect(&drain);
        client.write_all(sent).await.expect("the server reads");
        let mut received = Vec::new();
        let lame_duck = async {
            sleep(secs(lame)).await;
            drain.lame_duck(secs(2));
        };
        let reads = timeout(secs(3600), client.read_to_end(&mut received));
        let (read, ()) = tokio::join!(reads, lame_duck);
        let has = |frame: &[u8]| received.windows(frame.len()).any(|w| w == frame);
        let actual = (read.is_ok(), rounded(began), has(GOAWAY), has(b"/slow"));
        assert_eq!(actual, (true, end, sent.len() >= PREFACE.len(), responds), "{name}");
    }
}
