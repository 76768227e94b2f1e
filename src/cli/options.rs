//! The flags that say where a server listens and how patient it is. The playground has the same ones.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use handover::Server;

/// Durations have a unit: 500ms, 5s, 2m, 1h.
#[derive(Debug, Args)]
pub(crate) struct ServerOptions {
    /// Listen on this address; may be given several times. Port 0 is picked once and kept over generations
    #[arg(long, short, value_name = "IP:PORT", default_value = "127.0.0.1:8080", value_parser = address)]
    pub(crate) listen: Vec<SocketAddr>,
    /// How long a successor may take until it is ready
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    ready_timeout: Duration,
    /// How long the old generation can still take over again after a handover
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    standby: Duration,
    /// How long a quiet keep-alive connection is kept by the old generation
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    idle_grace: Duration,
    /// When the old generation cuts what is left after a handover
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = humantime::parse_duration)]
    drain_timeout: Duration,
    /// When a stopping generation cuts what is left
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = humantime::parse_duration)]
    stop_timeout: Duration,
    /// How long a quiet keep-alive connection is kept by a stopping generation
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    stop_idle_grace: Duration,
    /// How long a stopping generation goes on accepting, for load balancers that need to notice
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    stop_delay: Duration,
    /// How long a lame duck waits for a quiet moment to say GOAWAY to an HTTP/2 client, at most the idle grace
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    goaway_delay: Duration,
    /// How long a response may make no progress once its client has closed its sending side; 0s drops it at once
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    half_close_timeout: Duration,
    /// At so many connections new ones wait [default: half of the descriptors that the hard limit allows]
    #[arg(long, value_name = "CONNECTIONS")]
    max_connections: Option<usize>,
    /// Length of the accept queue of each address
    #[arg(long, value_name = "CONNECTIONS", default_value_t = 4096, allow_negative_numbers = true)]
    backlog: u32,
    /// Keep the pid that stands for the service in this file
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
}

impl ServerOptions {
    pub(crate) fn server(&self) -> Server {
        let server = Server::bind(&self.listen[..])
            .ready_timeout(self.ready_timeout)
            .standby(self.standby)
            .idle_grace(self.idle_grace)
            .drain_timeout(self.drain_timeout)
            .stop_timeout(self.stop_timeout)
            .stop_idle_grace(self.stop_idle_grace)
            .stop_delay(self.stop_delay)
            .goaway_delay(self.goaway_delay)
            .half_close_timeout(self.half_close_timeout)
            .backlog(self.backlog);
        let server = match self.max_connections {
            Some(connections) => server.max_connections(connections),
            None => server,
        };
        match &self.pid_file {
            Some(path) => server.pid_file(path),
            None => server,
        }
    }
}

pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected IP:PORT, such as 127.0.0.1:8080, 0.0.0.0:80 or [::1]:8080".to_owned())
}

/// Why a file that was named cannot be used, in words.
pub(crate) fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::PermissionDenied => "this user may not read it".into(),
        _ => error.to_string(),
    }
}
