//! Normal mode: the timeouts of connections that make no progress, and the order of eviction. The paused clock is exact, so
//! "closed by then" also means "not before".

use std::task::Poll;

use h2::RecvStream;
use tokio::task::JoinHandle;

use super::super::conn::StreamOps;
use super::super::{Conn, Slot};
use super::*;

const GET: &str = "GET /1 HTTP/1.1\r\n\r\n";

/// A test of one connection: name, steps, and when it is closed, in seconds.
type Row = (&'static str, Vec<Step>, u64);

enum Step {
    Send(&'static str),
    Repeat(&'static str, u64, u32),
    After(u64),
}

use Step::{After, Repeat, Send};

fn table() -> Vec<Row> {
    vec![
        ("silent", vec![], 30),
        ("empty lines", vec![Repeat("\r\n", 1, 60)], 30),
        ("half a head", vec![Send("GET / HTTP/1.1\r\na: b\r\n")], 30),
        ("a head, byte by byte", vec![Repeat("a", 1, 60)], 30),
        ("half a preface of HTTP/2", vec![Send("PRI * HT")], 30),
        ("a preface of HTTP/2", vec![Send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")], 30),
        ("half a frame", vec![Send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x10")], 30),
        (
            "HEADERS without an end",
            vec![Send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\0\0\0\0\x01\x02")],
            30,
        ),
        ("idle after a request", vec![Send(GET)], 75),
        ("idle after two requests", vec![Send(GET), After(50), Send(GET)], 125),
        ("empty lines after a request", vec![Send(GET), Repeat("\r\n", 1, 100)], 75),
        ("half a head after a request", vec![Send(GET), After(40), Send("GET / HTTP")], 70),
        (
            "a body that stops",
            vec![Send("POST /upload HTTP/1.1\r\ncontent-length: 9\r\n\r\nab"), After(20)],
            60,
        ),
        (
            "a body that goes on, and stops",
            vec![Send("POST /upload HTTP/1.1\r\ncontent-length: 9\r\n\r\nab"), Repeat("c", 50, 3)],
            210,
        ),
        ("a slow request", vec![Send("GET /hours HTTP/1.1\r\n\r\n")], 7275),
    ]
}

#[tokio::test(start_paused = true)]
async fn every_connection_without_progress_is_closed_in_time_and_not_before() {
    let mut failed = vec![];
    for (name, steps, expected) in table() {
        let (drain, began) = (Drain::new(), Instant::now());
        let (mut reader, mut writer) = tokio::io::split(connect(&drain));
        let writes = tokio::spawn(async move {
            for step in steps {
                match step {
                    Send(text) => drop(writer.write_all(text.as_bytes()).await),
                    After(time) => sleep(secs(time)).await,
                    Repeat(text, pause, times) => {
                        for _ in 0..times {
                            sleep(secs(pause)).await;
                            drop(writer.write_all(text.as_bytes()).await);
                        }
                    }
                }
            }
            // The client never ends the connection; the server does.
            std::future::pending::<()>().await;
            drop(writer);
        });
        let _ = timeout(secs(9000), reader.read_to_end(&mut vec![])).await;
        let actual = rounded(began);
        if actual != expected {
            failed.push(format!("{name}: after {actual} s, not {expected}"));
        }
        writes.abort();
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn zero_is_no_limit() {
    let zero = Duration::ZERO;
    let options = DrainOptions::default().header_timeout(zero).keep_alive_timeout(zero).body_timeout(zero);
    let drain = Drain::with_options(options.send_timeout(zero).http2_ping_interval(zero));
    let mut silent = connect(&drain);
    let mut idle = connect(&drain);
    idle.write_all(GET.as_bytes()).await.expect("the server reads");
    let mut unread = connect(&drain);
    unread.write_all(b"GET /large HTTP/1.1\r\n\r\n").await.expect("the server reads");
    sleep(secs(100_000)).await;
    assert_eq!(drain.open(), 3);
    for client in [&mut silent, &mut idle] {
        client.write_all(GET.as_bytes()).await.expect("the server reads");
    }
    let mut answer = [0; 16];
    assert!(unread.read(&mut answer).await.expect("still open") > 0);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_not_read_ends_and_one_that_is_read_slowly_does_not() {
    let (drain, began) = (Drain::new(), Instant::now());
    let mut client = connect(&drain);
    client.write_all(b"GET /large HTTP/1.1\r\n\r\n").await.expect("the server reads");
    drain.empty().await;
    assert_eq!(rounded(began), 60);
    let mut client = connect(&drain);
    client.write_all(b"GET /large HTTP/1.1\r\nconnection: close\r\n\r\n").await.expect("the server reads");
    let mut all = 0;
    let mut some = [0; 4096];
    loop {
        sleep(secs(50)).await;
        match client.read(&mut some).await.expect("still open") {
            0 => break,
            n => all += n,
        }
    }
    assert!(all > 100_000);
}

/// Returns an HTTP/2 client that gives each stream a window of this size, and the task of its connection.
async fn http2(drain: &Drain, window: u32) -> (h2::client::SendRequest<Bytes>, JoinHandle<()>) {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window);
    let (sender, conn) = builder.handshake(connect(drain)).await.expect("writing into a pipe does not fail");
    (sender, tokio::spawn(async move { drop(conn.await) }))
}

async fn get(sender: &mut h2::client::SendRequest<Bytes>, path: &str) -> RecvStream {
    let request = Request::get(format!("http://host{path}")).body(()).expect("a valid request");
    let (response, _) = sender.send_request(request, true).expect("the connection is open");
    response.await.expect("a head").into_body()
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_read_is_reset_and_the_others_stay_open() {
    let drain = Drain::new();
    let (mut sender, _conn) = http2(&drain, 1).await;
    let began = Instant::now();
    let mut stuck = get(&mut sender, "/large").await;
    let first = stuck.data().await.expect("some").expect("it is sent");
    assert_eq!(first.len(), 1);
    let error = stuck.data().await.expect("not the end").expect_err("it is reset");
    assert!(error.is_reset(), "{error}");
    assert_eq!(rounded(began), 60);
    // A client that reads a little now and then makes progress.
    let mut slow = get(&mut sender, "/chunks").await;
    let mut all = 0;
    while let Some(data) = slow.data().await {
        let data = data.expect("the stream is not reset");
        all += data.len();
        sleep(secs(40)).await;
        slow.flow_control().release_capacity(data.len()).expect("it was received");
    }
    assert_eq!(all, 3);
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_response_in_h2_does_not_keep_its_connection_open() {
    let drain = Drain::new();
    let (mut sender, conn) = http2(&drain, 1).await;
    let began = Instant::now();
    // h2 has the whole body after the first byte.
    let _stuck = get(&mut sender, "/123456").await;
    conn.await.expect("no panic");
    assert_eq!(rounded(began), 60);
}

#[tokio::test(start_paused = true)]
async fn an_idle_http2_connection_gets_goaway_and_one_with_a_request_in_flight_does_not() {
    let drain = Drain::new();
    let (mut sender, conn) = http2(&drain, 1000).await;
    let began = Instant::now();
    drop(get(&mut sender, "/1").await);
    // The PINGs of the server are answered.
    drop(get(&mut sender, "/hours").await);
    assert_eq!(rounded(began), 7200);
    conn.await.expect("no panic");
    assert_eq!(rounded(began), 7275);
    let ended = std::future::poll_fn(|cx| match sender.poll_ready(cx) {
        Poll::Ready(ready) => Poll::Ready(ready.expect_err("it is closed")),
        Poll::Pending => panic!("still open"),
    });
    assert!(ended.await.is_go_away());
}

#[tokio::test(start_paused = true)]
async fn an_http2_client_that_does_not_answer_a_ping_is_gone() {
    let (drain, began) = (Drain::new(), Instant::now());
    let mut client = connect(&drain);
    // The preface, empty SETTINGS, and GET /hours: indexed fields of HPACK and one path.
    let head = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\
                 \0\0\x0a\x01\x05\0\0\0\x01\x82\x86\x04\x06/hours";
    client.write_all(head).await.expect("the server reads");
    drain.empty().await;
    assert_eq!(rounded(began), 80);
    let mut all = vec![];
    client.read_to_end(&mut all).await.expect("a pipe has no errors");
    assert!(all.windows(8).any(|eight| eight == b"anybody?"), "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_tunnel_over_http2_stays_open() {
    let drain = Drain::new();
    let (mut sender, _conn) = http2(&drain, 1000).await;
    let request = Request::connect("host:80").body(()).expect("a valid request");
    let (response, mut to_server) = sender.send_request(request, false).expect("the connection is open");
    let mut from_server = response.await.expect("a head").into_body();
    sleep(secs(3600)).await;
    to_server.send_data(Bytes::from_static(b"still there?"), false).expect("still open");
    assert_eq!(from_server.data().await.expect("not the end").expect("still open"), "still there?");
}

/// Connects through a slot of the pool, and returns the client if there is one within 5 s.
async fn enter(drain: &Drain, pool: Pool) -> Option<DuplexStream> {
    let slot: Slot = timeout(secs(5), drain.slot(pool)).await.ok()?;
    let (client, server) = duplex(16 * 1024);
    let peer = SocketAddr::from(([192, 0, 2, 1], 1));
    let conn = Conn::new(server, peer, peer, drain, slot, StreamOps::none());
    tokio::spawn(conn.serve(service_fn(answer)));
    Some(client)
}

async fn is_open(client: &mut DuplexStream) -> bool {
    let mut all = [0; 4096];
    loop {
        match timeout(secs(1), client.read(&mut all)).await {
            Ok(Ok(0) | Err(_)) => return false,
            Ok(Ok(_)) => {}
            Err(_) => return true,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn silent_connections_are_evicted_first_then_incomplete_then_idle_and_never_busy_ones() {
    let drain = Drain::with_limit(5, DrainOptions::default());
    let mut clients = vec![];
    for text in ["GET /hours HTTP/1.1\r\n\r\n", GET, GET, "GET / HT", ""] {
        let mut client = enter(&drain, Pool::Public).await.expect("there is room");
        client.write_all(text.as_bytes()).await.expect("the server reads");
        clients.push(client);
        sleep(Duration::from_millis(10)).await;
    }
    // A connection that has just been accepted is not evicted.
    assert!(timeout(Duration::from_millis(50), drain.wait_for_slot(Pool::Public)).await.is_err());
    sleep(secs(2)).await;
    let mut order = vec![];
    for _ in 0..4 {
        let mut client = enter(&drain, Pool::Public).await.expect("room is made");
        client.write_all(b"GET /hours HTTP/1.1\r\n\r\n").await.expect("the server reads");
        clients.push(client);
        for (number, client) in clients.iter_mut().enumerate().take(5) {
            if !order.contains(&number) && !is_open(client).await {
                order.push(number);
            }
        }
        assert_eq!(drain.0.pools.open(Pool::Public), 5);
    }
    assert_eq!(order, [4, 3, 1, 2]);
    assert!(enter(&drain, Pool::Public).await.is_none(), "all are busy");
    assert!(enter(&drain, Pool::Reserved).await.is_some(), "the reserved pool has room");
}

#[tokio::test(start_paused = true)]
async fn an_evicted_http2_connection_gets_goaway() {
    let drain = Drain::with_limit(1, DrainOptions::default());
    let mut client = enter(&drain, Pool::Public).await.expect("there is room");
    let head = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x0a\x01\x05\0\0\0\x01\x82\x86\x04\x06/23456";
    client.write_all(head).await.expect("the server reads");
    sleep(secs(2)).await;
    assert!(enter(&drain, Pool::Public).await.is_some());
    let mut all = vec![];
    client.read_to_end(&mut all).await.expect("a pipe has no errors");
    let goaway = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\x01\0\0\0\0";
    assert!(all.ends_with(goaway), "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn incomplete_headers_are_evicted_and_a_response_that_is_not_read_is_not() {
    let head = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let drain = Drain::with_limit(2, DrainOptions::default());
    // A window of one byte, and a request for a longer response.
    let stuck = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\x01\
                  \0\0\x0a\x01\x05\0\0\0\x01\x82\x86\x04\x06/23456";
    let mut busy = enter(&drain, Pool::Public).await.expect("there is room");
    busy.write_all(stuck).await.expect("the server reads");
    let mut unfinished = enter(&drain, Pool::Public).await.expect("there is room");
    unfinished
        .write_all(&[&head[..], b"\0\0\x02\x01\x01\0\0\0\x01\x82\x86"].concat())
        .await
        .expect("the server reads");
    sleep(secs(2)).await;
    let mut third = enter(&drain, Pool::Public).await.expect("room is made");
    third.write_all(b"GET /hours HTTP/1.1\r\n\r\n").await.expect("the server reads");
    assert!(!is_open(&mut unfinished).await && is_open(&mut busy).await);
    assert!(enter(&drain, Pool::Public).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn lingering_connections_do_not_block_new_ones() {
    let drain = Drain::with_limit(1, DrainOptions::default());
    let mut clients = vec![];
    for number in 0..40 {
        let began = Instant::now();
        let mut client = enter(&drain, Pool::Public).await.expect("room is made");
        let waited = began.elapsed();
        // 16 linger without a slot, and the 17th keeps its slot.
        assert!(waited < Duration::from_millis(if number < 17 { 20 } else { 150 }), "{number}: {waited:?}");
        // The client is answered before it has sent its body, and sends no more of it.
        client.write_all(b"POST /1 HTTP/1.1\r\ncontent-length: 9\r\n\r\nab").await.expect("the server reads");
        let mut answer = vec![];
        client.read_to_end(&mut answer).await.expect("it is answered");
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        clients.push(client);
        assert!(drain.open() <= 18, "{}", drain.open());
    }
}
