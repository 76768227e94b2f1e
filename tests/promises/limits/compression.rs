//! An encoder holds memory until the client has read its response.

use support::harness::{Client, wait_until};

use super::{Bed, STREAMS, Stalled, text};

/// Returns the head of the response to a client that accepts brotli and reads everything.
fn head(addr: std::net::SocketAddr, target: &str) -> String {
    let mut client = Client::connect(addr);
    client.write(format!(
        "HEAD {target} HTTP/1.1\r\nhost: t\r\naccept-encoding: br\r\nconnection: close\r\n\r\n"
    ));
    client.rest()
}

fn memory(pid: u32, which: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it is alive");
    let line = status.lines().find_map(|line| line.strip_prefix(which)).expect("a line");
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
}

#[test]
fn clients_that_do_not_read_what_is_compressed_take_little_memory_and_others_get_it_as_it_is() {
    let bed = Bed::make();
    let page = text(1 << 20);
    bed.file("page.txt", &page);
    // A listing is generated, so its headers come from the compression code alone.
    std::fs::create_dir(bed.path("root/names")).expect("writable");
    (0..100).for_each(|n| bed.file(&format!("names/{n}"), ""));
    let server = bed.start(4096, &["--compression", "--directory-listing"]);
    let (addr, pid) = (server.address(), server.first_pid());
    let compressed = || head(addr, "/page.txt").contains("content-encoding: br\r\n");
    assert!(compressed());
    let one = Stalled::begin(addr, "/page.txt", "br", STREAMS);
    assert!(compressed(), "one connection has taken every encoder");
    let mut many: Vec<_> = (0..49).map(|_| Stalled::begin(addr, "/page.txt", "br", STREAMS)).collect();
    let plain = head(addr, "/page.txt");
    assert!(!plain.contains("content-encoding") && plain.contains("content-length: 1048576\r\n"), "{plain}");
    assert_eq!(plain.matches("accept-encoding").count(), 1, "{plain}");
    let listed = head(addr, "/names/");
    assert!(!listed.contains("content-encoding"), "{listed}");
    assert!(
        [&plain, &listed].iter().all(|head| head.contains("vary: accept-encoding\r\n")),
        "{plain}{listed}"
    );
    let peak = memory(pid, "VmHWM:");
    println!("50 connections with {STREAMS} streams each: {} MiB", peak >> 10);
    assert!(peak < 300 << 10, "{peak} KiB");
    // The last connections got no encoder.
    let whole = many.pop().expect("there are 49").finish(1).expect("no error");
    assert!(whole == page.as_bytes(), "{} bytes", whole.len());
    drop((one, many));
    wait_until("the encoders are released", &server, compressed);
}

#[test]
fn an_answer_that_is_not_compressed_keeps_no_encoder() {
    let bed = Bed::make();
    bed.file("page.txt", text(1 << 20));
    bed.file("picture.png", text(1 << 20));
    bed.file("part.txt", text(1 << 20));
    let server = bed.start(1024, &["--compression"]);
    let addr = server.address();
    // Accepts no encoding that the server produces, or requests a file that is not worth compressing.
    let _stalled: Vec<_> = ["identity", "zstd, identity", "br, gzip"]
        .iter()
        .flat_map(|accepts| {
            let target = if accepts.starts_with("br") { "/picture.png" } else { "/page.txt" };
            (0..7).map(move |_| Stalled::begin(addr, target, accepts, 10))
        })
        .collect();
    assert!(head(addr, "/page.txt").contains("content-encoding: br\r\n"));
}
