//! The code that `tonic-prost-build` generates from the following file, reduced to the parts that this example needs. It is
//! written by hand so that building handover does not require `protoc`.
//!
//! ```proto
//! package clock;
//! service Clock {
//!   rpc Now(Ask) returns (Time);
//!   rpc Watch(Ask) returns (stream Time);
//! }
//! message Ask { string name = 1; }
//! message Time { uint64 generation = 1; uint64 unix_ms = 2; string greeting = 3; }
//! ```

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::codegen::{Body, BoxFuture, BoxStream, Service, StdError, async_trait, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Ask {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Time {
    #[prost(uint64, tag = "1")]
    pub(crate) generation: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) unix_ms: u64,
    #[prost(string, tag = "3")]
    pub(crate) greeting: String,
}

#[async_trait]
pub(crate) trait Clock: Send + Sync + 'static {
    async fn now(&self, request: Request<Ask>) -> Result<Response<Time>, Status>;
    async fn watch(&self, request: Request<Ask>) -> Result<Response<BoxStream<Time>>, Status>;
}

pub(crate) struct ClockServer<T>(Arc<T>);

impl<T> ClockServer<T> {
    pub(crate) fn new(clock: T) -> ClockServer<T> {
        ClockServer(Arc::new(clock))
    }
}

impl<T> Clone for ClockServer<T> {
    fn clone(&self) -> ClockServer<T> {
        ClockServer(Arc::clone(&self.0))
    }
}

impl<T> NamedService for ClockServer<T> {
    const NAME: &'static str = "clock.Clock";
}

impl<T, B> Service<http::Request<B>> for ClockServer<T>
where
    T: Clock,
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let clock = Arc::clone(&self.0);
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::default());
            Ok(match request.uri().path() {
                "/clock.Clock/Now" => grpc.unary(Now(clock), request).await,
                "/clock.Clock/Watch" => grpc.server_streaming(Watch(clock), request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

struct Now<T>(Arc<T>);

impl<T: Clock> UnaryService<Ask> for Now<T> {
    type Response = Time;
    type Future = Answer<Time>;

    fn call(&mut self, request: Request<Ask>) -> Self::Future {
        let clock = Arc::clone(&self.0);
        Box::pin(async move { clock.now(request).await })
    }
}

struct Watch<T>(Arc<T>);

impl<T: Clock> ServerStreamingService<Ask> for Watch<T> {
    type Response = Time;
    type ResponseStream = BoxStream<Time>;
    type Future = Answer<BoxStream<Time>>;

    fn call(&mut self, request: Request<Ask>) -> Self::Future {
        let clock = Arc::clone(&self.0);
        Box::pin(async move { clock.watch(request).await })
    }
}
