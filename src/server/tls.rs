//! The TLS settings of `Server`.

use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::ServerConfig;

use super::Server;
use crate::defaults;

/// The ALPN protocols on offer, in order of preference.
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
    /// Serves every connection of [`serve`](Server::serve) with TLS. If `config` has no ALPN protocols, the server offers
    /// `h2` and `http/1.1`. No crypto provider is included: `config` carries the program's, and `ServerConfig::builder` picks
    /// the one enabled by a rustls feature (`ring`, `aws_lc_rs`). With [`listen`](Server::listen) the program does the
    /// handshake itself: see [`Conn::tls`](crate::Conn::tls).
    ///
    /// A generation keeps the certificate given here; to change it, restart. A client's session ticket is accepted by the
    /// next generation only if `config` has a ticketer with keys that both generations share. Otherwise the client's next
    /// connection takes a full handshake, and no request is lost.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use {hyper::{Request, Response, body::Incoming, service::service_fn}, std::convert::Infallible};
    /// # async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> { Ok(Response::new("".into())) }
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use handover::rustls::ServerConfig;
    /// use handover::rustls::pki_types::pem::PemObject;
    /// use handover::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    ///
    /// let chain = CertificateDer::pem_file_iter("cert.pem")?.collect::<Result<Vec<_>, _>>()?;
    /// let key = PrivateKeyDer::from_pem_file("key.pem")?;
    /// let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    /// handover::Server::bind("0.0.0.0:8443").tls(config).serve(service_fn(hello)).await?;
    /// # Ok(()) }
    /// ```
    pub fn tls(mut self, config: impl Into<Arc<ServerConfig>>) -> Server {
        let mut config = config.into();
        if config.alpn_protocols.is_empty() {
            Arc::make_mut(&mut config).alpn_protocols = ALPN.map(Vec::from).to_vec();
        }
        self.config.tls.config = Some(config);
        self
    }

    /// Sets how long a client may take for its TLS handshake, counted from accept. Then its connection is closed. Default:
    /// [`defaults::HANDSHAKE_TIMEOUT`].
    pub fn handshake_timeout(mut self, timeout: Duration) -> Server {
        self.config.tls.timeout = timeout;
        self
    }
}

impl Tls {
    /// Returns the TLS configuration and the handshake timeout, or `None` without TLS.
    pub(super) fn enabled(&self) -> Option<(Arc<ServerConfig>, Duration)> {
        self.config.clone().map(|config| (config, self.timeout))
    }
}
