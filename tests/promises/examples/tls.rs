//! HTTPS: nothing is lost, and the next generation uses the certificate that is installed when it starts.

use std::sync::Arc;

use support::harness::hand_over;
use tokio_rustls::TlsConnector;

use super::{assert_lossless, assert_nobody_was_cut, load_with, start};
use crate::tls::{Bed, Pair, connect};

#[test]
fn tls_is_handed_over_and_a_new_certificate_comes_with_the_next_generation() {
    let bed = Bed::make();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| bed.path(name).to_str().expect("UTF-8").to_owned());
    let mut server = start("tls", &["127.0.0.1:0", &cert, &key]);
    let traffic = load_with(Some(&bed.connector()), &server, server.address());
    let second = hand_over(&server, 1, server.first_pid());
    assert_lossless(traffic, 2, &server);
    assert_nobody_was_cut(&mut server);

    let after = Pair::new();
    bed.install(&after);
    let third = hand_over(&server, 2, second);
    let mut new = connect(server.address(), &Arc::new(after.config(&[])));
    assert!(new.get("/").ends_with(&format!("hello from {third}\n")));
}

#[test]
fn mtls_is_handed_over_and_sees_the_certificates_of_its_clients() {
    let (bed, client) = (Bed::make(), Pair::new());
    bed.file("ca.pem", &client.cert);
    let files =
        ["cert.pem", "key.pem", "ca.pem"].map(|name| bed.path(name).to_str().expect("UTF-8").to_owned());
    let mut server = start("mtls", &["127.0.0.1:0", &files[0], &files[1], &files[2]]);
    let config = Arc::new(bed.pair.config_of(&client));
    let traffic = load_with(Some(&TlsConnector::from(Arc::clone(&config))), &server, server.address());
    let second = hand_over(&server, 1, server.first_pid());
    assert_lossless(traffic, 2, &server);
    assert_nobody_was_cut(&mut server);
    let answer = connect(server.address(), &config).get("/");
    let expected = format!(
        "hello from {second} to a certificate of {} bytes that asked for no name\n",
        client.certificate.len()
    );
    assert!(answer.ends_with(&expected), "{answer}");
    // With another certificate the handshake fails, at the latest when the server has seen it.
    let stranger = Arc::new(bed.pair.config_of(&Pair::new()));
    let address = server.address();
    let refused = std::thread::spawn(move || connect(address, &stranger).get("/")).join();
    assert!(refused.is_err(), "a stranger was answered: {refused:?}");
}
