//! The flags for the addresses, timeouts and limits of a server, shared with the playground.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use handover::{Server, defaults};

/// Options for the control sockets, which `handover status` and the other subcommands ask.
#[derive(Debug, Clone, Args)]
pub(crate) struct ControlOptions {
    /// Directory for the control sockets, which `handover status` and the other subcommands ask [default: a separate
    /// one for each first address, in $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR or /run]
    #[arg(long, value_name = "DIR")]
    pub(crate) control: Option<PathBuf>,
    /// Open no control sockets
    #[arg(long, conflicts_with = "control")]
    pub(crate) no_control: bool,
}

/// Options for listening, timeouts and limits. Durations have a unit: 500ms, 5s, 2m, 1h.
#[derive(Debug, Args)]
pub struct ServerOptions {
    /// Listen on this address, or on all addresses of a HOST:PORT; may be repeated. For port 0 a free port is picked once and
    /// kept over generations
    #[arg(long, short, value_name = "IP:PORT", default_value = "127.0.0.1:8080", value_parser = HostPort::parse)]
    listen: Vec<HostPort>,
    /// How long a successor may take until it is ready
    #[arg(long, value_name = "TIME", default_value = time(defaults::READY_TIMEOUT), value_parser = duration)]
    ready_timeout: Duration,
    /// How long the old generation can still take over again after a handover
    #[arg(long, value_name = "TIME", default_value = time(defaults::STANDBY), value_parser = duration)]
    standby: Duration,
    /// How long the old generation keeps an idle keep-alive connection after a handover
    #[arg(long, value_name = "TIME", default_value = time(defaults::IDLE_GRACE), value_parser = duration)]
    idle_grace: Duration,
    /// How long after a handover the old generation cuts the connections that are left
    #[arg(long, value_name = "TIME", default_value = time(defaults::DRAIN_TIMEOUT), value_parser = duration)]
    drain_timeout: Duration,
    /// How long after a stop a generation cuts the connections that are left
    #[arg(long, value_name = "TIME", default_value = time(defaults::STOP_TIMEOUT), value_parser = duration)]
    stop_timeout: Duration,
    /// How long a stopping generation keeps an idle keep-alive connection
    #[arg(long, value_name = "TIME", default_value = time(defaults::STOP_IDLE_GRACE), value_parser = duration)]
    stop_idle_grace: Duration,
    /// How long a stopping generation still accepts connections, so that load balancers can notice the stop
    #[arg(long, value_name = "TIME", default_value = time(defaults::STOP_DELAY), value_parser = duration)]
    stop_delay: Duration,
    /// How long a lame duck waits for a quiet moment to send GOAWAY to an HTTP/2 client, at most the idle grace
    #[arg(long, value_name = "TIME", default_value = time(defaults::GOAWAY_DELAY), value_parser = duration)]
    goaway_delay: Duration,
    /// How long a response may make no progress once its client has closed its sending side; 0s drops it at once
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    half_close_timeout: Duration,
    /// How long a client may take to send the head of a request, for the first one counted from accept; 0s: no limit
    #[arg(long, value_name = "TIME", default_value = time(defaults::HEADER_TIMEOUT), value_parser = duration)]
    header_timeout: Duration,
    /// How long a connection may be idle after its first request; 0s: no limit
    #[arg(long, value_name = "TIME", default_value = time(defaults::KEEP_ALIVE_TIMEOUT), value_parser = duration)]
    keep_alive_timeout: Duration,
    /// How long an HTTP/1 client may pause while the server waits for a request body; 0s: no limit
    #[arg(long, value_name = "TIME", default_value = time(defaults::BODY_TIMEOUT), value_parser = duration)]
    body_timeout: Duration,
    /// How long a client may read nothing of its response; 0s: no limit
    #[arg(long, value_name = "TIME", default_value = time(defaults::SEND_TIMEOUT), value_parser = duration)]
    send_timeout: Duration,
    /// How long an HTTP/2 client that waits for a response may be silent before it gets a PING; 0s: no PING
    #[arg(long, value_name = "TIME", default_value = time(defaults::HTTP2_PING_INTERVAL), value_parser = duration)]
    http2_ping_interval: Duration,
    /// Limit of concurrent requests on an HTTP/2 connection
    #[arg(long, value_name = "STREAMS", default_value_t = defaults::HTTP2_MAX_CONCURRENT_STREAMS, value_parser = clap::value_parser!(u32).range(1..=1000))]
    http2_max_concurrent_streams: u32,
    /// Limit of open connections: at the limit idle ones make room for new ones, or the new ones wait [default: half of the
    /// descriptors that are free when the server starts]
    #[arg(long, value_name = "CONNECTIONS")]
    max_connections: Option<usize>,
    /// Length of the accept queue of each address
    #[arg(long, value_name = "CONNECTIONS", default_value_t = defaults::BACKLOG, allow_negative_numbers = true)]
    backlog: u32,
    /// Write the pid that stands for the service to this file, and keep it up to date
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
}

