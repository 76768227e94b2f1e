//! gRPC: calls that are never retried once they are sent, and streams that end themselves.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use support::harness::{hand_over, wait_until};
use support::process::PATIENCE;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::{assert_nobody_was_cut, start};

#[allow(dead_code, reason = "the client needs the messages only")]
#[path = "../../../examples/tonic/clock.rs"]
mod clock;
use clock::{Ask, Time};

type Client = Grpc<Channel>;

async fn connect(address: SocketAddr) -> Result<Client, Status> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address makes a URI");
    let channel = endpoint.connect().await.map_err(|e| Status::unavailable(format!("connect: {e:?}")))?;
    Ok(Grpc::new(channel))
}

fn ask() -> Request<Ask> {
    Request::new(Ask { name: "test".to_owned() })
}

/// Returns whether tonic's client refused to send the call because its connection had received GOAWAY a moment before.
/// Other clients then open a new connection by themselves (<https://github.com/hyperium/hyper/pull/4052>); the server
/// never hears of such a call.
fn is_unsent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        let goaway =
            |e: &h2::Error| e.is_go_away() && e.is_remote() && e.reason() == Some(h2::Reason::NO_ERROR);
        if error.downcast_ref().is_some_and(goaway)
            || error.downcast_ref().is_some_and(hyper::Error::is_canceled)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Returns the generation that answers. Only a call that was never sent is retried, once.
async fn now(client: &mut Client) -> Result<u64, Status> {
    match now_once(client).await {
        Err(status) if is_unsent(&status) => now_once(client).await,
        answered => answered,
    }
}

async fn now_once(client: &mut Client) -> Result<u64, Status> {
    client.ready().await.map_err(|e| Status::unavailable(format!("not ready: {e:?}")))?;
    let path = PathAndQuery::from_static("/clock.Clock/Now");
    let time: Time = client.unary(ask(), path, ProstCodec::default()).await?.into_inner();
    assert!(time.greeting.starts_with("hello test at 127.0.0.1:"), "{time:?}");
    Ok(time.generation)
}

/// Reads a stream until it ends with the status OK, and returns the generation that sent it.
async fn watch(client: &mut Client, begun: &AtomicUsize) -> Result<u64, Status> {
    client.ready().await.map_err(|e| Status::unavailable(format!("not ready: {e:?}")))?;
    let path = PathAndQuery::from_static("/clock.Clock/Watch");
    let mut times =
        client.server_streaming::<_, Time, _>(ask(), path, ProstCodec::default()).await?.into_inner();
    let mut generation = 0;
    while let Some(time) = times.message().await? {
        if generation == 0 {
            begun.fetch_add(1, Ordering::Relaxed);
        }
        generation = time.generation;
    }
    Ok(generation)
}

/// Returns the generation that was watched until it retired, and the one that answers the next call.
async fn watch_and_call(address: SocketAddr, begun: Arc<AtomicUsize>) -> Result<(u64, u64), Status> {
    let mut client = connect(address).await?;
    Ok((watch(&mut client, &begun).await?, now(&mut client).await?))
}

/// Calls repeatedly until `stop` is set. Returns the generations that answered, and the failures.
async fn call(address: SocketAddr, keeps: bool, stop: Arc<AtomicBool>) -> (Vec<u64>, Vec<String>) {
    let (mut answers, mut failures) = (vec![], vec![]);
    let mut kept = None;
    while !stop.load(Ordering::Relaxed) {
        let called = timeout(PATIENCE, async {
            let mut client = match kept.take() {
                Some(client) => client,
                None => connect(address).await?,
            };
            Ok::<_, Status>((now(&mut client).await?, client))
        });
        match called.await.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))) {
            Ok((generation, client)) => {
                answers.push(generation);
                kept = keeps.then_some(client);
            }
            Err(status) => failures.push(format!("{status:?}")),
        }
    }
    (answers, failures)
}

#[test]
fn tonic_is_handed_over_and_its_streams_end_with_ok() {
    let mut server = start("tonic", &["127.0.0.1:0"]);
    let address = server.address();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let stop = Arc::new(AtomicBool::new(false));
    let (mut callers, mut watchers) = (JoinSet::new(), JoinSet::new());
    for n in 0..16 {
        callers.spawn_on(call(address, n % 4 != 0, Arc::clone(&stop)), runtime.handle());
    }
    let begun = Arc::new(AtomicUsize::new(0));
    for _ in 0..8 {
        watchers.spawn_on(watch_and_call(address, Arc::clone(&begun)), runtime.handle());
    }
    wait_until("all streams have begun", &server, || begun.load(Ordering::Relaxed) == 8);
    hand_over(&server, 1, server.first_pid());
    for watched in runtime.block_on(async { timeout(PATIENCE, watchers.join_all()).await }).expect("they end")
    {
        let (first, then) = watched.unwrap_or_else(|s| panic!("{s:?}\n{}", server.log().history()));
        // The call may use the same connection, which gets GOAWAY only when it has been quiet.
        assert!(first == 1 && then >= 1, "watched {first}, then called {then}");
    }
    assert_nobody_was_cut(&mut server);
    stop.store(true, Ordering::Relaxed);
    for (answers, failures) in runtime.block_on(callers.join_all()) {
        assert_eq!(failures, [""; 0], "\n{}", server.log().history());
        assert!(answers.is_sorted(), "each moved once: {answers:?}");
        assert_eq!((answers.first(), answers.last()), (Some(&1), Some(&2)));
    }
}
