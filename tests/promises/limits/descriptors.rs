//! Every descriptor is taken, and whoever operates the server still gets an answer.

use super::Bed;
use crate::harness::Client;

#[test]
fn the_control_socket_answers_although_every_descriptor_is_taken() {
    let bed = Bed::make();
    let server = bed.start(64, &["--max-connections", "1000"]);
    let _idle: Vec<_> = (0..100).map(|_| Client::connect(server.address())).collect();
    server.log().wait_for("cannot accept");
    // More often than there are descriptors in reserve.
    for _ in 0..20 {
        let status = bed.status();
        assert!(status.contains("serving"), "{status}\n{}", server.log().history());
    }
}
