//! What `Server` is told of TLS.

use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::ServerConfig;

use super::Server;
use crate::defaults;

/// What ALPN offers, in the order of preference.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

#[derive(Debug, Clone)]
pub(super) struct Tls {
    pub(super) config: Option<Arc<ServerConfig>>,
    pub(super) timeout: Duration,
}

impl Default for Tls {
    fn default() -> Tls {
        Tls { config: None, timeout: defaults::HANDSHAKE_TIMEOUT }
    }
}

impl Server {
    /// Serves every connection of [`serve`](Server::serve) with TLS. Without ALPN protocols in `config` it offers `h2` and
    /// `http/1.1`. The feature brings no crypto provider: `config` has that of the program, by `ServerConfig::builder` the one whose
    /// feature of rustls (`ring`, `aws_lc_rs`) is on. [`listen`](Server::listen) leaves the handshake to the program: see [`Conn::tls`](crate::Conn::tls).
    ///
    /// A generation has the certificate that it is given here, so the next one brings a new one. What a client keeps of a
    /// session, a ticket, means nothing to the next generation unless `config` has a ticketer with keys that both know: its
    /// next connection takes a full handshake, and nothing is lost.
    pub fn tls(mut self, config: impl Into<Arc<ServerConfig>>) -> Server {
        let mut config = config.into();
        if config.alpn_protocols.is_empty() {
            Arc::make_mut(&mut config).alpn_protocols = ALPN.map(Vec::from).to_vec();
        }
        self.config.tls.config = Some(config);
        self
    }

    /// How long a client may take for its TLS handshake, from accept on; then its connection is closed. Default:
    /// [`defaults::HANDSHAKE_TIMEOUT`].
    pub fn handshake_timeout(mut self, timeout: Duration) -> Server {
        self.config.tls.timeout = timeout;
        self
    }
}

impl Tls {
    /// `None` without TLS.
    pub(super) fn enabled(&self) -> Option<(Arc<ServerConfig>, Duration)> {
        self.config.clone().map(|config| (config, self.timeout))
    }
}
