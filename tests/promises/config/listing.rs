//! Directory listings: only when enabled, nothing hidden, nothing outside of ROOT, and every name is escaped.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use support::harness::get;

use super::Bed;

const ON: &str = "directory-listing = true\n";

fn bed() -> Bed {
    let bed = Bed::make();
    for dir in ["root/sub/deeper", "root/sub/.git", "outside"] {
        std::fs::create_dir_all(bed.path(dir)).expect("writable");
    }
    for file in
        ["root/sub/b.txt", "root/sub/a b", "root/sub/.hidden", "root/sub/.git/config", "outside/secret"]
    {
        bed.file(file, "");
    }
    bed
}

/// The links of a page, in order.
fn links(page: &str) -> Vec<String> {
    let link = |line: &str| Some(line.split_once("<li><a href=\"")?.1.split('"').next()?.to_owned());
    page.lines().filter_map(link).collect()
}

#[test]
fn a_directory_without_index_is_listed_only_when_that_is_switched_on() {
    let bed = bed();
    let server = bed.start("", &[]);
    assert!(get(server.address(), "/sub/").starts_with("HTTP/1.1 404"));
    drop(server);
    let server = bed.start(ON, &[]);
    let addr = server.address();
    let page = get(addr, "/sub/");
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("color-scheme: light dark"), "{page}");
    assert_eq!(links(&page), ["../", "a%20b", "b.txt", "deeper/"]);
    // ROOT serves its index as before. Without the index it is listed, without a link to the directory above it.
    assert!(get(addr, "/").ends_with("generation=0 ROOT\n"));
    std::fs::remove_file(bed.path("root/index.html")).expect("writable");
    assert_eq!(links(&get(addr, "/")), ["sub/"]);
    assert_eq!(links(&get(addr, "/sub/deeper/")), ["../"]);
    assert!(get(addr, "/sub").contains("location: /sub/\r\n"));
    for target in ["/sub/b.txt/", "/missing/", "/sub/missing"] {
        assert!(get(addr, target).starts_with("HTTP/1.1 404"), "{target}");
    }
}

#[test]
fn nothing_hidden_and_nothing_outside_of_root_is_listed() {
    let bed = bed();
    symlink("../outside", bed.path("root/folder")).expect("writable");
    symlink("sub", bed.path("root/within")).expect("writable");
    symlink("sub/.git", bed.path("root/unhidden")).expect("writable");
    symlink("/no/such/place", bed.path("root/sub/dangling")).expect("writable");
    let server = bed.start(ON, &[]);
    let addr = server.address();
    for target in [
        "/folder/",
        "/unhidden/",
        "/sub/.git/",
        "/sub/%2egit/",
        "/../outside/",
        "/%2e%2e/outside/",
        "/sub/../../outside/",
        "/..%2foutside/",
        "//outside/",
        "/%2ftmp/",
        "//tmp/",
        "/sub%00/",
        "/%ff/",
    ] {
        let answer = get(addr, target);
        assert!(answer.starts_with("HTTP/1.1 404") && !answer.contains("secret"), "{target}: {answer}");
    }
    assert_eq!(links(&get(addr, "/within/")), ["../", "a%20b", "b.txt", "deeper/"]);
}

#[test]
fn every_name_is_escaped_in_the_page_and_in_its_link() {
    let bed = bed();
    let names: [&[u8]; 6] = [
        b"<script>alert(1)",
        b"\"' onclick=x",
        b"javascript:alert(1)",
        b"%2e%2e",
        b"line\nbreak\x1b[31m",
        b"latin-\xe4",
    ];
    for name in names {
        std::fs::write(bed.path("root/sub/deeper").join(OsStr::from_bytes(name)), "found").expect("writable");
    }
    let server = bed.start(ON, &[]);
    let addr = server.address();
    let page = get(addr, "/sub/deeper/");
    assert!(
        !page.contains("<script") && !page.contains('\x1b') && page.contains("&lt;script&gt;alert(1)"),
        "{page}"
    );
    let links = links(&page);
    assert_eq!(links.len(), 1 + names.len(), "{page}");
    for link in &links[1..] {
        let plain = link.bytes().all(|b| b.is_ascii_alphanumeric() || b"%-_.~".contains(&b));
        assert!(plain, "{link}");
        // A name that is not UTF-8 is listed but cannot be requested: tower-http serves no such name.
        let found = get(addr, &format!("/sub/deeper/{link}")).ends_with("found");
        assert!(found || link.contains("%E4"), "{link}");
    }
}
