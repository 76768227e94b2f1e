//! What an application changes in hyper's builders, and what its requests carry.

use std::cell::Cell;
use std::rc::Rc;

use tokio::task::{LocalSet, spawn_local};

use super::*;
use crate::drain::frames::PREFACE;

/// The type of the first frame (RFC 9113, section 6.5).
const SETTINGS: u8 = 4;

/// Returns the whole response.
async fn get(drain: &Drain, path: &str) -> String {
    let mut client = connect(drain);
    let head = format!("GET {path} HTTP/1.1\r\nconnection: close\r\n\r\n");
    client.write_all(head.as_bytes()).await.expect("the server reads");
    let mut all = String::new();
    client.read_to_string(&mut all).await.expect("the server closes");
    all
}

#[tokio::test(start_paused = true)]
async fn the_options_of_hyper_are_applied_last_to_http1() {
    let plain = get(&Drain::new(), "/x").await;
    assert!(plain.contains("content-length: 2\r\n"), "{plain}");
    let options = DrainOptions::default().http1(|http1| {
        http1.title_case_headers(true);
    });
    let changed = get(&Drain::with_options(options), "/x").await;
    assert!(changed.contains("Content-Length: 2\r\n"), "{changed}");
}

/// Returns the settings that the server sends first, by number.
async fn settings(options: DrainOptions) -> Vec<(u16, u32)> {
    let mut client = connect(&Drain::with_options(options));
    client.write_all(PREFACE).await.expect("the server reads");
    client.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).await.expect("the server reads");
    let mut head = [0; 9];
    client.read_exact(&mut head).await.expect("a frame");
    assert_eq!(head[3], SETTINGS);
    let mut payload = vec![0; usize::from(head[2])];
    client.read_exact(&mut payload).await.expect("a whole frame");
    let setting =
        |of: &[u8]| (u16::from_be_bytes([of[0], of[1]]), u32::from_be_bytes([of[2], of[3], of[4], of[5]]));
    payload.chunks(6).map(setting).collect()
}

#[tokio::test(start_paused = true)]
async fn the_options_of_hyper_are_applied_last_to_http2() {
    const STREAMS: u16 = 3;
    const CONNECT: u16 = 8;
    let plain = settings(DrainOptions::default()).await;
    assert!(plain.contains(&(STREAMS, crate::defaults::HTTP2_MAX_CONCURRENT_STREAMS)), "{plain:?}");
    assert!(!plain.iter().any(|(number, _)| *number == CONNECT), "{plain:?}");
    let changed = DrainOptions::default().http2_extended_connect(true).http2(|http2| {
        http2.max_concurrent_streams(7);
    });
    let changed = settings(changed).await;
    assert!(changed.contains(&(STREAMS, 7)) && changed.contains(&(CONNECT, 1)), "{changed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_carries_its_connection_only_if_asked() {
    assert!(get(&Drain::new(), "/info").await.ends_with("None"));
    let drain = Drain::with_options(DrainOptions::default().connect_info(true));
    assert!(get(&drain, "/info").await.ends_with("Some(192.0.2.1:1)"));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_stays_on_its_thread_is_served_with_either_protocol_and_drained() {
    let (drain, count) = (Drain::new(), Rc::new(Cell::new(0)));
    let connect = || {
        let (client, server) = duplex(16 * 1024);
        let count = Rc::clone(&count);
        let service = service_fn(move |_: Request<Incoming>| {
            let count = Rc::clone(&count);
            async move {
                sleep(secs(1)).await;
                count.set(count.get() + 1);
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("local")))
            }
        });
        spawn_local(drain.stream(server, SocketAddr::from(([192, 0, 2, 1], 1))).serve_local(service));
        client
    };
    let serve = async {
        let mut http1 = connect();
        http1.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("the server reads");
        let (mut requests, connection) = h2::client::handshake(connect()).await.expect("HTTP/2");
        spawn_local(connection);
        let request = || Request::get("http://test/").body(()).expect("valid");
        let mut answers = vec![];
        for _ in 0..3 {
            requests = requests.ready().await.expect("the connection is open");
            answers.push(requests.send_request(request(), true).expect("the connection is open").0);
        }
        sleep(Duration::from_millis(100)).await;
        drain.lame_duck(secs(1));
        for answer in answers {
            let body = answer.await.expect("no error").into_body().data().await;
            assert_eq!(body.expect("a body").expect("no error"), "local");
        }
        let mut all = String::new();
        http1.read_to_string(&mut all).await.expect("closed properly");
        assert!(all.contains("connection: close") && all.ends_with("local"), "{all}");
        drop(requests);
        let drained = drain.clone().finish(secs(10)).await;
        assert_eq!((drained.finished, drained.cut), (2, 0));
    };
    LocalSet::new().run_until(serve).await;
    assert_eq!(count.get(), 4);
}
