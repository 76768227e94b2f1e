//! Response settings in the config: headers, media types, and compression that breaks nothing.

use std::net::SocketAddr;
use std::process::Command;

use support::harness::{Client, get};

use super::{Bed, has_header};

/// The response as curl receives it: the head in lower case, and the body. `.ci/run` installs curl.
fn curl(addr: SocketAddr, target: &str, flags: &[&str]) -> (String, Vec<u8>) {
    let url = format!("http://{addr}{target}");
    let output = Command::new("curl").args(["-si", "--max-time", "20"]).args(flags).arg(url).output();
    let output = output.expect("curl is installed").stdout;
    let end = output.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
    (String::from_utf8_lossy(&output[..end]).to_lowercase(), output[end + 4..].to_vec())
}

fn field(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).map(str::to_owned)
}

#[test]
fn a_header_of_the_file_is_on_every_response_that_does_not_have_it_already() {
    let bed = Bed::make();
    let headers = "[headers]\nX-Frame-Options = 'DENY'\nCache-Control = 'max-age=60'\n";
    let server = bed.start(&format!("probes = true\n{headers}"), &[]);
    let addr = server.address();
    for target in ["/", "/missing", "/healthz"] {
        assert!(has_header(addr, target, "x-frame-options: DENY"), "{target}");
    }
    assert!(has_header(addr, "/", "cache-control: max-age=60"));
    // A probe answer is never cacheable, whatever the config sets for files.
    assert!(has_header(addr, "/healthz", "cache-control: no-store"));
    assert!(!has_header(addr, "/healthz", "cache-control: max-age=60"));
}

#[test]
fn a_media_type_of_the_config_applies_only_to_files_with_the_extension() {
    let bed = Bed::make();
    bed.file("root/a.MD", "# a");
    bed.file("root/b.md.gz", "no gzip");
    bed.file("root/c.txt", "c");
    let server = bed.start("[mime]\nmd = 'text/x-ours'\nhtml = 'text/x-page'\n", &[]);
    let addr = server.address();
    assert!(has_header(addr, "/a.MD", "content-type: text/x-ours"));
    assert!(has_header(addr, "/a%2eMD?x.y", "content-type: text/x-ours"));
    assert!(has_header(addr, "/", "content-type: text/x-page"));
    assert!(has_header(addr, "/c.txt", "content-type: text/plain"));
    assert!(!get(addr, "/b.md.gz").contains("text/x-ours"));
    let missing = get(addr, "/missing.md");
    assert!(missing.starts_with("HTTP/1.1 404") && !missing.contains("text/x-ours"), "{missing}");
}

#[test]
fn compression_keeps_the_content_and_is_used_only_where_the_client_accepts_it() {
    let bed = Bed::make();
    let text: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    bed.file("root/text.txt", &text);
    bed.file("root/picture.png", &text);
    bed.file("root/small.txt", "small");
    let server = bed.start("compression = true\nprobes = true\n", &[]);
    let addr = server.address();
    for (accepts, sent) in
        [("gzip", "gzip"), ("br", "br"), ("gzip, br;q=0.5", "gzip"), ("gzip;q=0, br", "br")]
    {
        let accepts = format!("accept-encoding: {accepts}");
        let (head, body) = curl(addr, "/text.txt", &["--raw", "-H", &accepts]);
        assert_eq!(field(&head, "content-encoding").as_deref(), Some(sent), "{head}");
        assert!(body.len() * 4 < text.len(), "{} bytes", body.len());
        assert!(field(&head, "vary").is_some_and(|vary| vary.contains("accept-encoding")), "{head}");
        assert_eq!(curl(addr, "/text.txt", &["--compressed", "-H", &accepts]).1, text.as_bytes());
    }
    for (target, flags) in [
        ("/text.txt", &[][..]),
        ("/text.txt", &["-H", "accept-encoding: identity"]),
        ("/text.txt", &["-H", "accept-encoding: zstd"]),
        ("/picture.png", &["-H", "accept-encoding: gzip"]),
        ("/small.txt", &["-H", "accept-encoding: gzip"]),
        ("/healthz", &["-H", "accept-encoding: gzip"]),
    ] {
        let (head, body) = curl(addr, target, flags);
        assert!(field(&head, "content-encoding").is_none(), "{target}: {head}");
        assert_eq!(field(&head, "content-length"), Some(body.len().to_string()), "{head}");
    }
}

#[test]
fn compression_keeps_ranges_entity_tags_and_precompressed_files_correct() {
    let bed = Bed::make();
    let text = "0123456789".repeat(1000);
    bed.file("root/text.txt", &text);
    bed.file("root/both.txt", &text);
    bed.file("root/both.txt.gz", "as it was compressed");
    let server = bed.start("compression = true\n", &[]);
    let addr = server.address();
    let gzip = ["-H", "accept-encoding: gzip"];
    let (part, body) = curl(addr, "/text.txt", &[&gzip[..], &["-r", "10-14"]].concat());
    assert!(part.starts_with("http/1.1 206") && field(&part, "content-encoding").is_none(), "{part}");
    assert_eq!(body, b"01234");
    // The precompressed file has a strong entity tag, because its bytes never vary.
    let (head, body) = curl(addr, "/both.txt", &gzip);
    assert_eq!(
        (field(&head, "content-encoding").as_deref(), &body[..]),
        (Some("gzip"), &b"as it was compressed"[..])
    );
    assert!(field(&head, "etag").is_some_and(|tag| tag.starts_with('"')), "{head}");
    // The bytes of a response that is compressed on the fly may vary, so its tag is weak; the server recognises it later.
    let strong = field(&curl(addr, "/text.txt", &[]).0, "etag").expect("a tag");
    let (head, _) = curl(addr, "/text.txt", &gzip);
    let weak = field(&head, "etag").expect("a tag");
    assert_eq!(weak, format!("w/{strong}"));
    let weak = format!("if-none-match: W/{strong}");
    for accepts in [&[][..], &gzip] {
        let (head, body) = curl(addr, "/text.txt", &[accepts, &["-H", &weak]].concat());
        assert!(head.starts_with("http/1.1 304") && body.is_empty(), "{head}");
        assert!(field(&head, "content-encoding").is_none(), "{head}");
    }
    // HEAD has the headers of GET, and no body.
    let mut client = Client::connect(addr);
    client.write("HEAD /text.txt HTTP/1.1\r\nhost: t\r\naccept-encoding: gzip\r\nconnection: close\r\n\r\n");
    let head = client.rest();
    assert!(head.contains("content-encoding: gzip\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}
