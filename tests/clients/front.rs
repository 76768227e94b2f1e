//! nginx and HAProxy: before the server, as proxies that keep connections to it and try nothing twice, and beside it, as the
//! server that a client's failures are compared with. Each listens once for each pause, with a pool of its own, because a
//! busy client would keep the connections of a quiet one warm.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use support::servers::family::Family;
use support::servers::{address, packages, tell, wait_for};

pub(crate) struct Front {
    family: Family,
    master: u32,
    /// The pauses, and where it listens for each.
    ports: Vec<(u64, SocketAddr)>,
}

/// What nginx or HAProxy says of its version, or why it is missing.
pub(crate) fn version(program: &str) -> Result<String, String> {
    packages::version(program, if program == "nginx" { "nginx/" } else { "version " })
}

impl Front {
    /// An nginx before `upstream`.
    pub(crate) fn nginx(upstream: SocketAddr, pauses: &[u64]) -> Result<Front, String> {
        let ports = listeners(pauses)?;
        let servers = ports.iter().map(|(pause, address)| {
            format!(
                "upstream pool{pause} {{ server {upstream}; keepalive 16; }}
                server {{
                    listen {address};
                    location / {{
                        proxy_pass http://pool{pause};
                        proxy_http_version 1.1;
                        proxy_set_header Connection '';
                        proxy_next_upstream off;
                    }}
                }}\n"
            )
        });
        Front::start_nginx(&servers.collect::<String>(), ports)
    }

    /// An nginx, with HTTP/2 over TLS if there is a certificate with its key, whose answers come from `still`, a server that
    /// nobody replaces, over a new connection each.
    pub(crate) fn nginx_beside(still: SocketAddr, tls: Option<[&Path; 2]>) -> Result<Front, String> {
        let ports = listeners(&[0])?;
        let (protocols, files) = match tls {
            None => ("", String::new()),
            Some([certificate, key]) => {
                let (certificate, key) = (certificate.display(), key.display());
                (" ssl http2", format!("ssl_certificate {certificate};\nssl_certificate_key {key};\n"))
            }
        };
        let (address, proxy) = (ports[0].1, format!("location / {{ proxy_pass http://{still}; }}"));
        let server = format!("server {{\nlisten {address}{protocols};\n{files}{proxy}\n}}\n");
        Front::start_nginx(&server, ports)
    }

    fn start_nginx(servers: &str, ports: Vec<(u64, SocketAddr)>) -> Result<Front, String> {
        let family = Family::new()?;
        let user = if nix::unistd::getuid().is_root() { "user root;" } else { "" };
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {kind};\n"))
            .concat();
        let configuration = format!(
            "daemon off;\n{user}\nworker_processes 2;\npid nginx.pid;\nerror_log stderr;
            events {{ worker_connections 1024; }}\nhttp {{ access_log off;\n{temporary}{servers} }}\n"
        );
        family.write("nginx.conf", &configuration)?;
        let mut nginx = packages::command("nginx")?;
        nginx.arg("-p").arg(format!("{}/", family.dir().display())).args([
            "-c",
            "nginx.conf",
            "-e",
            "stderr",
        ]);
        Front::start(family, &mut nginx, ports)
    }

    /// A HAProxy before `upstream`.
    pub(crate) fn haproxy(upstream: SocketAddr, pauses: &[u64]) -> Result<Front, String> {
        let ports = listeners(pauses)?;
        let proxies = ports.iter().map(|(pause, address)| {
            format!(
                "frontend front{pause}\n bind {address}\n default_backend pool{pause}\n\
                 backend pool{pause}\n http-reuse always\n server one {upstream}\n"
            )
        });
        let configuration = format!(
            "global\n nbthread 2\ndefaults\n mode http\n retries 0\n timeout connect 5s\n timeout client 1m\n \
             timeout server 1m\n{}",
            proxies.collect::<String>()
        );
        let family = Family::new()?;
        family.write("haproxy.cfg", &configuration)?;
        Front::start(family, packages::command("haproxy")?.args(["-W", "-f", "haproxy.cfg"]), ports)
    }

    fn start(
        mut family: Family,
        command: &mut Command,
        ports: Vec<(u64, SocketAddr)>,
    ) -> Result<Front, String> {
        let master = family.spawn(command)?;
        let front = Front { family, master, ports };
        let listens = || front.ports.iter().all(|(_, address)| TcpStream::connect(address).is_ok());
        wait_for("a proxy to listen", || listens().then_some(()))
            .map_err(|error| format!("{error}; it said: {}", front.family.last_words()))?;
        Ok(front)
    }

    /// Where a client with this pause asks.
    pub(crate) fn address(&self, pause: u64) -> SocketAddr {
        let port = self.ports.iter().find(|(of, _)| *of == pause).unwrap_or(&self.ports[0]);
        port.1
    }

    /// New workers under the same master.
    pub(crate) fn reload(&self) -> Result<(), String> {
        tell(self.master, Signal::SIGHUP)
    }

    pub(crate) fn last_words(&self) -> String {
        self.family.last_words()
    }
}

fn listeners(pauses: &[u64]) -> Result<Vec<(u64, SocketAddr)>, String> {
    pauses.iter().map(|pause| Ok((*pause, address::free_port(Ipv4Addr::LOCALHOST)?))).collect()
}
