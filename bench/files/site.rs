//! A directory with files of random contents, a certificate, and servers of the directory that run the binary.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use hyper::body::Bytes;
use rcgen::{CertificateParams, KeyPair};
use support::load::Target;
use support::process::command;
use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::workloads::STANDBY;

/// A file that every site has.
#[derive(Debug, Clone, Copy)]
pub(super) struct File {
    /// The size in words.
    pub(super) size: &'static str,
    pub(super) bytes: usize,
    pub(super) name: &'static str,
}

/// Their extension is one that no server compresses.
pub(super) const SMALL: File = File { size: "1 KB", bytes: 1 << 10, name: "1k.bin" };
pub(super) const MEDIUM: File = File { size: "100 KB", bytes: 100 << 10, name: "100k.bin" };
pub(super) const LARGE: File = File { size: "10 MB", bytes: 10 << 20, name: "10m.bin" };
pub(super) const FILES: [File; 3] = [SMALL, MEDIUM, LARGE];

pub(super) struct Site {
    dir: TempDir,
    certificate: CertificateDer<'static>,
}

impl Site {
    pub(super) fn new() -> Site {
        let dir = tempfile::tempdir().expect("a directory");
        let key = KeyPair::generate().expect("random numbers");
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address");
        let certificate = params.self_signed(&key).expect("it is complete");
        let site = Site { certificate: certificate.der().clone(), dir };
        std::fs::create_dir(site.root()).expect("writable");
        std::fs::write(site.certificate_file(), certificate.pem()).expect("writable");
        std::fs::write(site.key_file(), key.serialize_pem()).expect("writable");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(site.key_file(), private).expect("writable");
        FILES.iter().for_each(|file| drop(site.write(file.name, file.bytes)));
        site
    }

    pub(super) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub(super) fn certificate_file(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    pub(super) fn key_file(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }

    /// A file for a log.
    pub(super) fn log_file(&self) -> PathBuf {
        self.dir.path().join("access.log")
    }

    fn config_file(&self) -> PathBuf {
        self.dir.path().join("handover.toml")
    }

    /// Writes a file with random contents, which it returns.
    pub(super) fn write(&self, name: &str, bytes: usize) -> Bytes {
        let mut content = vec![0; bytes];
        fastrand::fill(&mut content);
        std::fs::write(self.root().join(name), &content).expect("writable");
        content.into()
    }

    /// The request of a file, and its content.
    pub(super) fn target(&self, file: File) -> Target {
        let content = std::fs::read(self.root().join(file.name)).expect("the site has it");
        Target::File { path: format!("/{}", file.name).into(), content: content.into() }
    }

    /// A command that serves the files with the binary.
    pub(super) fn command(&self) -> Command {
        let mut command = command(env!("CARGO_BIN_EXE_handover"));
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json", "--standby", STANDBY]);
        command.arg(self.root());
        command
    }

    /// The same command with a config that adds a header to every answer, which names the generation.
    pub(super) fn named_command(&self) -> Command {
        self.name(1);
        let mut command = self.command();
        command.arg("--config").arg(self.config_file());
        command
    }

    /// Names the next generation. A generation reads the config only when it starts.
    pub(super) fn name(&self, generation: u64) {
        let config = format!("[headers]\ngeneration = \"{generation}\"\n");
        std::fs::write(self.config_file(), config).expect("writable");
    }

    /// Adds the flags for TLS.
    pub(super) fn with_tls(&self, mut command: Command) -> Command {
        command.arg("--tls-cert").arg(self.certificate_file()).arg("--tls-key").arg(self.key_file());
        command
    }

    /// A client that trusts only this site's certificate, and speaks HTTP/1.1.
    pub(super) fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config).into()
    }
}
