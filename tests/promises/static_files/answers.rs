//! The parts of HTTP that concern files: validators, ranges, compressed files, names.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{Bed, noise};

#[test]
fn several_ranges_come_as_parts_of_one_response() {
    let bed = Bed::start(&[]);
    for (name, size) in [("small.txt", 1000), ("large.txt", 1 << 20)] {
        let content = noise(size, 1);
        bed.write(name, &content);
        let response = bed.get(&format!("/{name}"), &["range: bytes=5-9, -3, 100-100, 2000000-"]);
        assert_eq!(response.status(), 206, "{}", response.head);
        assert!(response.is_whole(), "{}", response.head);
        let boundary = response.field("content-type").strip_prefix("multipart/byteranges; boundary=");
        let boundary = boundary.expect("several parts");
        let mut expected = vec![];
        for (first, last) in [(5, 9), (size - 3, size - 1), (100, 100)] {
            let range = format!("content-range: bytes {first}-{last}/{size}");
            let head = format!("\r\n--{boundary}\r\ncontent-type: text/plain\r\n{range}\r\n\r\n");
            expected.extend_from_slice(head.as_bytes());
            expected.extend_from_slice(&content[first..=last]);
        }
        expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        assert!(response.body == expected, "{}", String::from_utf8_lossy(&response.body));
    }
    let all = bed.get("/small.txt", &["range: bytes=0-9,5-14"]);
    assert_eq!((all.status(), all.body.len()), (200, 1000));
}

#[test]
fn a_part_is_sent_only_of_the_version_that_the_client_has() {
    let bed = Bed::start(&[]);
    let old = noise(300_000, 1);
    bed.write("file", &old);
    let first = bed.get("/file", &["range: bytes=0-99999"]);
    let (tag, modified) = (first.field("etag"), first.field("last-modified"));
    assert!(first.body == old[..100_000] && tag.starts_with('"'), "{}", first.head);
    for validator in [tag, modified] {
        let rest = bed.get("/file", &["range: bytes=100000-", &format!("if-range: {validator}")]);
        assert!(rest.status() == 206 && rest.body == old[100_000..], "{}", rest.head);
    }
    let other = bed.get("/file", &["range: bytes=100000-", &format!("if-range: W/{tag}")]);
    assert_eq!((other.status(), other.body.len()), (200, 300_000), "a weak tag does not suffice");
    let new = noise(300_000, 2);
    bed.replace("file", &new);
    let whole = bed.get("/file", &["range: bytes=100000-", &format!("if-range: {tag}")]);
    assert!(whole.status() == 200 && whole.body == new, "{}", whole.head);
    assert_ne!(whole.field("etag"), tag);
}

#[test]
fn conditions_are_answered_in_their_order() {
    let bed = Bed::start(&[]);
    bed.write("file", "content");
    let (tag, modified) = {
        let response = bed.get("/file", &[]);
        (response.field("etag").to_owned(), response.field("last-modified").to_owned())
    };
    let long_ago = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (fields, status) in [
        (vec![format!("if-none-match: \"other\", {tag}")], 304),
        (vec![format!("if-none-match: W/{tag}")], 304),
        (vec!["if-none-match: *".into()], 304),
        (vec!["if-none-match: \"other\"".into()], 200),
        (vec![format!("if-modified-since: {modified}")], 304),
        (vec![format!("if-modified-since: {long_ago}")], 200),
        (vec!["if-modified-since: yesterday".into()], 200),
        // The tag is the better condition.
        (vec!["if-none-match: \"other\"".into(), format!("if-modified-since: {modified}")], 200),
        (vec![format!("if-match: {tag}")], 200),
        (vec!["if-match: *".into()], 200),
        (vec![format!("if-match: W/{tag}")], 412),
        (vec!["if-match: \"other\"".into()], 412),
        (vec![format!("if-unmodified-since: {modified}")], 200),
        (vec![format!("if-unmodified-since: {long_ago}")], 412),
        (vec![format!("if-match: {tag}"), format!("if-none-match: {tag}")], 304),
    ] {
        let lines: Vec<&str> = fields.iter().map(String::as_str).collect();
        let response = bed.get("/file", &lines);
        assert_eq!(response.status(), status, "{fields:?}: {}", response.head);
        assert_eq!(response.body.is_empty(), status != 200, "{fields:?}");
        if status == 304 {
            assert_eq!((response.field("etag"), response.field("content-length")), (&*tag, ""));
        }
    }
}

#[test]
fn a_compressed_file_is_sent_to_clients_that_accept_it_and_never_instead_of_a_directory() {
    let bed = Bed::start(&[]);
    for (name, content) in
        [("a.txt", "plain"), ("a.txt.gz", "gzip"), ("a.txt.br", "br"), ("a.txt.zst", "zstd")]
    {
        bed.write(name, content);
    }
    for (accepts, encoding, body) in [
        ("gzip, deflate, br, zstd", "zstd", "zstd"),
        ("gzip, br;q=0.9", "gzip", "gzip"),
        ("br", "br", "br"),
        ("identity", "", "plain"),
        ("gzip;q=0", "", "plain"),
    ] {
        let response = bed.get("/a.txt", &[&format!("accept-encoding: {accepts}")]);
        assert_eq!((response.field("content-encoding"), &*response.body), (encoding, body.as_bytes()));
        assert_eq!(
            (response.field("content-type"), response.field("vary")),
            ("text/plain", "accept-encoding")
        );
    }
    let itself = bed.get("/a.txt.gz", &["accept-encoding: gzip"]);
    assert_eq!((itself.field("content-encoding"), itself.field("content-type")), ("", "application/gzip"));
    std::fs::create_dir(bed.path("docs")).expect("writable");
    bed.write("docs.gz", "an archive");
    let directory = bed.get("/docs?a=b", &["accept-encoding: gzip"]);
    assert_eq!((directory.status(), directory.field("location")), (307, "/docs/?a=b"));
    // Two slashes would lead to a host of that name.
    assert_eq!(bed.get("//docs", &[]).field("location"), "/docs/");
}

#[test]
fn a_name_may_have_any_bytes() {
    let bed = Bed::start(&["--directory-listing"]);
    let name = OsStr::from_bytes(b"caf\xe9 100%.txt");
    std::fs::write(bed.path("").join(name), "content").expect("writable");
    assert_eq!(bed.get("/caf%e9%20100%25.txt", &[]).body, b"content");
    let listing = bed.get("/", &[]);
    assert!(String::from_utf8_lossy(&listing.body).contains("href=\"caf%E9%20100%25.txt\""));
}
