//! A server with TLS that can be replaced without losing a request; the next generation reads the certificate anew.
//!
//! Run `cargo run --example tls -- 127.0.0.1:8443 cert.pem key.pem`, or without files to use a self-signed certificate.
//! Then `curl --insecure https://localhost:8443`, and `kill -HUP` the pid that it logs.

use std::convert::Infallible;

use handover::rustls::ServerConfig;
use handover::rustls::pki_types::pem::PemObject;
use handover::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};

type BoxError = Box<dyn std::error::Error>;

async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> {
    Ok(Response::new(format!("hello from {}\n", std::process::id())))
}

/// Makes a self-signed certificate: a different one in each generation, which is for the example only.
fn self_signed() -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), BoxError> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    Ok((vec![made.cert.der().clone()], PrivateKeyDer::try_from(made.signing_key.serialize_der())?))
}

fn config(mut files: impl Iterator<Item = String>) -> Result<ServerConfig, BoxError> {
    let (chain, key) = match (files.next(), files.next()) {
        (Some(cert), Some(key)) => {
            let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<_, _>>()?;
            (chain, PrivateKeyDer::from_pem_file(key)?)
        }
        _ => self_signed()?,
    };
    // Uses the crypto provider that this program depends on.
    Ok(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt().json().flatten_event(true).with_writer(std::io::stderr).init();
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:8443".to_owned());
    handover::Server::bind(&*address).tls(config(args)?).serve(service_fn(hello)).await?;
    Ok(())
}
