//! Restart a [hyper](https://hyper.rs) server without losing a request.
//!
//! Nothing is passed between the old process and the new one. Each *generation* binds the same port with
//! `SO_REUSEPORT`; the new one starts to serve while the kernel still gives every new connection to the old one; when
//! it is ready the kernel is told to prefer it, and then it signals its parent, which keeps its listener open for a
//! while (*standby*), closes it when nothing can arrive there any more, and finishes its connections (*drain*).
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
//! // Several addresses, own timings, a readiness check, and the phases as they change.
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
//! Any other protocol over TCP brings its own accept loop: see [`Listener`]. In a container or a terminal one process stays in
//! front, because a pid cannot be handed on there: see [`supervise`].
//!
//! # How a handover goes
//!
//! | state | restart asked | successor ready | successor exits | deadline | stop asked |
//! |---|---|---|---|---|---|
//! | starting | queue | | | give up, with an error | drain |
//! | serving | spawn; queue while the predecessor still listens | warn | | | drain; with a stop delay, or while another process listens on the port: lingering |
//! | spawning | queue | standby | serve on, say why it failed | tell the successor to leave: withdrawing | tell the successor to stop, drain |
//! | withdrawing | queue | too late | serve on | kill it | drain |
//! | standby | pass it on | | crashed: **serve again**; left with status 0: it was told to stop, so drain | move the identity, close the listener, drain | pass it on; asked twice: leave now |
//! | lingering: stopping, still accepting | refuse | | | close the listener, drain | be quick; asked twice: leave now |
//! | draining | refuse | | say so | cut what is left, leave | be quick; asked twice: leave now |
//!
//! A restart that is passed on to a successor which then crashes is done by the old generation instead: the last
//! request always gets a generation that was started after it.
//!
//! # Invariants
//!
//! 1. A failed handover changes nothing: the generation that served goes on serving, and the next restart can succeed.
//! 2. At most two generations listen; at most one of them is not ready.
//! 3. A listener closes only after it is steered away from, its standby is over and its accept queue is empty.
//! 4. A request that reached us is answered unless the drain deadline passes; then we say how many connections were cut.
//! 5. Every wait has a deadline, every deadline is configurable, every expiry is one log line.
//! 6. No file descriptor but the three standard ones crosses `exec`, and a successor's stdin is `/dev/null`; no environment
//!    variable of ours outlives its meaning: see [`ENVIRONMENT`].
//!
//! # Limitations
//!
//! - Linux only; the README names the kernels that were tried. A restart is refused where there is no `pidfd_open`, as before 5.3
//!   and in some sandboxes. Where `SO_ATTACH_REUSEPORT_CBPF` is refused the server says so in one warning and goes on with
//!   standby alone.
//! - TCP only: Unix sockets have no `SO_REUSEPORT`.
//! - Both generations run as the same user in the same network namespace, and spell an address the same way.
//! - As pid 1, or under systemd without `Type=notify`, a restart is refused unless [`supervise`] keeps a supervisor. That
//!   one is never replaced itself.
//! - The successor must be the process that was started, or replace it by `exec`: a wrapper that forks is not believed, and a
//!   program that forks into the background may do so only while [`generation()`] is 1.
//! - TLS needs the feature `tls`, and a crypto provider of the program's choice (see [Features](#features)). A server has it on all of its addresses or on none, and
//!   sessions are not resumed over a handover unless the program brings a ticketer.
//! - An HTTP/1 client that stays quiet for the whole idle grace and sends its next request in the very moment we close
//!   loses that request, as with every server that ever closes an idle connection.
//!
//! # Features
//!
//! None of them is on by default.
//!
//! | feature | what it adds | crates that others see |
//! |---|---|---|
//! | `tls` | `Server::tls` and `Conn::tls` | tokio-rustls 0.26 (rustls 0.23), re-exported as `rustls`. It brings no crypto provider: switch one on with the rustls feature `ring` or `aws_lc_rs` |
//! | `control` | the socket that the program `handover` asks; not for others yet | |
//! | `metrics` | `control`, and numbers for Prometheus; not for others yet | prometheus-client 0.25 |
//!
//! # Layout
//!
//! `lifecycle` is the state machine, pure. `server` is the builder and, in `server::engine`, the one loop that feeds
//! the machine. `generation` knows the environment, `process` processes, `signals` signals, `listeners` and `steering` the
//! sockets, `pid_file` the pid file, `service_manager` what a service manager is told, `drain` the connections. `supervisor` is
//! the process that `supervise` keeps, which is none of the generations and has a loop of its own. `control` is the socket for those who operate a
//! program, `metrics` what is counted. `src/cli` is another package, the program `handover`. Each of the operating system's facts lives
//! in one of them.

#[cfg(not(target_os = "linux"))]
compile_error!("handover runs on Linux only: it steers connections with SO_ATTACH_REUSEPORT_CBPF.");

/// What operates a program: not for others yet, and changed without notice.
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
/// What is counted: not for others yet, and changed without notice. Its text is made by prometheus-client 0.25.
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

#[cfg(all(target_os = "linux", feature = "tls"))]
pub use drain::TlsStream;
#[cfg(target_os = "linux")]
pub use drain::{Conn, ConnectInfo, Drain, DrainOptions, Retiring};
#[cfg(target_os = "linux")]
pub use error::Error;
#[cfg(target_os = "linux")]
pub use generation::{ENVIRONMENT, generation, is_supervised};
#[cfg(target_os = "linux")]
pub use handle::{Events, Handle, Underway};
#[cfg(target_os = "linux")]
pub use report::{
    Connections, Drained, End, Event, Failure, Handover, HandoverResult, LastHandover, Outcome, Phase,
    PortMember, Status,
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
