//! The control socket answers although every descriptor is taken.

use support::harness::Client;
use support::process::command;

use super::{Bed, text};

#[test]
fn the_control_socket_answers_although_every_descriptor_is_taken() {
    let bed = Bed::make();
    bed.file("large", text(8 << 20));
    let server = bed.start(1024, &["--max-connections", "500"]);
    // Lowered after the start, at which the server derives its connection limit from the descriptor limit.
    let pid = server.first_pid().to_string();
    let limited = command("prlimit").args(["--pid", &pid, "--nofile=64:64"]).status();
    assert!(limited.is_ok_and(|status| status.success()), "prlimit is part of util-linux");
    // These clients do not read, so none of their connections is idle and none makes room.
    let _stalled: Vec<_> = (0..100)
        .map(|_| {
            let mut client = Client::connect(server.address());
            client.send("/large");
            client
        })
        .collect();
    server.log().wait_for("cannot accept");
    // More requests than there are reserve descriptors.
    for _ in 0..20 {
        let status = bed.status();
        assert!(status.contains("serving"), "{status}\n{}", server.log().history());
    }
}
