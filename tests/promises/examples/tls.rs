//! HTTPS: nothing is lost, and the next generation uses the certificate that is installed when it starts.

use std::sync::Arc;

use support::harness::hand_over;

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
