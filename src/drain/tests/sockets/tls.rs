//! TLS handshakes, and connected pairs over TLS.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::yield_now;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

use super::{Pair, connect, secs};
use crate::{Drain, Drained};

/// Returns the configurations of a server and of a client that trusts it.
fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("random numbers");
    let certificate = made.cert.der();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key);
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a certificate");
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server.expect("a pair")), Arc::new(client))
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}

pub(super) async fn pair() -> Pair {
    let drain = Drain::new();
    let (client, conn, socket) = connect(&drain).await;
    let (server_config, client_config) = configs();
    let (client, conn) = tokio::try_join!(
        TlsConnector::from(client_config).connect(localhost(), client),
        conn.tls(server_config, secs(20)),
    )
    .expect("a handshake");
    Pair::new(drain, client, conn, socket)
}

#[tokio::test]
async fn a_handshake_in_progress_at_the_deadline_is_cut_and_counted() {
    for has_begun in [false, true] {
        let drain = Drain::new();
        let (mut client, conn, socket) = connect(&drain).await;
        drop(socket);
        let (server_config, client_config) = configs();
        let handshake = tokio::spawn(conn.tls(server_config, secs(3600)));
        if has_begun {
            let mut hello = Vec::new();
            let mut session = ClientConnection::new(client_config, localhost()).expect("a config");
            session.write_tls(&mut hello).expect("in memory");
            client.write_all(&hello).await.expect("still open");
            client.readable().await.expect("the server's part");
        }
        yield_now().await;
        drain.lame_duck(secs(3600));
        let Drained { finished, cut, requests_cut, .. } = drain.clone().finish(Duration::ZERO).await;
        assert_eq!((finished, cut, requests_cut), (0, 1, 0), "begun: {has_begun}");
        assert_eq!(drain.open(), 0, "the connection is still open, begun: {has_begun}");
        let error = handshake.await.expect("it does not panic").expect_err("it is cut");
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error}");
        client.read_to_end(&mut Vec::new()).await.expect("closed properly");
    }
}
