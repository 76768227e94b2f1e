//! A server with every kind of request and response, to play with, for the tests and for the bench.
//!
//! Run `cargo run --release --example playground -- --listen 127.0.0.1:8080`, then for instance
//! `curl localhost:8080/slow?ms=5000` in one terminal and `kill -HUP` in another.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | `generation=N pid=P` |
//! | `GET /addresses` | `remote=IP:PORT local=IP:PORT` |
//! | `GET /slow?ms=` | the same as `/`, after this time |
//! | `GET /bytes?n=` | `n` bytes, at once |
//! | `GET /stream?n=&ms=` | `n` chunks, one every `ms` milliseconds |
//! | `GET /events?ms=` | server-sent events, one every `ms` milliseconds (default 100), until this generation retires |
//! | `GET /ws`, over HTTP/2 an extended `CONNECT /ws` | a WebSocket that echoes, closed with 1001 (going away) when this generation retires |
//! | `POST /echo` | the body of the request |
//! | `POST /count` | the number of bytes in the body, after all of them have arrived |
//!
//! If the body does not name the generation that answers, the header `generation` does.
//!
//! `--fault` makes this generation fail in one of the ways in which a successor can fail. All generations have the same command
//! line, so a fault for the next generation only goes into a file: `--fault-file FILE`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::Parser;
use handover::{Events, Handle, Signals};
use handover_cli::{log, options, tls};
use hyper::service::service_fn;
use support::answer::answer;
use tokio::net::TcpSocket;
use tokio::time::sleep;

#[derive(Debug, Parser)]
#[command(args_override_self = true)]
struct Cli {
    #[command(flatten)]
    server: options::ServerOptions,
    #[command(flatten)]
    tls: tls::TlsOptions,
    #[command(flatten)]
    log: log::LogOptions,
    /// exit-before-ready, exit-zero-before-ready, abort-before-ready, panic-in-check, hang-before-ready, never-listens,
    /// never-accepts, exit-after-ready=MS, exit-zero-after-ready=MS or slow-start=MS
    #[arg(long)]
    fault: Option<Fault>,
    /// Read the fault from this file, if it exists and is not empty
    #[arg(long)]
    fault_file: Option<PathBuf>,
    /// Change to this directory once the server is made, as daemons do
    #[arg(long)]
    chdir: Option<PathBuf>,
    /// Keep a supervisor, whose pid stays the same
    #[arg(long)]
    supervise: bool,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    ExitBeforeReady,
    ExitZeroBeforeReady,
    AbortBeforeReady,
    PanicInCheck,
    HangBeforeReady,
    NeverListens,
    NeverAccepts,
    ExitAfterReady(Duration),
    ExitZeroAfterReady(Duration),
    SlowStart(Duration),
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        let (name, ms) = text.split_once('=').unwrap_or((text, ""));
        let ms = || ms.parse().map(Duration::from_millis).map_err(|_| format!("{name} needs =MILLISECONDS"));
        match name {
            "exit-before-ready" => Ok(Fault::ExitBeforeReady),
            "exit-zero-before-ready" => Ok(Fault::ExitZeroBeforeReady),
            "abort-before-ready" => Ok(Fault::AbortBeforeReady),
            "panic-in-check" => Ok(Fault::PanicInCheck),
            "hang-before-ready" => Ok(Fault::HangBeforeReady),
            "never-listens" => Ok(Fault::NeverListens),
            "never-accepts" => Ok(Fault::NeverAccepts),
            "exit-after-ready" => Ok(Fault::ExitAfterReady(ms()?)),
            "exit-zero-after-ready" => Ok(Fault::ExitZeroAfterReady(ms()?)),
            "slow-start" => Ok(Fault::SlowStart(ms()?)),
            _ => Err(format!("no such fault: {text}")),
        }
    }
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut signals = Signals::install()?;
    let cli = Cli::parse();
    let (_lines, _flush, opened) = cli.log.install();
    opened?;
    if cli.supervise
        && let Some(status) = handover::supervise_with(&mut signals)?
    {
        return Ok(status);
    }
    serve(cli, signals).map(|()| ExitCode::SUCCESS)
}

