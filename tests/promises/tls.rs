//! TLS: the same promises as without it, and the parts that only TLS has: handshakes, certificates, close_notify, tickets.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use handover::rustls::client::{Resumption, WantsClientCert};
use handover::rustls::crypto::ring;
use handover::rustls::pki_types::pem::PemObject;
use handover::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use handover::rustls::{
    ClientConfig, ClientConnection, ConfigBuilder, RootCertStore, StreamOwned, SupportedProtocolVersion,
    version,
};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use support::harness::{Client, playground};
use support::process::{PATIENCE, Server};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;

mod clients;
mod closing;
mod handshakes;
mod lossless;
mod mistakes;
mod renewal;

pub(crate) type TlsClient = Client<StreamOwned<ClientConnection, TcpStream>>;

/// A self-signed certificate for 127.0.0.1, and its key.
pub(crate) struct Pair {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) cert: String,
    key: String,
}

impl Pair {
    pub(crate) fn new() -> Pair {
        Pair::until(4000)
    }

    /// Makes a certificate that expires at the beginning of this year.
    fn until(year: i32) -> Pair {
        let key = KeyPair::generate().expect("random numbers");
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address");
        params.not_before = date_time_ymd(1990, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let cert = params.self_signed(&key).expect("it is complete");
        Pair { certificate: cert.der().clone(), cert: cert.pem(), key: key.serialize_pem() }
    }

    pub(crate) fn config(&self, alpn: &[&str]) -> ClientConfig {
        self.config_for(&[&version::TLS12, &version::TLS13], alpn)
    }

    /// Makes the config of a client that trusts only this certificate, and shows its own.
    pub(crate) fn config_of(&self, client: &Pair) -> ClientConfig {
        let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes()).expect("a key");
        let chain = vec![client.certificate.clone()];
        self.builder(&[&version::TLS13]).with_client_auth_cert(chain, key).expect("they match")
    }

    fn builder(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("ring has both")
            .with_root_certificates(roots)
    }

    /// Makes the config of a client that trusts only this certificate, and keeps its tickets.
    fn config_for(&self, versions: &[&'static SupportedProtocolVersion], alpn: &[&str]) -> ClientConfig {
        let mut config = self.builder(versions).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

/// Files for a server with TLS.
pub(crate) struct Bed {
    dir: TempDir,
    pub(crate) pair: Pair,
}

impl Bed {
    pub(crate) fn make() -> Bed {
        let bed = Bed { dir: tempfile::tempdir().expect("a directory"), pair: Pair::new() };
        bed.install(&bed.pair);
        bed
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, text: impl AsRef<[u8]>) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(self.path(name), text).expect("writable");
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o600)).expect("writable");
    }

    pub(crate) fn install(&self, pair: &Pair) {
        self.file("cert.pem", &pair.cert);
        self.file("key.pem", &pair.key);
    }

    /// Adds the flags that name the certificate and key files.
    fn with_files(&self, mut command: Command) -> Command {
        command.arg("--tls-cert").arg(self.path("cert.pem")).arg("--tls-key").arg(self.path("key.pem"));
        command
    }

    fn start(&self, args: &[&str]) -> Server {
        Server::start(self.with_files(playground(args)))
    }

    fn connect(&self, addr: SocketAddr) -> TlsClient {
        connect(addr, &Arc::new(self.pair.config(&[])))
    }

    pub(crate) fn connector(&self) -> TlsConnector {
        Arc::new(self.pair.config(&["http/1.1"])).into()
    }
}

/// Connects and completes the handshake.
pub(crate) fn connect(addr: SocketAddr, config: &Arc<ClientConfig>) -> TlsClient {
    let mut client = begin(addr, config);
    client.0.conn.complete_io(&mut client.0.sock).expect("a handshake");
    client
}

/// Connects without sending a byte.
fn begin(addr: SocketAddr, config: &Arc<ClientConfig>) -> TlsClient {
    let stream = TcpStream::connect(addr).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("a socket");
    let session = ClientConnection::new(Arc::clone(config), addr.ip().into()).expect("a config");
    Client(StreamOwned::new(session, stream))
}

/// Disables tickets, so that every handshake is a full one.
fn forgetful(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.resumption = Resumption::disabled();
    Arc::new(config)
}
