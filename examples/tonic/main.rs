//! A gRPC service, served so that it can be replaced without losing a call.
//!
//! Run `cargo run --example tonic`, and in a second terminal the following. It needs only curl instead of `grpcurl`, because the
//! request is an empty message:
//!
//! ```sh
//! ask() { printf '\0\0\0\0\0' | curl -sN --http2-prior-knowledge -H 'content-type: application/grpc' \
//!     -H 'te: trailers' --data-binary @- "localhost:50051/clock.Clock/$1" -o -; }
//! ask Now; ask Watch
//! ```
//!
//! Then `kill -HUP` the pid that the server logs: the watch ends, and `ask Now` is answered by generation 2.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, stream};
use handover::{ConnectInfo, Handle};
use hyper_util::service::TowerToHyperService;
use tokio::time::sleep;
use tonic::codegen::{BoxStream, async_trait};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

mod clock;
use clock::{Ask, Clock, ClockServer, Time};

#[tokio::main]
async fn main() -> Result<(), handover::Error> {
    tracing_subscriber::fmt().json().flatten_event(true).with_writer(std::io::stderr).init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:50051".to_owned());

    // Each request gets our `ConnectInfo` and, with the feature `tonic`, a `remote_addr()`.
    let server = handover::Server::bind(&*address).connect_info(true);
    let routes = Routes::new(ClockServer::new(WallClock { handle: server.handle() }));
    server.serve(TowerToHyperService::new(routes)).await?;
    Ok(())
}

#[derive(Clone)]
struct WallClock {
    handle: Handle,
}

#[async_trait]
impl Clock for WallClock {
    async fn now(&self, request: Request<Ask>) -> Result<Response<Time>, Status> {
        let client = request.remote_addr().ok_or_else(|| Status::internal("no client"))?;
        let greeting = format!("hello {} at {client}", request.get_ref().name);
        Ok(Response::new(self.time(&greeting)))
    }

    /// Streams until this generation retires, and then ends with the status OK, which a stream that was cut never has. The client
    /// therefore knows that it may watch again at once, and that another generation will answer.
    async fn watch(&self, request: Request<Ask>) -> Result<Response<BoxStream<Time>>, Status> {
        let mut retiring = info(&request)?.retiring();
        let ticks = stream::unfold(self.clone(), |clock| async {
            sleep(Duration::from_millis(200)).await;
            Some((Ok(clock.time("tick")), clock))
        });
        Ok(Response::new(Box::pin(ticks.take_until(async move { retiring.wait().await }))))
    }
}

impl WallClock {
    fn time(&self, greeting: &str) -> Time {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Time { generation: self.handle.generation(), unix_ms, greeting: format!("{greeting}\n") }
    }
}

/// Returns the `ConnectInfo` that the server added to the extensions of the request; tonic passes them on.
fn info(request: &Request<Ask>) -> Result<&ConnectInfo, Status> {
    request.extensions().get().ok_or_else(|| Status::internal("not served by handover"))
}
