//! Files that are sent to stalled clients: they hold no descriptor that other clients need, and are still sent in full.

use std::time::{Duration, Instant};

use support::harness::get;
use support::process::Server;

use super::{Bed, STREAMS, Stalled, text};

const DESCRIPTORS: u32 = 1024;

fn open_files(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.first_pid())).expect("it is alive").count()
}

#[test]
fn clients_that_do_not_read_files_leave_descriptors_for_the_others() {
    let bed = Bed::make();
    let large = text(1 << 20);
    bed.file("large", &large);
    bed.file("small", "small");
    let server = bed.start(DESCRIPTORS, &[]);
    let addr = server.address();
    let mut stalled: Vec<_> = (0..12).map(|_| Stalled::begin(addr, "/large", "identity", STREAMS)).collect();
    let open = open_files(&server);
    assert!(open < 350, "{open} descriptors");
    for _ in 0..10 {
        let began = Instant::now();
        assert!(get(addr, "/small").ends_with("small"));
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    assert!(bed.status().contains("serving"));
    // Streams that lost their descriptor first, and streams that still have one.
    for (client, stream) in [(11, 2 * STREAMS - 1), (6, 51), (0, 1)] {
        let whole = stalled.remove(client).finish(stream).expect("no error");
        assert!(whole == large.as_bytes(), "{} bytes that differ from the file", whole.len());
    }
}

#[test]
fn a_file_that_is_replaced_while_it_is_sent_is_sent_as_it_was() {
    let bed = Bed::make();
    let (old, new) = (text(1 << 20), "new".repeat(100_000));
    bed.file("large", &old);
    let server = bed.start(DESCRIPTORS, &[]);
    let addr = server.address();
    let (replaced, removed) = {
        bed.file("other", &old);
        (Stalled::begin(addr, "/large", "identity", 1), Stalled::begin(addr, "/other", "identity", 1))
    };
    bed.file("draft", &new);
    std::fs::rename(bed.path("root/draft"), bed.path("root/large")).expect("writable");
    std::fs::remove_file(bed.path("root/other")).expect("writable");
    // More streams than the server keeps files open for.
    let others: Vec<_> = (0..6).map(|_| Stalled::begin(addr, "/large", "identity", STREAMS)).collect();
    assert!(replaced.finish(1).expect("no error") == old.as_bytes());
    assert!(removed.finish(1).expect("no error") == old.as_bytes());
    for stalled in others {
        assert!(stalled.finish(1).expect("no error") == new.as_bytes());
    }
}

#[test]
fn a_file_that_changes_after_its_descriptor_was_taken_ends_with_an_error_and_mixes_nothing() {
    let bed = Bed::make();
    let old = text(1 << 20);
    bed.file("large", &old);
    let server = bed.start(DESCRIPTORS, &[]);
    let addr = server.address();
    let first = Stalled::begin(addr, "/large", "identity", 1);
    let others: Vec<_> = (0..4).map(|_| Stalled::begin(addr, "/large", "identity", STREAMS)).collect();
    bed.file("draft", "x".repeat(1 << 20));
    std::fs::rename(bed.path("root/draft"), bed.path("root/large")).expect("writable");
    assert_eq!(first.finish(1), None);
    drop(others);
    assert!(get(addr, "/large").contains("xxxx"));
}
