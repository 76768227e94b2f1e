//! Tests the drain without sockets, processes or real time: `tokio::io::duplex` and a paused clock. `http1` and `http2` hold
//! one table each; this module has the service under test and the tests that do not depend on a protocol. `sockets` has the
//! tests that need a kernel.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, sleep, timeout};

use super::{ConnectInfo, Drain, DrainOptions, Drained, Pool};

mod http1;
mod http2;
mod limits;
mod options;
mod sockets;

type Body = Either<Full<Bytes>, Channel<Bytes>>;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Returns the time since `since`, to the nearest second: clocks tick in milliseconds, and some tables have a slow wire.
fn rounded(since: Instant) -> u64 {
    since.elapsed().as_secs_f64().round() as u64
}

/// Serves `answer` on one end of a pipe and returns the other.
fn connect(drain: &Drain) -> DuplexStream {
    let (client, server) = duplex(16 * 1024);
    let remote = SocketAddr::from(([192, 0, 2, 1], 1));
    tokio::spawn(drain.stream(server, remote).serve(service_fn(answer)));
    client
}

/// The service. `/hours`, `/slow`, `/large`, `/chunks`, `/echo` (upgrade; also serves CONNECT), `/keep` (upgrade), `/upload` and
/// `/closes` do as they are named; any other path is answered at once. The response repeats the path.
async fn answer(mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let is_tunnel = request.method() == Method::CONNECT;
    let path = if is_tunnel { "/echo".to_owned() } else { request.uri().path().to_owned() };
    let mut text = path.clone();
    match path.as_str() {
        "/hours" => sleep(secs(7200)).await,
        "/slow" => sleep(secs(8)).await,
        "/large" => text = "x".repeat(100_000),
        "/chunks" => {
            let (mut sender, body) = Channel::new(1);
            tokio::spawn(async move {
                for chunk in ["a", "b", "c"] {
                    sleep(secs(2)).await;
                    if sender.send_data(Bytes::from(chunk)).await.is_err() {
                        return;
                    }
                }
            });
            return Ok(Response::new(Either::Right(body)));
        }
        "/echo" | "/keep" => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = TokioIo::new(upgrade.await.expect("the connection is upgraded"));
                if path == "/keep" {
                    return sleep(secs(60)).await;
                }
                let mut buf = [0; 64];
                while let Ok(n @ 1..) = io.read(&mut buf).await {
                    io.write_all(&buf[..n]).await.expect("the client reads the echo");
                }
            });
            let mut response = Response::new(Either::Left(Full::default()));
            if is_tunnel {
                return Ok(response);
            }
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(CONNECTION, UPGRADE.into());
            response.headers_mut().insert(UPGRADE, UPGRADE.into());
            return Ok(response);
        }
        "/upload" => {
            let body = request.into_body().collect().await.map(|body| body.to_bytes());
            let body = body.as_ref().map_or("broken".into(), |bytes| String::from_utf8_lossy(bytes));
            text = format!("{path} {body}");
        }
        "/info" => text = format!("{:?}", request.extensions().get::<ConnectInfo>().map(ConnectInfo::remote)),
        _ => {}
    }
    let mut response = Response::new(Either::Left(Full::from(text)));
    if path == "/closes" {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

#[tokio::test(start_paused = true)]
async fn finish_reports_how_many_connections_finished_and_were_cut() {
    let drain = Drain::new();
    let get = async |path: &str| {
        let mut client = connect(&drain);
        let head = format!("GET {path} HTTP/1.1\r\nconnection: upgrade\r\nupgrade: upgrade\r\n\r\n");
        client.write_all(head.as_bytes()).await.expect("the server reads");
        client
    };
    let early = get("/1").await;
    sleep(secs(1)).await;
    drop(early);
    sleep(secs(1)).await;

    let idle = connect(&drain);
    let _finishes = (get("/slow").await, get("/1").await);
    let _keeps = get("/keep").await;
    let _hours = (get("/hours").await, get("/hours").await);
    let mut http2 = http2::connect(&drain, usize::MAX, Duration::from_millis(1)).await;
    let _streams = (http2.get("/hours"), http2.get("/hours"), http2.get("/1"));
    sleep(secs(2)).await;

    drain.lame_duck(secs(5));
    drop(idle);
    sleep(secs(1)).await;
    drain.lame_duck(secs(4));
    let Drained { finished, cut, requests_cut, took } = drain.clone().finish(secs(20)).await;
    assert_eq!((finished, cut, requests_cut, took.as_secs()), (3, 4, 4, 21));
    assert!(drain.open() <= 1, "only /keep, which does no I/O, may outlive the cut");
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_with_its_last_connection() {
    let drain = Drain::new();
    let mut idle = connect(&drain);
    tokio::spawn(async move { idle.read(&mut [0]).await });
    drain.lame_duck(secs(5));
    let Drained { finished, cut, requests_cut, took } = drain.finish(secs(300)).await;
    assert_eq!((finished, cut, requests_cut, took.as_secs()), (1, 0, 0, 5));
}

#[tokio::test(start_paused = true)]
async fn many_connections_are_told_one_after_the_other_and_each_has_its_whole_grace() {
    let drain = Drain::new();
    let idle: Vec<_> = (0..5000).map(|_| connect(&drain)).collect();
    sleep(secs(1)).await;
    let began = Instant::now();
    drain.lame_duck(secs(5));
    let mut ends = Vec::new();
    for mut client in idle {
        let closed = timeout(secs(60), client.read(&mut [0])).await;
        assert!(matches!(closed, Ok(Ok(0))), "{closed:?}");
        ends.push(began.elapsed());
    }
    let (first, last) = (ends.iter().min().expect("many"), ends.iter().max().expect("many"));
    assert!(
        *first >= secs(5) && *last >= *first + secs(5000) / 32_000 && *last < secs(7),
        "{first:?} to {last:?}"
    );
    drain.empty().await;
}

#[tokio::test(start_paused = true)]
async fn many_connections_stay_open_if_normal_mode_returns_while_they_are_told() {
    let drain = Drain::new();
    let mut idle: Vec<_> = (0..5000).map(|_| connect(&drain)).collect();
    sleep(secs(1)).await;
    drain.lame_duck(secs(5));
    sleep(Duration::from_millis(100)).await;
    drain.normal();
    sleep(secs(20)).await;
    assert_eq!(drain.open(), 5000);
    for client in &mut idle {
        client.write_all(b"GET /1 HTTP/1.1\r\n\r\n").await.expect("the server reads");
        let mut answer = [0; 512];
        let n = client.read(&mut answer).await.expect("an answer");
        assert!(!String::from_utf8_lossy(&answer[..n]).contains("close"));
    }
    drain.cut_now();
    timeout(secs(1), drain.empty()).await.expect("all are told of the cut at once");
}

#[tokio::test(start_paused = true)]
async fn a_full_drain_has_room_when_a_connection_ends_or_it_is_a_lame_duck() {
    let options = DrainOptions::default().half_close_timeout(Duration::ZERO);
    let drain = Drain::with_limit(2, options);
    let has_room = async || timeout(secs(1), drain.wait_for_slot(Pool::Public)).await.is_ok();
    let busy = async || {
        let mut client = connect(&drain);
        client.write_all(b"GET /hours HTTP/1.1\r\n\r\n").await.expect("the server reads");
        client
    };
    assert!(has_room().await, "none is open");
    let first = busy().await;
    assert!(has_room().await, "one is open");
    let second = busy().await;
    assert!(!has_room().await, "two are open");

    let waiting = tokio::spawn({
        let drain = drain.clone();
        async move { drain.wait_for_slot(Pool::Public).await }
    });
    sleep(secs(1)).await;
    drop(first);
    timeout(secs(1), waiting).await.expect("the waiter is woken").expect("it does not panic");

    let third = busy().await;
    assert!(!has_room().await, "two are open again");
    let waiting = tokio::spawn({
        let drain = drain.clone();
        async move { drain.wait_for_slot(Pool::Public).await }
    });
    sleep(secs(1)).await;
    drain.lame_duck(secs(30));
    timeout(secs(1), waiting).await.expect("a lame duck is never full").expect("it does not panic");
    assert!(!drain.is_normal() && has_room().await);

    let fourth = busy().await;
    drain.normal();
    assert!(!has_room().await, "three are open");
    drop(fourth);
    assert!(!has_room().await, "two are left");
    drop((second, third));
    assert!(has_room().await, "none is left");
}

#[tokio::test(start_paused = true)]
async fn the_application_learns_that_the_drain_retires_and_that_it_is_normal_again() {
    let drain = Drain::new();
    let mut retiring = drain.retiring();
    assert!(!retiring.is_retiring());
    assert!(timeout(secs(60), retiring.wait()).await.is_err());
    drain.lame_duck(secs(5));
    timeout(secs(1), retiring.wait()).await.expect("the drain retires");
    drain.normal();
    assert!(!retiring.is_retiring());
}