impl ServerOptions {
    /// Returns the addresses to listen on, with host names resolved.
    pub fn listen(&self) -> Result<Vec<SocketAddr>, String> {
        let addresses = self.listen.iter().map(HostPort::resolve).collect::<Result<Vec<_>, _>>()?;
        Ok(addresses.into_iter().flatten().collect())
    }

    /// Builds a server with these options.
    pub fn server(&self, listen: &[SocketAddr]) -> Server {
        let server = Server::bind(listen)
            .ready_timeout(self.ready_timeout)
            .standby(self.standby)
            .idle_grace(self.idle_grace)
            .drain_timeout(self.drain_timeout)
            .stop_timeout(self.stop_timeout)
            .stop_idle_grace(self.stop_idle_grace)
            .stop_delay(self.stop_delay)
            .goaway_delay(self.goaway_delay)
            .half_close_timeout(self.half_close_timeout)
            .header_timeout(self.header_timeout)
            .keep_alive_timeout(self.keep_alive_timeout)
            .body_timeout(self.body_timeout)
            .send_timeout(self.send_timeout)
            .http2_ping_interval(self.http2_ping_interval)
            .http2_max_concurrent_streams(self.http2_max_concurrent_streams)
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

/// Formats a default as a flag value.
pub(crate) fn time(default: Duration) -> String {
    match default.as_secs() {
        minutes if minutes > 60 && minutes % 60 == 0 => format!("{}m", minutes / 60),
        seconds => format!("{seconds}s"),
    }
}

/// Parses a duration up to the longest that the server accepts.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let longest = Server::LONGEST;
    match humantime::parse_duration(text).map_err(|error| error.to_string())? {
        time if time > longest => Err(format!("the longest is {}", humantime::format_duration(longest))),
        time => Ok(time),
    }
}

/// `IP:PORT` or `HOST:PORT`. A name is resolved when the server starts, not when the flags are parsed.
#[derive(Debug, Clone)]
pub(crate) struct HostPort {
    host: String,
    port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl HostPort {
    pub(crate) fn parse(text: &str) -> Result<HostPort, String> {
        let expected = "expected IP:PORT, such as 127.0.0.1:8080, 0.0.0.0:80 or [::1]:8080, or HOST:PORT, such as \
                        localhost:8080";
        let parts = || {
            let (host, port) = text.rsplit_once(':')?;
            let port = port.bytes().all(|b| b.is_ascii_digit()).then(|| port.parse().ok())??;
            let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                // An address may have a zone: fe80::1%eth0.
                Some(ip) => {
                    ip.split('%').next().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()).then_some(ip)?
                }
                None if host.parse::<Ipv4Addr>().is_ok() => host,
                // A mistyped IPv4 address must not be looked up as a name.
                None if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') => return None,
                None => {
                    host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)).then_some(host)?
                }
            };
            Some(HostPort { host: host.to_owned(), port })
        };
        parts().ok_or_else(|| expected.to_owned())
    }

    /// Resolves the host. If it has several addresses, only those that this machine can bind count: `localhost` is also `::1`
    /// where there is no IPv6. If it can bind none of them, all are returned.
    pub(crate) fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
        let HostPort { host, port } = self;
        let cannot = |why: &str| {
            format!(
                "cannot find the address of {host}: {why}; use a name that this machine knows, or IP:PORT"
            )
        };
        let all = (&**host, *port).to_socket_addrs().map_err(|error| cannot(&error.to_string()))?;
        let all: Vec<_> = all.collect();
        let is_here = |address: &&SocketAddr| UdpSocket::bind(SocketAddr::new(address.ip(), 0)).is_ok();
        let here: Vec<_> = match all.len() {
            1 => vec![],
            _ => all.iter().filter(is_here).copied().collect(),
        };
        match (all.is_empty(), here.is_empty()) {
            (true, _) => Err(cannot("it has no address")),
            (false, true) => Ok(all),
            (false, false) => Ok(here),
        }
    }
}

/// Returns why a file cannot be read, in words for the operator.
pub(crate) fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::PermissionDenied => "this user may not read it".into(),
        _ => error.to_string(),
    }
}
