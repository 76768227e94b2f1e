//! nginx and HAProxy: as proxies in front of the server, which keep connections to it and never retry, and beside it, as the
//! server with which a client's failures are compared. A proxy has one listener and one pool per pause, because a busy client
//! would keep the connections of a quiet one warm.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use support::servers::family::Family;
use support::servers::{address, packages, tell, wait_for};

pub(crate) struct Front {
    family: Family,
    master: u32,
    /// The pauses, each with the address of its listener.
    ports: Vec<(u64, SocketAddr)>,
}

/// Returns the version that nginx or HAProxy prints, or why it is missing.
pub(crate) fn version(program: &str) -> Result<String, String> {
    packages::version(program, if program == "nginx" { "nginx/" } else { "version " })
}

impl Front {
    /// Starts an nginx in front of `upstream`.
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

    /// Starts an nginx, with HTTP/2 over TLS if `tls` has a certificate and its key. It fetches each response over a new
    /// connection from `still`, a server that is never replaced.
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

    /// Starts a HAProxy in front of `upstream`.
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

    /// The address to which a client with this pause connects.
    pub(crate) fn address(&self, pause: u64) -> SocketAddr {
        let port = self.ports.iter().find(|(of, _)| *of == pause).unwrap_or(&self.ports[0]);
        port.1
    }

    /// Makes the master replace its workers.
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
