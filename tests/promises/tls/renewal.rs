//! The state that each generation has for itself: its certificate and the key of its tickets.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use handover::rustls::{HandshakeKind, version};
use nix::sys::signal::Signal;
use support::harness::{Traffic, hand_over, wait_until};
use support::load::Clients;
use support::process::signal;

use super::{Bed, Pair, connect};

#[test]
fn a_certificate_that_was_replaced_comes_with_the_next_generation_and_garbage_changes_nothing() {
    let bed = Bed::make();
    let server = bed.start(&[]);
    let addr = server.address();
    let traffic =
        Traffic::start_with(Some(&bed.connector()), addr, Clients::KeepAlive { pause: Duration::ZERO }, 4);
    for (n, (cert, key)) in
        [("garbage", &*bed.pair.key), (&*bed.pair.cert, "garbage"), (&Pair::new().cert, &bed.pair.key)]
            .into_iter()
            .enumerate()
    {
        bed.file("cert.pem", cert);
        bed.file("key.pem", key);
        signal(server.first_pid(), Signal::SIGHUP);
        wait_until("the successor logs the reason and the old generation serves again", &server, || {
            let lines = server.log().lines();
            let why = lines.iter().filter(|line| line.text.contains("cannot use the TLS "));
            let back =
                lines.iter().filter(|line| line.json["from"] == "spawning" && line.json["to"] == "serving");
            why.count() > n && back.count() > n
        });
        assert!(bed.connect(addr).get("/").contains("generation=1 "));
    }
    traffic.stop_lossless(&server);

    let after = Pair::new();
    bed.install(&after);
    let mut kept = bed.connect(addr);
    hand_over(&server, 1, server.first_pid());
    assert!(kept.get("/").contains("generation=1 "), "an open connection stays with the old generation");
    let mut new = connect(addr, &Arc::new(after.config(&[])));
    assert!(new.get("/").contains("generation=2 "));
}

#[test]
fn a_ticket_saves_the_handshake_within_a_generation_and_costs_nothing_but_that_in_the_next() {
    for version in [&version::TLS12, &version::TLS13] {
        let bed = Bed::make();
        let server = bed.start(&[]);
        let config = Arc::new(bed.pair.config_for(&[version], &[]));
        let visit = || {
            let mut client = connect(server.address(), &config);
            let answer = client.get("/");
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            client.0.conn.send_close_notify();
            let _ = client.0.flush();
            client.0.conn.handshake_kind().expect("it is complete")
        };
        assert_eq!(visit(), HandshakeKind::Full);
        assert_eq!(visit(), HandshakeKind::Resumed, "{version:?}");
        hand_over(&server, 1, server.first_pid());
        assert_eq!(visit(), HandshakeKind::Full, "{version:?}: the next generation has another key");
        assert_eq!(visit(), HandshakeKind::Resumed, "{version:?}");
    }
}
