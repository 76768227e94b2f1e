//! HTTP/1: input around the beginning of the lame duck, the responses, and the end of the connection.

use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::time::{Instant, sleep, timeout};

use super::{connect, rounded, secs};
use crate::{Drain, DrainOptions};

#[derive(Debug, Clone, Copy)]
enum Step {
    Send(&'static str),
    /// Sends this many meaningless bytes, as far as the server reads them.
    Flood(usize),
    /// Half-closes the connection, but continues to read.
    Fin,
    After(u64),
    /// Begins the lame duck with this many seconds of grace.
    LameDuck(u64),
    Normal,
    Cut,
}

use Step::{After, Cut, Fin, Flood, LameDuck, Normal, Send};

/// When, in seconds, the client has read the end, and when the connection is no longer counted as open. A client closes its
/// connection once it has read the end, but not before its last step.
#[derive(Debug, PartialEq)]
struct Ends(u64, u64);

/// Returns a response that leaves the connection open.
fn kept(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Returns a response after which the connection is closed.
fn last(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Returns a response to an HTTP/1.0 client.
fn http10(connection: &str, body: &str) -> String {
    format!("HTTP/1.0 200 OK\r\nconnection: {connection}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn chunked(connection: &str) -> String {
    let head = format!("HTTP/1.1 200 OK\r\n{connection}transfer-encoding: chunked\r\n\r\n");
    head + "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n"
}

const GET: &str = "GET /1 HTTP/1.1\r\n\r\n";
const SLOW: &str = "GET /slow HTTP/1.1\r\n\r\n";
const TWO: &str = "GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n";
const SLOW_AND_TWO: &str = "GET /slow HTTP/1.1\r\n\r\nGET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n";
const CHUNKS: &str = "GET /chunks HTTP/1.1\r\n\r\n";
const UPLOAD: &str = "POST /upload HTTP/1.1\r\ncontent-length: 4\r\n\r\n";
const EXPECT: &str = "POST /upload HTTP/1.1\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n";
const CLOSE: &str = "GET /1 HTTP/1.1\r\nconnection: close\r\n\r\n";
const ECHO: &str = "GET /echo HTTP/1.1\r\nconnection: upgrade\r\nupgrade: upgrade\r\n\r\n";
const KEEP: &str = "GET /keep HTTP/1.1\r\nconnection: upgrade\r\nupgrade: upgrade\r\n\r\n";
const HOURS: &str = "GET /hours HTTP/1.1\r\n\r\n";
const CHUNKED_UPLOAD: &str = "POST /upload HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n";
const UPLOAD_AND_GET: &str = "POST /upload HTTP/1.1\r\ncontent-length: 4\r\n\r\nabcdGET /1 HTTP/1.1\r\n\r\n";
const BODY_AND_TWO: &str = "GET /1 HTTP/1.1\r\ncontent-length: 4\r\n\r\nabcdGET /2 HTTP/1.1\r\n\r\n";
const GET_AND_EMPTY: &str = "GET /1 HTTP/1.1\r\n\r\n\r\n";
const SLOW_AND_EMPTY: &str = "GET /slow HTTP/1.1\r\n\r\n\r\n";
const HTTP10: &str = "GET /1 HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
const HTTP10_CHUNKS: &str = "GET /chunks HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
const HTTP10_CLOSES: &str = "GET /1 HTTP/1.0\r\n\r\n";
const CLOSES: &str = "GET /closes HTTP/1.1\r\n\r\n";
const HTTP10_TO_CLOSES: &str = "GET /closes HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: upgrade\r\n\r\n";

/// The rows: name, steps, responses (without `date`), and the times of the end.
#[rustfmt::skip]
fn table() -> Vec<(&'static str, Vec<Step>, String, Ends)> {
    vec![
        ("nothing is sent", vec![LameDuck(5)], String::new(), Ends(5, 5)),
        ("nothing is sent before or for long", vec![After(20), LameDuck(5)], String::new(), Ends(25, 25)),
        ("accepted by a lame duck", vec![LameDuck(5), After(4), Send(GET)], last("/1"), Ends(4, 4)),
        ("no grace at all", vec![LameDuck(0)], String::new(), Ends(0, 0)),
        ("the grace is made shorter", vec![LameDuck(30), After(2), LameDuck(5)], String::new(), Ends(5, 5)),
        ("idle after a response", vec![Send(GET), After(10), LameDuck(5)], kept("/1"), Ends(15, 15)),
        ("a request within the grace", vec![Send(GET), After(10), LameDuck(5), After(4), Send(GET)],
            kept("/1") + &last("/1"), Ends(14, 14)),
        ("a request at the very moment", vec![Send(GET), After(10), LameDuck(5), Send(GET)],
            kept("/1") + &last("/1"), Ends(10, 10)),

        ("half a head", vec![Send("GET /1 HT"), After(10), LameDuck(5)], String::new(), Ends(30, 30)),
        ("half a head to a lame duck", vec![LameDuck(5), After(4), Send("GET /1 HT")], String::new(), Ends(30, 30)),
        ("half a head in normal mode", vec![Send("GET /1 HT")], String::new(), Ends(30, 30)),
        ("a second head that is not completed", vec![Send(GET), After(10), Send("GET /1 HT"), After(5), LameDuck(5)],
            kept("/1"), Ends(40, 40)),
        ("a head a line at a time", vec![Send("GET /1 HTTP/1.1\r\n"), After(1), LameDuck(5), After(20),
            Send("a: b\r\n"), After(8), Send("\r\n")], last("/1"), Ends(29, 29)),

        ("every head begins behind a request", vec![Send("GET /1 HT"), After(20), Send("TP/1.1\r\n\r\nGET /2 HT"), After(20),
            Send("TP/1.1\r\n\r\n"), After(60), Cut], kept("/1") + &kept("/2"), Ends(100, 100)),

        ("half a body that is completed", vec![Send(UPLOAD), Send("ab"), After(1), LameDuck(5), After(60), Send("cd")],
            last("/upload abcd"), Ends(61, 61)),
        ("half a body that is not completed", vec![Send(UPLOAD), Send("ab"), After(1), LameDuck(5), After(99), Cut],
            String::new(), Ends(100, 100)),
        ("a request, and a body long after", vec![Send(GET), Send(UPLOAD), LameDuck(5), After(60), Send("abcd")],
            kept("/1") + &last("/upload abcd"), Ends(60, 60)),
        ("an upload that asks first", vec![Send(EXPECT), After(1), LameDuck(5), After(20), Send("abcd")],
            CONTINUE.to_owned() + &last("/upload abcd"), Ends(21, 21)),
        ("an upload that asks a lame duck", vec![LameDuck(5), Send(EXPECT), After(20), Send("abcd")],
            CONTINUE.to_owned() + &last("/upload abcd"), Ends(20, 20)),

        ("two requests, then lame duck", vec![Send(TWO), LameDuck(5)], kept("/1") + &last("/2"), Ends(0, 0)),
        ("lame duck, then two requests", vec![Send(GET), After(1), LameDuck(5), Send(TWO)],
            kept("/1") + &kept("/1") + &last("/2"), Ends(1, 1)),
        ("three requests, the first in flight", vec![Send(SLOW_AND_TWO), After(1), LameDuck(5)],
            kept("/slow") + &kept("/1") + &last("/2"), Ends(8, 8)),
        ("three requests to a lame duck", vec![LameDuck(5), After(1), Send(SLOW_AND_TWO)],
            kept("/slow") + &kept("/1") + &last("/2"), Ends(9, 9)),
        ("a request behind one in flight", vec![Send(SLOW), After(1), LameDuck(5), After(1), Send(GET)],
            kept("/slow") + &last("/1"), Ends(8, 8)),
        ("a request and half of the next", vec![LameDuck(5), Send(SLOW), Send("GET /1 HT"), After(10), Send("TP/1.1\r\n\r\n")],
            kept("/slow") + &last("/1"), Ends(10, 10)),

        ("a slow service", vec![Send(SLOW), After(1), LameDuck(5)], last("/slow"), Ends(8, 8)),
        ("a slow service at the cut", vec![Send(SLOW), After(1), LameDuck(5), After(3), Cut], String::new(), Ends(4, 4)),
        ("a response with its head sent", vec![Send(CHUNKS), After(1), LameDuck(5)], chunked(""), Ends(11, 11)),
        ("half of the next, late", vec![LameDuck(5), Send(SLOW), Send("GET /1 HT"), After(20), Send("TP/1.1\r\n\r\n")],
            kept("/slow") + &last("/1"), Ends(20, 20)),
        ("half of the next to a normal server", vec![Send(SLOW), Send("GET /1 HT"), After(100)],
            kept("/slow"), Ends(38, 40)),
        ("an empty line after a request", vec![Send(GET), After(1), Send("\r\n"), After(100), LameDuck(5)],
            kept("/1"), Ends(106, 106)),
        ("a response in parts, and a request", vec![Send(CHUNKS), After(1), LameDuck(5), After(7), Send(GET)],
            chunked("") + &last("/1"), Ends(8, 8)),
        ("a response in parts from a lame duck", vec![LameDuck(1), Send(CHUNKS)], chunked("connection: close\r\n"), Ends(6, 6)),

        ("an upgraded connection", vec![Send(ECHO), After(1), LameDuck(5), After(99), Send("ping"), After(1), Cut],
            SWITCHED.to_owned() + "ping", Ends(101, 101)),
        ("an upgrade by a lame duck", vec![LameDuck(5), Send(ECHO), After(99), Send("ping"), After(1), Fin],
            SWITCHED.to_owned() + "ping", Ends(100, 100)),
        ("an upgraded connection that the application keeps", vec![LameDuck(5), Send(KEEP), After(1), Fin],
            SWITCHED.to_owned(), Ends(60, 60)),
        ("an upgraded connection that is kept beyond the cut", vec![LameDuck(5), Send(KEEP), After(1), Cut],
            SWITCHED.to_owned(), Ends(60, 60)),

        ("normal mode returns", vec![Send(GET), After(1), LameDuck(5), After(4), Normal, After(95), Send(GET), Cut],
            kept("/1"), Ends(100, 100)),
        ("normal mode returns and a request is answered", vec![Send(GET), After(1), LameDuck(5), After(4), Normal, After(95), Send(GET), After(50), Cut],
            kept("/1") + &kept("/1"), Ends(150, 150)),
        ("normal mode returns during a request", vec![Send(SLOW), After(1), LameDuck(5), After(1), Normal, After(98), Cut],
            kept("/slow"), Ends(100, 100)),
        ("normal mode returns and the drain retires again", vec![LameDuck(5), After(4), Normal, After(16), LameDuck(5)],
            String::new(), Ends(25, 25)),

        ("an end behind a request", vec![Send(SLOW), Fin, After(60)], kept("/slow"), Ends(8, 8)),
        ("an end behind a request to a lame duck", vec![LameDuck(5), Send(SLOW), After(1), Fin, After(60)],
            last("/slow"), Ends(8, 8)),
        ("an end behind a response with its head sent", vec![Send(CHUNKS), After(1), Fin, After(60)], chunked(""), Ends(6, 6)),
        ("an end behind three requests", vec![Send(SLOW_AND_TWO), Fin, After(60)],
            kept("/slow") + &kept("/1") + &kept("/2"), Ends(8, 8)),
        ("an end behind half a head", vec![Send(SLOW), Send("GET /1 HT"), Fin, After(60)], kept("/slow"), Ends(8, 8)),
        ("an end behind an upload", vec![Send(UPLOAD), Send("abcd"), Fin, After(60)], kept("/upload abcd"), Ends(0, 0)),
        ("an end behind an upload in chunks", vec![Send(CHUNKED_UPLOAD), Send("0\r\n\r\n"), Fin, After(60)],
            kept("/upload abcd"), Ends(0, 0)),
        ("an end in the middle of an upload", vec![Send(UPLOAD), Send("ab"), After(1), Fin, After(60)],
            kept("/upload broken"), Ends(1, 1)),
        ("an end in the middle of an upload in chunks", vec![Send(CHUNKED_UPLOAD), After(1), Fin, After(60)],
            kept("/upload broken"), Ends(1, 1)),
        ("an end when nothing is in flight", vec![Send(GET), After(1), Fin, After(60)], kept("/1"), Ends(1, 1)),
        ("an end behind a request without progress", vec![Send(HOURS), After(1), Fin, After(60)], String::new(), Ends(31, 31)),
        ("an end behind a request at the cut", vec![Send(HOURS), After(1), Fin, After(4), Cut], String::new(), Ends(5, 5)),

        ("a request behind a body to a lame duck", vec![LameDuck(5), Send(UPLOAD_AND_GET)],
            kept("/upload abcd") + &last("/1"), Ends(0, 0)),
        ("a request behind a body that is not read", vec![LameDuck(5), Send(BODY_AND_TWO)],
            kept("/1") + &last("/2"), Ends(0, 0)),
        ("an empty line in the same segment", vec![Send(GET_AND_EMPTY), After(100), LameDuck(5)], kept("/1"), Ends(105, 105)),
        ("an empty line in the same segment to a lame duck", vec![LameDuck(5), Send(GET_AND_EMPTY)], last("/1"), Ends(0, 0)),
        ("an empty line behind a request in flight", vec![Send(SLOW_AND_EMPTY), After(1), LameDuck(5)], last("/slow"), Ends(8, 8)),
        ("an empty line and a request behind one in flight", vec![LameDuck(5), Send(SLOW_AND_EMPTY), After(1), Send(GET)],
            kept("/slow") + &last("/1"), Ends(8, 8)),
        ("an empty line and an end", vec![Send(SLOW_AND_EMPTY), After(1), Fin, After(60)], kept("/slow"), Ends(8, 8)),

        ("HTTP/1.0 with keep-alive", vec![Send(HTTP10), After(1), Send(HTTP10), After(10), LameDuck(5), After(1), Send(HTTP10)],
            http10("keep-alive", "/1") + &http10("keep-alive", "/1") + &http10("close", "/1"), Ends(12, 12)),
        ("HTTP/1.0 without keep-alive to a lame duck", vec![LameDuck(5), Send(HTTP10_CLOSES)], http10("close", "/1"), Ends(0, 0)),
        ("HTTP/1.0 and a response without length", vec![LameDuck(5), Send(HTTP10_CHUNKS)],
            "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nabc".to_owned(), Ends(6, 6)),
        ("HTTP/1.0 and a handler that closes", vec![Send(HTTP10_TO_CLOSES)], http10("close", "/closes"), Ends(0, 0)),
        ("HTTP/1.1 and a handler that closes", vec![Send(CLOSES)], last("/closes"), Ends(0, 0)),

        ("a client that stays", vec![LameDuck(5), After(1), Send(GET), After(60)], last("/1"), Ends(1, 3)),
        ("a client that stays without a request", vec![LameDuck(5), After(60)], String::new(), Ends(5, 7)),
        ("a client that stays and sends", vec![LameDuck(5), Send(SLOW), After(9), Send("?"), After(60)],
            last("/slow"), Ends(8, 14)),
        ("a client that keeps sending", vec![LameDuck(5), Send(GET), After(1), Flood(60 << 20), After(60)],
            last("/1"), Ends(0, 6)),
        ("a client that keeps sending behind a body", vec![LameDuck(5), Send(UPLOAD), Send("abcd"), Flood(60 << 20), After(60)],
            kept("/upload abcd") + "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", Ends(0, 5)),
        ("a client that asks for the close", vec![LameDuck(5), Send(CLOSE), After(60)], last("/1"), Ends(0, 0)),
        ("a client that asks for the close of a normal server", vec![Send(CLOSE), After(60)], last("/1"), Ends(0, 0)),
        ("a client that has sent its end", vec![LameDuck(5), Send(SLOW), Send("GET /1 HT"), After(1), Fin, After(60)],
            kept("/slow"), Ends(8, 8)),
    ]
}

/// Runs the steps. Returns the responses and the times of the end.
async fn run(steps: &[Step]) -> (String, Ends) {
    let began = Instant::now();
    let drain = Drain::with_options(
        DrainOptions::default().half_close_timeout(secs(30)).keep_alive_timeout(secs(3600)),
    );
    let (mut reader, mut writer) = split(connect(&drain));
    let gone = async {
        drain.empty().await;
        rounded(began)
    };
    let client = async {
        let reads = async {
            let mut received = Vec::new();
            reader.read_to_end(&mut received).await.expect("a pipe has no errors");
            (received, rounded(began))
        };
        let writes = async {
            for step in steps {
                // A write fails if the server has closed the connection, as it does in some rows.
                match *step {
                    Send(text) => drop(writer.write_all(text.as_bytes()).await),
                    Flood(n) => drop(writer.write_all(&vec![b'?'; n]).await),
                    Fin => drop(writer.shutdown().await),
                    After(n) => sleep(secs(n)).await,
                    LameDuck(grace) => drain.lame_duck(secs(grace)),
                    Normal => drain.normal(),
                    Cut => drain.cut_now(),
                }
            }
        };
        let ((received, end), ()) = tokio::join!(reads, writes);
        drop((reader, writer));
        (received, end)
    };
    let ((received, end), gone) =
        timeout(secs(3600), async { tokio::join!(client, gone) }).await.unwrap_or(((b"stuck".into(), 0), 0));
    let received = String::from_utf8_lossy(&received).into_owned();
    let lines = received.split_inclusive("\r\n").filter(|line| !line.starts_with("date: "));
    (lines.collect(), Ends(end, gone))
}

#[tokio::test(start_paused = true)]
async fn every_http1_connection_ends_when_no_request_can_be_lost() {
    let mut failed = Vec::new();
    for (name, steps, response, ends) in table() {
        let (actual, actual_ends) = run(&steps).await;
        if (&actual, &actual_ends) != (&response, &ends) {
            failed.push(format!(
                "{name}: {steps:?}\n  {actual:?} {actual_ends:?}\n  not {response:?} {ends:?}"
            ));
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn a_half_close_while_the_rest_of_a_response_is_written_waits_for_it() {
    let drain = Drain::with_options(DrainOptions::default().half_close_timeout(secs(30)));
    let mut client = connect(&drain);
    client.write_all(b"GET /large HTTP/1.1\r\n\r\n").await.expect("the server reads");
    // hyper has the whole response by then, and the pipe is full.
    sleep(secs(1)).await;
    client.shutdown().await.expect("a pipe has no errors");
    sleep(secs(1)).await;
    let mut all = String::new();
    client.read_to_string(&mut all).await.expect("a pipe has no errors");
    let (_, body) = all.split_once("\r\n\r\n").expect("a head");
    assert_eq!(body.len(), 100_000);
}
