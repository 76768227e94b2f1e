//! Nothing is lost over TLS while everything works.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use h2::client::SendRequest;
use hyper::body::Bytes;
use support::harness::{Traffic, hand_over};
use support::load::Clients;
use support::process::Server;
use tokio::net::TcpStream;

use super::Bed;

fn ten_handovers(server: &Server) {
    (1..=10).fold(server.first_pid(), |pid, generation| hand_over(server, generation, pid));
}

#[test]
fn fresh_and_kept_connections_lose_nothing_over_ten_handovers() {
    let bed = Bed::make();
    let server = bed.start(&[]);
    let traffic =
        |clients, count| Traffic::start_with(Some(&bed.connector()), server.address(), clients, count);
    let all = [
        traffic(Clients::Fresh, 8),
        traffic(Clients::KeepAlive { pause: Duration::ZERO }, 8),
        traffic(Clients::KeepAlive { pause: Duration::from_millis(10) }, 32),
    ];
    ten_handovers(&server);
    for traffic in all {
        let report = traffic.stop_lossless(&server);
        // On a busy machine a generation may be replaced before it gets a request.
        assert!(report.first_answers().len() > 5, "{:?}", report.first_answers().keys());
    }
}

/// Sends requests on one HTTP/2 connection until GOAWAY arrives; returns how many were answered.
async fn until_goaway(bed: &Bed, server: &Server, stop: &Arc<AtomicBool>) -> u64 {
    let connector = tokio_rustls::TlsConnector::from(Arc::new(bed.pair.config(&["h2", "http/1.1"])));
    let stream = TcpStream::connect(server.address()).await.expect("the server listens");
    let stream = connector.connect(server.address().ip().into(), stream).await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (requests, connection) = h2::client::handshake(stream).await.expect("a preface and settings");
    let connection = tokio::spawn(connection);
    let workers = (0..8).map(|_| tokio::spawn(ask(requests.clone(), Arc::clone(stop))));
    let mut answered = 0;
    for worker in workers.collect::<Vec<_>>() {
        answered += worker.await.expect("every request that was sent is answered");
    }
    drop(requests);
    // An error at the end of the connection does not matter: every request was answered.
    let _ = connection.await.expect("h2 does not panic");
    answered
}

/// Sends one request after the other until GOAWAY; returns how many were answered.
async fn ask(mut requests: SendRequest<Bytes>, stop: Arc<AtomicBool>) -> u64 {
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        // An error means that GOAWAY has arrived: this connection takes no more requests.
        let Ok(mut ready) = requests.ready().await else { break };
        let request = hyper::Request::get("https://127.0.0.1/").body(()).expect("a request");
        let Ok((response, _)) = ready.send_request(request, true) else { break };
        requests = ready;
        let mut body = response.await.expect("every request that was sent is answered").into_body();
        let mut text = Vec::new();
        while let Some(chunk) = body.data().await {
            text.extend_from_slice(&chunk.expect("the whole answer"));
        }
        assert!(text.starts_with(b"generation="), "{:?}", String::from_utf8_lossy(&text));
        answered += 1;
    }
    answered
}

#[test]
fn every_request_over_http2_by_alpn_is_answered_over_ten_handovers() {
    let bed = Bed::make();
    // This client never pauses, and each generation must finish with it before the next one retires.
    let server = bed.start(&["--goaway-delay", "50ms"]);
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let (mut answered, mut connections) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    answered += until_goaway(&bed, &server, &stop).await;
                    connections += 1;
                }
                (answered, connections)
            })
        });
        ten_handovers(&server);
        stop.store(true, Ordering::Relaxed);
        let (answered, connections) = clients.join().unwrap_or_else(|_| panic!("{}", server.log().history()));
        assert!(answered > 300 && connections > 5, "{answered} requests on {connections} connections");
        println!("{answered} requests on {connections} connections");
    });
}
