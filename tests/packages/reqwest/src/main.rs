//! Serves HTTPS with handover and sends itself a request with reqwest, each used as documented and without any mention of a
//! crypto provider. Usage: beside-reqwest CERT KEY, both PEM, the certificate for localhost. Prints the response.

use std::convert::Infallible;
use std::error::Error;

use handover::rustls::ServerConfig;
use handover::rustls::pki_types::pem::PemObject;
use handover::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use handover::{Phase, Server};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use reqwest::{Certificate, Client};

async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> {
    Ok(Response::new("hello over TLS".to_owned()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (cert, key) = args.next().zip(args.next()).ok_or("two files")?;
    let chain = vec![CertificateDer::from_pem_file(&cert)?];
    let config = ServerConfig::builder();
    let config = config.with_no_client_auth().with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;

    let server = Server::bind("127.0.0.1:0").tls(config);
    let mut handle = server.handle();
    let serving = tokio::spawn(server.serve(service_fn(hello)));
    while handle.phase() != Phase::Serving {
        handle.changed().await.ok_or("it does not serve")?;
    }
    let client = Client::builder().tls_certs_only([Certificate::from_pem(&std::fs::read(cert)?)?]).build()?;
    let port = handle.addresses().first().ok_or("no address")?.port();
    let text = client.get(format!("https://localhost:{port}/")).send().await?.text().await?;
    handle.stop();
    serving.await??;
    println!("{text}");
    Ok(())
}
