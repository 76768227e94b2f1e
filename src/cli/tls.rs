//! The certificate and the key of the binary for HTTPS. They are read once, when a generation starts: a new certificate takes
//! effect with the next generation, and a bad one only prevents that generation.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Args;
use handover::rustls::client::verify_server_cert_signed_by_trust_anchor;
use handover::rustls::crypto::{CryptoProvider, ring};
use handover::rustls::pki_types::pem::{self, PemObject};
use handover::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use handover::rustls::server::ParsedCertificate;
use handover::rustls::sign::{CertifiedKey, SingleCertAndKey};
use handover::rustls::{CertificateError, Error, InconsistentKeys, RootCertStore, ServerConfig};
use handover::{Server, defaults};

use super::options::{cause, duration, time};

#[derive(Debug, Args)]
pub struct TlsOptions {
    /// Serve HTTPS with the certificate chain in this PEM file, the server's own first; each generation reads it anew
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The key of that certificate: PEM, not encrypted
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// How long a client may take for its TLS handshake
    #[arg(long, value_name = "TIME", default_value = time(defaults::HANDSHAKE_TIMEOUT), value_parser = duration)]
    tls_handshake_timeout: Duration,
}

/// Largest certificate or key file in bytes; a larger one was named by mistake.
const LARGEST: u64 = 1 << 20;

/// The flag that has a mistake, and the reason.
pub type Mistake = (&'static str, String);

const CERT: &str = "tls-cert";
const KEY: &str = "tls-key";

impl TlsOptions {
    /// Reads and checks the files; `None` without TLS. A certificate that clients may refuse is only a warning, because a server
    /// that does not start is worse.
    pub fn load(&self) -> Result<Option<Arc<ServerConfig>>, Mistake> {
        let (cert, key) = match (&self.tls_cert, &self.tls_key) {
            (None, None) => return Ok(None),
            (Some(cert), Some(key)) => (cert, key),
            (Some(cert), None) => {
                let cert = cert.display();
                return Err((
                    CERT,
                    format!("cannot use the TLS certificate {cert} without its key: name it with --tls-key"),
                ));
            }
            (None, Some(key)) => {
                let key = key.display();
                return Err((
                    KEY,
                    format!("cannot use the TLS key {key} without its certificate: name it with --tls-cert"),
                ));
            }
        };
        let provider = Arc::new(ring::default_provider());
        let chain = read_chain(cert).map_err(|why| (CERT, refused("certificate", cert, &why)))?;
        let loaded = read_key(key)
            .and_then(|key| provider.key_provider.load_private_key(key).map_err(|error| error.to_string()))
            .map_err(|why| (KEY, refused("key", key, &why)))?;
        let certified = CertifiedKey::new(chain, loaded);
        match certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => {
                let why = format!(
                    "it does not belong to the first certificate in {}; name the pair that was issued together",
                    cert.display()
                );
                return Err((KEY, refused("key", key, &why)));
            }
            Err(error) => return Err((CERT, refused("certificate", cert, &error.to_string()))),
        }
        warn_of_dates(&certified.cert, cert, &provider);
        let config =
            configured(certified, provider).map_err(|error| (CERT, format!("cannot serve TLS: {error}")))?;
        Ok(Some(Arc::new(config)))
    }

    /// Adds TLS to the server, if there is any.
    pub fn apply(&self, server: Server, config: Option<Arc<ServerConfig>>) -> Server {
        match config {
            Some(config) => server.tls(config).handshake_timeout(self.tls_handshake_timeout),
            None => server,
        }
    }
}

fn refused(what: &str, path: &Path, why: &str) -> String {
    format!("cannot use the TLS {what} {}: {why}", path.display())
}

fn configured(certified: CertifiedKey, provider: Arc<CryptoProvider>) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    // Tickets replace the default cache of 256 sessions. Their key never leaves this process.
    config.ticketer = ring::Ticketer::new()?;
    Ok(config)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let metadata = fs::metadata(path).map_err(|error| cause(&error))?;
    if !metadata.is_file() {
        return Err("it is no regular file".into());
    }
    if metadata.len() > LARGEST {
        return Err(format!("it is larger than {LARGEST} bytes"));
    }
    fs::read(path).map_err(|error| cause(&error))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let chain = chain.map_err(|error| format!("its PEM is broken: {error}"))?;
    if chain.is_empty() { Err("there is no -----BEGIN CERTIFICATE----- in it".into()) } else { Ok(chain) }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = read(path)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound if text.windows(9).any(|word| word == b"ENCRYPTED") => {
            "it is encrypted, and the server cannot ask for a passphrase; `openssl pkey -in FILE -out NEW` removes it".into()
        }
        pem::Error::NoItemsFound => "there is no -----BEGIN PRIVATE KEY----- in it".into(),
        error => format!("its PEM is broken: {error}"),
    })?;
    let mode = fs::metadata(path).map_err(|error| cause(&error))?.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        tracing::warn!(
            "every user of this machine may use the TLS key {} (mode {mode:o}); chmod 600 it",
            path.display()
        );
    }
    Ok(key)
}

/// Warns of certificates that have expired or are not valid yet. The verifier checks dates before it looks for a trust anchor, so
/// an empty root store is enough.
fn warn_of_dates(chain: &[CertificateDer<'_>], path: &Path, provider: &CryptoProvider) {
    let algorithms = provider.signature_verification_algorithms.all;
    for cert in chain {
        let Ok(parsed) = ParsedCertificate::try_from(cert) else { continue };
        let (no_roots, now) = (RootCertStore::empty(), UnixTime::now());
        let verified = verify_server_cert_signed_by_trust_anchor(&parsed, &no_roots, &[], now, algorithms);
        let Err(Error::InvalidCertificate(why)) = verified else { continue };
        let what = match why {
            CertificateError::ExpiredContext { not_after, .. } => {
                format!("expired on {}", date(not_after))
            }
            CertificateError::NotValidYetContext { not_before, .. } => {
                format!("is not valid before {}", date(not_before))
            }
            _ => continue,
        };
        tracing::warn!(
            "a TLS certificate in {} {what}: clients will refuse it, but it is served nevertheless",
            path.display()
        );
    }
}

fn date(time: UnixTime) -> String {
    // A certificate may name a year after 9999, which an HTTP date cannot.
    let last = Duration::from_secs(253_402_300_799);
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs()).min(last))
}
