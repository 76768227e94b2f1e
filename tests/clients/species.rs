//! The list of the clients, each with its program and its target. They run in groups, because two cores cannot keep all of
//! them busy at once.

use std::time::Duration;

/// The idle grace of every server here that has the flag.
pub(crate) const IDLE_GRACE: &str = "3s";
/// In milliseconds: busy, quiet, and just above the idle grace.
pub(crate) const PAUSES: [u64; 3] = [10, 1000, 3300];
/// The pauses of the HTTP/2 clients that are compared with nginx.
const PAUSES_BESIDE: [u64; 3] = [10, 1000, 4500];
/// A client without pauses.
const FULL_SPEED: [u64; 1] = [0];

/// The server to which a client sends its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Plain,
    Tls,
    Grpc,
    /// Files, and everything else from `Plain` or `Tls`.
    Site,
    SiteTls,
    /// A proxy that keeps connections to `Plain`.
    Nginx,
    Haproxy,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Program {
    Python(&'static str),
    Node(&'static str),
    Go(&'static str),
    Java(&'static str),
    Reqwest(&'static str),
    Curl(&'static [&'static str]),
    Ab(&'static [&'static str]),
    Wrk,
    H2load(&'static [&'static str]),
    Chromium,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Species {
    pub(crate) name: &'static str,
    pub(crate) protocol: &'static str,
    pub(crate) program: Program,
    pub(crate) target: Target,
    pub(crate) pauses: &'static [u64],
    /// The client also runs against an nginx that is reloaded at the same moments.
    pub(crate) beside: bool,
    pub(crate) remark: &'static str,
}

pub(crate) struct Group {
    pub(crate) species: Vec<Species>,
    pub(crate) handovers: u32,
    /// The time from one handover to the next.
    pub(crate) every: Duration,
}

impl Group {
    fn new(handovers: u32, every_ms: u64, species: &[Species]) -> Group {
        Group { species: species.to_vec(), handovers, every: Duration::from_millis(every_ms) }
    }

    /// Keeps the clients with this text in their name or protocol.
    pub(crate) fn only(mut self, text: &str) -> Group {
        self.species.retain(|species| format!("{}, {}", species.name, species.protocol).contains(text));
        self
    }

    /// The duration of the runs: from one interval before the first handover to one after the last.
    pub(crate) fn length(&self) -> Duration {
        self.every * (self.handovers + 1)
    }
}

const fn new(
    name: &'static str,
    protocol: &'static str,
    program: Program,
    target: Target,
    remark: &'static str,
) -> Species {
    Species { name, protocol, program, target, pauses: &PAUSES, beside: false, remark }
}

/// A client that may treat GOAWAY as an error.
const fn http2(name: &'static str, program: Program, remark: &'static str) -> Species {
    let species = new(name, HTTP2, program, Target::Tls, remark);
    Species { pauses: &PAUSES_BESIDE, beside: true, ..species }
}

/// Makes the client also run against an nginx.
const fn beside(species: Species) -> Species {
    Species { beside: true, ..species }
}

const fn full_speed(name: &'static str, program: Program, remark: &'static str) -> Species {
    let species = new(name, "HTTP/1.0", program, Target::Plain, remark);
    Species { pauses: &FULL_SPEED, ..species }
}

/// A browser: one process runs a row for each pause, and each row has separate connections.
const fn browser(protocol: &'static str, target: Target) -> Species {
    let species = new("Chromium", protocol, Program::Chromium, target, RETRIES);
    Species { pauses: &FULL_SPEED, ..species }
}

const HTTP10: &str = "HTTP/1.0, keep-alive";
const HTTP11: &str = "HTTP/1.1";
const HTTP2: &str = "HTTP/2, TLS";
const RETRIES: &str = "retries on a kept connection by itself";
const IDEMPOTENT: &str = "retries GET on a kept connection by itself";
const NACKS: &str = "retries what a server says it has not looked at";
const UNSENT: &str = "fails what it has not sent yet when a connection is closed, so it is run again";

pub(crate) fn groups() -> Vec<Group> {
    use Program::{Ab, Curl, Go, H2load, Java, Node, Python, Reqwest, Wrk};
    use Target::{Grpc, Haproxy, Nginx, Plain, Site, SiteTls, Tls};
    vec![
        Group::new(
            7,
            3500,
            &[
                beside(new("requests", HTTP11, Python("requests"), Plain, "")),
                beside(new("http.client", HTTP10, Python("http.client-1.0"), Plain, "")),
                beside(new("http.client", HTTP11, Python("http.client-1.1"), Plain, "")),
                new("httpx", HTTP11, Python("httpx"), Plain, ""),
                new("aiohttp", HTTP11, Python("aiohttp"), Plain, IDEMPOTENT),
                new("curl", HTTP10, Curl(&["http1.0"]), Plain, RETRIES),
                new("curl", HTTP11, Curl(&["http1.1"]), Plain, RETRIES),
            ],
        ),
        Group::new(
            7,
            3500,
            &[
                beside(new("fetch", HTTP11, Node("fetch"), Plain, "")),
                beside(new("http.Agent", HTTP11, Node("agent"), Plain, "")),
                new("ws", "WebSocket", Node("ws"), Plain, ""),
                new("net/http", HTTP11, Go("http1"), Plain, IDEMPOTENT),
                new("java.net.http", HTTP11, Java("http1"), Plain, IDEMPOTENT),
                beside(new("reqwest", HTTP11, Reqwest("http1"), Plain, "")),
                new("wrk", HTTP11, Wrk, Plain, ""),
                new("h2load", HTTP11, H2load(&["--h1"]), Plain, UNSENT),
            ],
        ),
        Group::new(
            10,
            4000,
            &[
                http2("httpx", Python("httpx-http2"), ""),
                http2("undici, allowH2", Node("undici"), ""),
                http2("got, http2", Node("got"), ""),
                http2("java.net.http", Java("http2"), IDEMPOTENT),
            ],
        ),
        Group::new(
            6,
            5600,
            &[
                new("net/http", HTTP2, Go("http2"), Tls, RETRIES),
                new("reqwest", HTTP2, Reqwest("http2"), Tls, NACKS),
                beside(new("reqwest, retry::never", HTTP2, Reqwest("http2-once"), Tls, "")),
                new("curl", HTTP2, Curl(&["http2"]), Tls, RETRIES),
                beside(new("h2load", HTTP2, H2load(&[]), Tls, UNSENT)),
                new(
                    "grpcio",
                    "gRPC",
                    Python("grpc"),
                    Grpc,
                    "retries what a server says it has not looked at; idle grace 30 s",
                ),
                new("net/http behind nginx", HTTP11, Go("http1"), Nginx, "no retries upstream"),
                new("net/http behind HAProxy", HTTP11, Go("http1"), Haproxy, "no retries upstream"),
            ],
        ),
        Group::new(
            7,
            3500,
            &[browser("HTTP/1.1, WebSocket", Site), browser("HTTP/2, TLS, WebSocket", SiteTls)],
        ),
        Group::new(
            6,
            2000,
            &[
                full_speed("ab, GET", Ab(&[]), ""),
                full_speed("ab, POST", Ab(&["-p"]), ""),
                full_speed("ab -k, GET", Ab(&["-k"]), ""),
                full_speed("ab -k, POST", Ab(&["-k", "-p"]), ""),
            ],
        ),
    ]
}