fn serve(cli: Cli, signals: Signals) -> Result<(), Box<dyn std::error::Error>> {
    let written = cli.fault_file.and_then(|file| std::fs::read_to_string(file).ok());
    let fault = match written.as_deref().map(str::trim) {
        Some(text) if !text.is_empty() => Some(text.parse()?),
        _ => cli.fault,
    };
    if let Some(fault) = fault.filter(|fault| !matches!(fault, Fault::SlowStart(_))) {
        tracing::info!(pid = std::process::id(), ?fault, "this generation is to fail");
    }
    let certified = cli.tls.load().map_err(|(_, problem)| problem)?;
    let server = cli.server.server(&cli.server.listen()?).http2_extended_connect(true);
    let server = cli.tls.apply(server, certified).signals(signals);
    if let Some(dir) = cli.chdir {
        std::env::set_current_dir(dir)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        if let Some(Fault::NeverListens) = fault {
            return never_listen().await;
        }
        let handle = server.handle();
        let told = tokio::spawn(log_events(handle.events()));
        let server = match fault {
            None => server,
            Some(Fault::NeverAccepts) => {
                // Listens, and blocks every thread that could accept.
                for _ in 0..64 {
                    tokio::spawn(async { std::thread::sleep(Duration::from_secs(3600)) });
                }
                server.ready_when(std::future::pending::<Result<(), Infallible>>())
            }
            Some(fault) => server.ready_when(before_ready(fault, handle.clone())),
        };
        // The generation is looked up only once, so that the bench measures the server and not the lookup.
        let generation = Arc::new(OnceLock::new());
        server
            .serve_with(move |info| {
                let (info, handle, generation) = (info.clone(), handle.clone(), Arc::clone(&generation));
                service_fn(move |request| {
                    answer(request, *generation.get_or_init(|| handle.generation()), Some(info.clone()))
                })
            })
            .await?;
        told.await?;
        Ok(())
    })
}

/// Logs the events that a program receives about its own generation; visible with -v.
async fn log_events(mut events: Events) {
    while let Some(event) = events.next().await {
        tracing::debug!(pid = std::process::id(), ?event, "event");
    }
}

/// Binds the address of the predecessor without ever listening.
async fn never_listen() -> Result<(), Box<dyn std::error::Error>> {
    let listen = std::env::var("HANDOVER_LISTEN")?;
    // The format is `ADDR`, or `ADDR=PORT` if port 0 was requested.
    let (asked, actual) = listen.split_once('=').unwrap_or((&listen, ""));
    let mut addr: SocketAddr = asked.parse()?;
    addr.set_port(actual.parse().unwrap_or(addr.port()));
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(addr)?;
    tracing::info!(generation = 0, listen, "bound, never listens");
    std::future::pending().await
}

async fn before_ready(fault: Fault, handle: Handle) -> Result<(), String> {
    match fault {
        Fault::ExitBeforeReady => return Err("--fault exit-before-ready".into()),
        Fault::HangBeforeReady => std::future::pending().await,
        Fault::SlowStart(time) => sleep(time).await,
        Fault::ExitZeroBeforeReady => exit_zero(),
        Fault::AbortBeforeReady => std::process::abort(),
        Fault::PanicInCheck => panic!("--fault panic-in-check"),
        Fault::ExitAfterReady(time) => {
            tokio::spawn(end_after(time, handle, || std::process::abort()));
        }
        Fault::ExitZeroAfterReady(time) => {
            tokio::spawn(end_after(time, handle, exit_zero));
        }
        Fault::NeverListens | Fault::NeverAccepts => {}
    }
    Ok(())
}

/// Exits with status 0, like a program that believes it has finished.
#[allow(clippy::exit, reason = "a sudden exit is the fault")]
fn exit_zero() {
    std::process::exit(0);
}

async fn end_after(time: Duration, mut handle: Handle, end: fn()) {
    while handle.phase() == handover::Phase::Starting {
        handle.changed().await;
    }
    sleep(time).await;
    end();
}
