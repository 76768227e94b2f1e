//! Restart a [hyper](https://hyper.rs) server without losing a request.
//!
//! Nothing is passed between the old process and the new one. Each *generation* binds the same port with
//! `SO_REUSEPORT`. The new generation starts while the kernel still gives every new connection to the old one. Once it
//! is ready, it tells the kernel to prefer its own listener and signals its parent. The parent keeps its listener open
//! for a while (*standby*), closes it when no connection can arrive there any more, and finishes its connections (*drain*).
//!
//! # Usage
//!
//! ```no_run
//! # use {hyper::{Request, Response, body::Incoming, service::service_fn}, std::convert::Infallible, std::time::Duration};
//! # async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> { Ok(Response::new("".into())) }
//! # async fn connect_to_database() -> Result<(), std::io::Error> { Ok(()) }
//! # async fn run() -> Result<(), handover::Error> {
//! // One line replaces the accept loop of a hyper server. `kill -HUP` restarts it.
//! handover::Server::bind("0.0.0.0:8080").serve(service_fn(hello)).await?;
//!
//! // Several addresses, a custom timing, a readiness check, and every change of phase.
//! let server = handover::Server::bind("0.0.0.0:8080")
//!     .also_bind("[::1]:8081")
//!     .standby(Duration::from_secs(10))
//!     .ready_when(connect_to_database());
//! let mut handle = server.handle();
//! tokio::spawn(async move {
//!     while let Some(phase) = handle.changed().await {
//!         println!("generation {} is {phase:?}", handle.generation());
//!     }
//! });
//! let outcome = server.serve(service_fn(hello)).await?;
//! println!("{:?}: {} connections finished, {} cut", outcome.end, outcome.drained.finished, outcome.drained.cut);
//! # Ok(()) }
//! ```
//!
//! Any other protocol over TCP needs a custom accept loop: see [`Listener`]. In a container or a terminal, the pid of the
//! service must not change, so a supervisor runs the generations: see [`supervise`].
//!
//! # How a handover goes
//!
//! | state | restart asked | successor ready | successor exits | deadline | stop asked |
//! |---|---|---|---|---|---|
//! | starting | queue | | | give up, with an error | drain |
//! | serving | spawn; queue while the predecessor still listens | warn | | | drain; with a stop delay, or while another process listens on the port: lingering |
//! | spawning | queue | standby | keep serving, log why it failed | tell the successor to leave: withdrawing | tell the successor to stop, drain |
//! | withdrawing | queue | too late | keep serving | kill the successor | drain |
//! | standby | pass it on | | crashed: **serve again**; left with status 0: it was told to stop, so drain | hand over the main pid, close the listener, drain | pass it on; asked twice: leave now |
//! | lingering: stopping, still accepting | refuse | | | close the listener, drain | shorten the deadline; asked twice: leave now |
//! | draining | refuse | | log it | cut the remaining connections, leave | shorten the deadline; asked twice: leave now |
//!
//! If a restart was passed on to a successor that then crashes, the old generation performs the restart instead. The last
//! restart request is therefore always followed by the start of a generation.
//!
//! # Invariants
//!
//! 1. A failed handover changes nothing: the generation that served keeps serving, and the next restart can succeed.
//! 2. At most two generations listen; at most one of them is not ready.
//! 3. A listener closes only when new connections are steered elsewhere, its standby is over and its accept queue is empty.
//! 4. A request that reached the server is answered unless the drain deadline passes. The number of connections cut at the
//!    deadline is logged.
//! 5. Every wait has a deadline, every deadline is configurable, and every expiry is one log line.
//! 6. Only the three standard file descriptors cross `exec`, and a successor's stdin is `/dev/null`. The environment
//!    variables of this crate are ignored in any process that they were not set for: see [`ENVIRONMENT`].
//!
//! # Limitations
//!
//! - Linux only; the README lists the tested kernels. A restart is refused where `pidfd_open` is missing: before Linux 5.3 and
//!   in some sandboxes. Where `SO_ATTACH_REUSEPORT_CBPF` is refused, the server logs one warning and relies on standby alone.
//! - TCP only: Unix sockets have no `SO_REUSEPORT`.
//! - Both generations must run as the same user in the same network namespace, and spell an address the same way.
//! - As pid 1, or under systemd without `Type=notify`, a restart is refused unless the server runs under [`supervise`]. The
//!   supervisor itself is never replaced.
//! - The successor must be the process that was started, or replace it by `exec`: a successor forked by a wrapper is not
//!   recognised. A program may fork into the background only while [`generation()`] is 1.
//! - TLS needs the feature `tls` and a crypto provider of the program's choice (see [Features](#features)). A server has TLS
//!   on all of its addresses or on none. Sessions are resumed across a handover only if the program supplies a ticketer.
//! - If an HTTP/1 client stays quiet for the whole idle grace and sends its next request just as the server closes the
//!   connection, that request is lost. The same is true of every server that closes idle connections.
//!
//! # Features
//!
//! All features are off by default.
//!
//! | feature | adds | crates in the public API |
//! |---|---|---|
//! | `tls` | `Server::tls` and `Conn::tls` | tokio-rustls 0.26 (rustls 0.23), re-exported as `rustls`. No crypto provider is included: enable the rustls feature `ring` or `aws_lc_rs` |
//! | `control` | the control socket of the program `handover`; no stable API yet | |
//! | `metrics` | `control`, and metrics for Prometheus; no stable API yet | prometheus-client 0.25 |
//!
//! # Layout
//!
//! `lifecycle` is the state machine and does no I/O. `server` is the builder; `server::engine` is the event loop that feeds
//! the state machine. `generation` handles the environment, `process` the processes, `signals` the signals, `listeners` and
//! `steering` the sockets, `pid_file` the pid file, `service_manager` the messages to a service manager, and `drain` the
//! connections. `supervisor` is the process started by `supervise`: it is not a generation and has a separate event loop.
//! `control` is the control socket for operators, `metrics` the counters. `src/cli` is a separate package, the program
//! `handover`. Each fact about the operating system is encoded in exactly one of these modules.

