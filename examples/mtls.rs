//! A server that only clients with a certificate may use, and that can be replaced without losing a request.
//!
//! Run `cargo run --example mtls -- 127.0.0.1:8443 cert.pem key.pem ca.pem`, where `ca.pem` has signed the certificates of the clients,
//! then `curl --insecure --cert client.pem --key client-key.pem https://localhost:8443`, and `kill -HUP` the pid that it logs.

use std::convert::Infallible;
use std::sync::Arc;

use handover::ConnectInfo;
use handover::rustls::pki_types::pem::PemObject;
use handover::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use handover::rustls::server::WebPkiClientVerifier;
use handover::rustls::{RootCertStore, ServerConfig};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};

type BoxError = Box<dyn std::error::Error>;

async fn hello(_: Request<Incoming>, client: Arc<str>) -> Result<Response<String>, Infallible> {
    Ok(Response::new(format!("hello from {} to {client}\n", std::process::id())))
}

/// Describes the client of a connection; asked once for each connection.
fn describe(info: &ConnectInfo) -> Arc<str> {
    let Some(tls) = info.tls() else { return "a client without TLS".into() };
    let name = tls.server_name.as_deref().unwrap_or("no name");
    let length = tls.peer_certificates.first().map_or(0, |certificate| certificate.len());
    format!("a certificate of {length} bytes that asked for {name}").into()
}

fn config(mut files: impl Iterator<Item = String>) -> Result<ServerConfig, BoxError> {
    let mut next = || files.next().ok_or("usage: mtls ADDRESS CERT KEY CA");
    let chain = CertificateDer::pem_file_iter(next()?)?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(next()?)?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(next()?)? {
        roots.add(root?)?;
    }
    let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
    Ok(ServerConfig::builder().with_client_cert_verifier(clients).with_single_cert(chain, key)?)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt().json().flatten_event(true).with_writer(std::io::stderr).init();
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:8443".to_owned());
    let server = handover::Server::bind(&*address).tls(config(args)?);
    server
        .serve_with(|info| {
            let client = describe(info);
            service_fn(move |request| hello(request, Arc::clone(&client)))
        })
        .await?;
    Ok(())
}
