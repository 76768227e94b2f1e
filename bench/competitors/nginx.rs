//! nginx: new workers under the same master, or a new master from the binary (nginx.org, "Controlling nginx").

use std::fs::read_to_string;
use std::net::SocketAddr;

use nix::sys::signal::Signal;
use rustix::process::{Resource, getrlimit, getuid};
use support::servers::family::Family;
use support::servers::{packages, tell, wait_for};

use super::{Competitor, Kind, Means, cores};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Way {
    Reload,
    /// With a listener for each worker.
    ReloadReuseport,
    Upgrade,
}

pub(super) const ALL: &[Competitor] = &[
    Competitor {
        name: "nginx, reload",
        start: "nginx -p DIR/ -c nginx.conf",
        restart: "kill -HUP MASTER",
        kind: Kind::Nginx(Way::Reload),
    },
    Competitor {
        name: "nginx, reload, reuseport",
        start: "nginx -p DIR/ -c nginx.conf, with listen ... reuseport",
        restart: "kill -HUP MASTER",
        kind: Kind::Nginx(Way::ReloadReuseport),
    },
    Competitor {
        name: "nginx, binary upgrade",
        start: "nginx -p DIR/ -c nginx.conf, as a daemon",
        restart: "kill -USR2 MASTER, and when the new one has workers kill -WINCH MASTER, kill -QUIT MASTER",
        kind: Kind::Nginx(Way::Upgrade),
    },
];

/// The connections of a worker, several times more than needed. nginx allocates memory for each at startup.
const CONNECTIONS: u32 = 4096;
const PID_FILE: &str = "nginx.pid";

pub(super) fn version() -> Result<String, String> {
    packages::version("nginx", "nginx/")
}

pub(super) fn start(way: Way, address: SocketAddr, http2: bool) -> Result<Nginx, String> {
    let mut family = Family::new()?;
    family.write("nginx.conf", &configuration(way, address, http2))?;
    let mut command = packages::command("nginx")?;
    command.arg("-p").arg(format!("{}/", family.dir().display())).args(["-c", "nginx.conf", "-e", "stderr"]);
    let started = family.spawn(&mut command)?;
    let master = match way {
        Way::Upgrade => wait_for("nginx to become a daemon", || family.pid_in(PID_FILE))?,
        Way::Reload | Way::ReloadReuseport => started,
    };
    Ok(Nginx { family, way, master })
}

/// The configuration of nginx.
///
/// While the parent that started it lives, nginx ignores USR2, because it believes to be the new one of two. So it must be a
/// daemon for an upgrade; otherwise it may stay attached to the terminal that ends the bench.
///
/// Root in a namespace may have no other user to switch to. A new binary gets only the environment variables that are named.
///
/// Before 1.25.1 a plain listener speaks either HTTP/1 or HTTP/2 (nginx.org, ngx_http_v2_module); later versions deprecate this
/// but behave the same. A leaving worker ends an HTTP/2 connection when no request is in flight, or after `keepalive_requests`
/// requests, so under busy clients it would stay for ever without the default of 1000.
fn configuration(way: Way, address: SocketAddr, http2: bool) -> String {
    let user = if getuid().is_root() { "user root;" } else { "" };
    let descriptors = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX).min(2 * u64::from(CONNECTIONS));
    let reuseport = if way == Way::ReloadReuseport { " reuseport" } else { "" };
    let (http2, requests) = if http2 { (" http2", 1000) } else { ("", 1_000_000_000) };
    let workers = cores();
    let daemon = if way == Way::Upgrade { "on" } else { "off" };
    format!(
        r#"daemon {daemon};
{user}
worker_processes {workers};
worker_rlimit_nofile {descriptors};
pid {PID_FILE};
error_log stderr;
env LD_LIBRARY_PATH;
events {{ worker_connections {CONNECTIONS}; }}
http {{
    access_log off;
    keepalive_timeout 1h;
    keepalive_requests {requests};
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    default_type text/plain;
    server {{
        listen {address} backlog=4096{reuseport}{http2};
        location / {{ return 200 "generation=$pid pid=$pid\n"; }}
    }}
}}
"#
    )
}

pub(super) struct Nginx {
    family: Family,
    way: Way,
    master: u32,
}

impl Nginx {
    /// Returns whether the master has children.
    fn has_workers(&self, master: u32) -> bool {
        self.family.pids().into_iter().any(|pid| parent(pid) == Some(master))
    }
}

impl Means for Nginx {
    fn restart(&mut self) -> Result<(), String> {
        if self.way != Way::Upgrade {
            return tell(self.master, Signal::SIGHUP);
        }
        let old = self.master;
        tell(old, Signal::SIGUSR2)?;
        self.master = wait_for("workers of a new nginx", || {
            self.family.pid_in(PID_FILE).filter(|pid| *pid != old && self.has_workers(*pid))
        })?;
        tell(old, Signal::SIGWINCH)?;
        tell(old, Signal::SIGQUIT)
    }

    fn pids(&self) -> Vec<u32> {
        self.family.pids()
    }

    fn master(&self) -> Option<u32> {
        (self.way != Way::Upgrade).then_some(self.master)
    }

    fn last_words(&self) -> String {
        self.family.last_words()
    }
}

/// The parent of a process (proc_pid_stat(5)). The name, in parentheses, may contain any character.
fn parent(pid: u32) -> Option<u32> {
    let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