#[cfg(not(target_os = "linux"))]
compile_error!("handover runs on Linux only: it steers connections with SO_ATTACH_REUSEPORT_CBPF.");

/// The control socket. Not a stable API: it may change without notice.
#[cfg(all(target_os = "linux", feature = "control"))]
#[doc(hidden)]
pub mod control;
#[cfg(target_os = "linux")]
pub mod defaults;
#[cfg(target_os = "linux")]
mod drain;
#[cfg(target_os = "linux")]
mod error;
#[cfg(target_os = "linux")]
mod generation;
#[cfg(target_os = "linux")]
mod handle;
#[cfg(target_os = "linux")]
mod lifecycle;
#[cfg(target_os = "linux")]
mod listeners;
/// The metrics, encoded by prometheus-client 0.25. Not a stable API: they may change without notice.
#[cfg(all(target_os = "linux", feature = "control"))]
#[doc(hidden)]
pub mod metrics;
#[cfg(target_os = "linux")]
mod pid_file;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod service_manager;
#[cfg(target_os = "linux")]
mod signals;
#[cfg(target_os = "linux")]
mod sock_diag;
#[cfg(target_os = "linux")]
mod steering;
#[cfg(target_os = "linux")]
mod supervisor;

#[cfg(target_os = "linux")]
pub use drain::{Conn, ConnectInfo, Drain, DrainOptions, Http2Executor, Retiring};
#[cfg(all(target_os = "linux", feature = "tls"))]
pub use drain::{TlsInfo, TlsStream};
#[cfg(target_os = "linux")]
pub use error::{Error, ErrorKind};
#[cfg(target_os = "linux")]
pub use generation::{ENVIRONMENT, generation, is_supervised};
#[cfg(target_os = "linux")]
pub use handle::{Events, Handle, Underway};
#[cfg(target_os = "linux")]
pub use report::{
    Connections, Drained, Event, Failure, GenerationEnd, Handover, HandoverResult, LastHandover, Outcome,
    Phase, PortMember, Status,
};
#[cfg(target_os = "linux")]
pub use server::{Listener, Server};
#[cfg(target_os = "linux")]
pub use signals::Signals;
#[cfg(target_os = "linux")]
pub use supervisor::{needs_supervisor, supervise, supervise_with};
/// The version of rustls whose `ServerConfig` [`Server::tls`] takes.
#[cfg(all(target_os = "linux", feature = "tls"))]
pub use tokio_rustls::rustls;
