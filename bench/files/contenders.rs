//! The file servers that are compared, all with a worker or thread for each core, and without an access log unless one is named.

use std::any::Any;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use rustix::process::getuid;
use serde::Serialize;
use support::process::Server;
use support::servers::family::Family;
use support::servers::{address, packages, wait_for};

use super::site::Site;
use super::static_web_server;
use crate::competitors::cores;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum Contender {
    #[serde(rename = "handover")]
    Handover,
    #[serde(rename = "handover, access log")]
    HandoverLogging,
    #[serde(rename = "nginx")]
    Nginx,
    #[serde(rename = "static-web-server")]
    StaticWebServer,
}

/// A running server. Dropping it kills all its processes.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    _processes: Box<dyn Any>,
}

impl Contender {
    pub(super) fn name(self) -> &'static str {
        match self {
            Contender::Handover => "handover",
            Contender::HandoverLogging => "handover, access log",
            Contender::Nginx => "nginx",
            Contender::StaticWebServer => "static-web-server",
        }
    }

    /// The version, or why the server is missing. It may have to compile one, which takes minutes.
    pub(super) fn version(self) -> Result<String, String> {
        match self {
            Contender::Handover | Contender::HandoverLogging => {
                Ok(concat!("handover ", env!("CARGO_PKG_VERSION")).to_owned())
            }
            Contender::Nginx => packages::version("nginx", "nginx/"),
            Contender::StaticWebServer => static_web_server::install(),
        }
    }

    /// Starts a new process that serves the site, and returns when it listens.
    pub(super) fn start(self, site: &Site, tls: bool) -> Result<Running, String> {
        match self {
            Contender::Handover => Ok(handover(site, tls, site.command())),
            Contender::HandoverLogging => Ok(handover(site, tls, logging(site))),
            Contender::Nginx => nginx(site, tls),
            Contender::StaticWebServer => static_web_server(site, tls),
        }
    }
}

fn handover(site: &Site, tls: bool, command: Command) -> Running {
    let server = Server::start(if tls { site.with_tls(command) } else { command });
    Running { address: server.address(), _processes: Box::new(server) }
}

fn logging(site: &Site) -> Command {
    let mut command = site.command();
    command.args(["--access-log", "common", "--access-log-file"]).arg(site.log_file());
    command
}

fn nginx(site: &Site, tls: bool) -> Result<Running, String> {
    let address = address::free_port(Ipv4Addr::LOCALHOST)?;
    let mut family = Family::new()?;
    family.write("nginx.conf", &configuration(site, address, tls))?;
    let mut command = packages::command("nginx")?;
    command.arg("-p").arg(format!("{}/", family.dir().display())).args(["-c", "nginx.conf", "-e", "stderr"]);
    family.spawn(&mut command)?;
    listening(family, address)
}

/// The configuration of nginx. Root in a namespace may have no other user to switch to.
fn configuration(site: &Site, address: SocketAddr, tls: bool) -> String {
    let user = if getuid().is_root() { "user root;" } else { "" };
    let quoted = |path: &Path| format!("\"{}\"", path.display());
    let (root, cert, key) =
        (quoted(&site.root()), quoted(&site.certificate_file()), quoted(&site.key_file()));
    let (ssl, pair) = if tls {
        (" ssl", format!("ssl_certificate {cert}; ssl_certificate_key {key};"))
    } else {
        ("", String::new())
    };
    let workers = cores();
    format!(
        r#"daemon off;
{user}
worker_processes {workers};
pid nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    open_file_cache max=1000 inactive=20s;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    default_type application/octet-stream;
    server {{
        listen {address} backlog=4096{ssl};
        {pair}
        root {root};
    }}
}}
"#
    )
}

fn static_web_server(site: &Site, tls: bool) -> Result<Running, String> {
    let address = address::free_port(Ipv4Addr::LOCALHOST)?;
    let (cert, key) = (site.certificate_file(), site.key_file());
    let pair = tls.then_some((cert.as_path(), key.as_path()));
    let mut family = Family::new()?;
    family.spawn(&mut static_web_server::command(address.port(), &site.root(), pair))?;
    listening(family, address)
}

/// Waits until the server listens.
fn listening(family: Family, address: SocketAddr) -> Result<Running, String> {
    let listens = wait_for("a listener", || {
        let is_gone = family.pids().is_empty();
        TcpStream::connect(address).ok().map(|_| Ok(())).or(is_gone.then(|| Err("it exited".to_owned())))
    });
    match listens.and_then(|listened| listened) {
        Ok(()) => Ok(Running { address, _processes: Box::new(family) }),
        Err(error) => Err(format!("{error}; end of its log: {}", family.last_words())),
    }
}
