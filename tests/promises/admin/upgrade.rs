//! An upgrade over TCP: a file beside the program replaces it, or everything stays as it was.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use support::harness::{Traffic, install, wait_until};
use support::load::Clients;

use super::{Administered, json};
use crate::HANDOVER;

fn inode(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).expect("the file exists").ino()
}

#[test]
fn a_good_and_a_bad_upgrade_over_tcp_under_load_lose_nothing() {
    let service = Administered::start(&[]);
    let traffic = Traffic::start(service.site(), Clients::Fresh, 8);
    let before = inode(&service.program);

    let bad = service.dir.path().join("bad");
    std::fs::write(&bad, "#!/bin/sh\necho this is version none >&2\nexit 9\n").expect("writable");
    std::fs::set_permissions(&bad, PermissionsExt::from_mode(0o755)).expect("we own it");
    let (status, body) = service.ask("POST", "/upgrade?file=bad");
    let said = json(&body);
    assert_eq!(
        (status, &said["outcome"], &said["stderr"][0]),
        (500, &"failed".into(), &"this is version none".into())
    );
    assert_eq!(inode(&service.program), before);
    for refused in ["/upgrade", "/upgrade?file=missing", "/upgrade?file=../bad", "/upgrade?file=/bin/true"] {
        let (status, body) = service.ask("POST", refused);
        assert_eq!(status, 400, "{refused}: {body}");
    }

    install(HANDOVER, &service.dir.path().join("good"));
    let asked = json(&service.ask("GET", "/version").1)["pid"].as_u64();
    let (status, body) = service.ask("POST", "/upgrade?file=good");
    assert_eq!((status, &json(&body)["outcome"]), (200, &"upgraded".into()), "{body}");
    assert_ne!(inode(&service.program), before);
    assert_eq!(inode(&service.dir.path().join("server.old")), before);
    let answers = json(&service.ask("GET", "/version").1)["pid"].as_u64();
    assert_ne!(answers, asked, "the answer came from the process that was replaced");
    wait_until("the old generation has left", &service.server, || {
        let text = service.ask("GET", "/metrics").1;
        text.contains("handover_handovers_total{outcome=\"took over\"} 1")
    });
    traffic.stop_lossless(&service.server);
}
