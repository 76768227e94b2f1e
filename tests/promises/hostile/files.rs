//! Bad requests to `handover ROOT`: each gets one plain answer, nothing outside of ROOT is served unless a link in ROOT
//! leads there, and the bytes behind a bad request are answered as a separate request or not at all.

use std::net::SocketAddr;
use std::path::PathBuf;

use support::harness::QUICK;
use support::process::command;
use tempfile::TempDir;

use super::{Siege, exchange, statuses};
use crate::HANDOVER;

pub(super) const CALM: u64 = 64;
/// The text that no answer may contain, unless a link in ROOT leads to it.
const SECRET: &str = "the secret beside ROOT";

/// A ROOT, and a secret beside it.
pub(super) struct Site {
    dir: TempDir,
}

impl Site {
    pub(super) fn make() -> Site {
        let dir = tempfile::tempdir().expect("a directory");
        let site = Site { dir };
        std::fs::create_dir_all(site.path("root/sub")).expect("writable");
        std::fs::create_dir_all(site.path("outside")).expect("writable");
        std::fs::write(site.path("outside/secret"), SECRET).expect("writable");
        std::fs::write(site.path("root/ten"), "0123456789").expect("writable");
        // The load generator expects an answer of this form from `/`.
        std::fs::write(site.path("root/index.html"), "generation=0 ROOT\n").expect("writable");
        site
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn siege(&self) -> Siege {
        let mut started = command(HANDOVER);
        started.args(QUICK).arg(self.path("root"));
        Siege::of(started)
    }
}

/// Sends `bad` and an honest last request in one write, and returns the answers.
pub(super) fn with_another_behind(addr: SocketAddr, bad: &[u8]) -> String {
    exchange(addr, &[bad, b"GET / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"].concat())
}

/// Asserts that the bad request gets `status`. If its end is clear, the request behind it is answered too; otherwise the
/// connection ends there.
pub(super) fn expect(addr: SocketAddr, bad: &[u8], status: u16) {
    let answer = with_another_behind(addr, bad);
    let expected: &[u16] = match status {
        400 | 414 | 431 => &[status],
        _ => &[status, 200],
    };
    let what = String::from_utf8_lossy(&bad[..bad.len().min(200)]).into_owned();
    assert_eq!(statuses(&answer), expected, "{what:?} was answered {answer:?}");
    assert!(!answer.contains(SECRET), "{what:?} was answered {answer:?}");
}

fn get(target: &[u8]) -> Vec<u8> {
    [b"GET ", target, b" HTTP/1.1\r\nhost: t\r\n\r\n"].concat()
}

#[test]
fn no_target_leads_out_of_root_and_each_has_its_status() {
    let site = Site::make();
    let mut siege = site.siege();
    siege.attack_while_handing_over(|addr| {
        for target in [
            &b"/../outside/secret"[..],
            b"/sub/../../outside/secret",
            b"/sub/../ten",
            b"/%2e%2e/outside/secret",
            b"/.%2e/outside/secret",
            b"/%252e%252e/outside/secret",
            b"/..%2foutside%2fsecret",
            b"/%2e%2e%2foutside%2fsecret",
            b"/index.html/../../outside/secret",
            b"//outside/secret",
            b"//etc/passwd",
            b"/%2fetc/passwd",
            b"/%2f%2fetc/passwd",
            b"/..\\outside\\secret",
            b"/%5c..%5coutside",
            b"/sub%2f..%2ften",
            b"/ten%00",
            b"/%00",
            b"/ten%00.html",
            b"/ten/",
            b"/sub/",
            b"/%ff",
            b"/%c0%ae%c0%ae/outside/secret",
            b"/%zz",
            b"/%",
            b"/%0d%0aset-cookie:%20a=b",
            b"//evil.example/%2e%2e",
            b"http://other/../outside/secret",
            b"*",
        ] {
            expect(addr, &get(target), 404);
        }
        // Names that no file can have.
        for name in [b"a".repeat(10 << 10), b"%61".repeat(10 << 10), b"a/".repeat(5 << 10)] {
            expect(addr, &get(&[b"/", &name[..]].concat()), 404);
        }
        for target in
            [&b"/ten"[..], b"/./ten", b"/ten?../../outside/secret", b"http://other/ten", b"http://other"]
        {
            expect(addr, &get(target), 200);
        }
        expect(addr, &get(b"/sub"), 307);
        for target in
            [&b""[..], b"../outside/secret", b"/\0", b"/\x1b[31m", b"/a b", b"/\xff", b"file:///etc/passwd"]
        {
            expect(addr, &get(target), 400);
        }
        // Only CONNECT may have such a target, but the end of the request is clear.
        assert_eq!(statuses(&with_another_behind(addr, &get(b"ten"))), [400, 200]);
        expect(addr, &get(&[b"/", &b"a".repeat(70_000)[..]].concat()), 414);
    });
    siege.end(CALM);
}

#[test]
fn a_link_that_leads_out_of_root_is_followed_because_it_was_made_on_purpose() {
    let site = Site::make();
    std::os::unix::fs::symlink("../outside", site.path("root/folder")).expect("writable");
    std::os::unix::fs::symlink("../outside/secret", site.path("root/file")).expect("writable");
    std::os::unix::fs::symlink("loop", site.path("root/loop")).expect("writable");
    std::os::unix::fs::symlink("/no/such/place", site.path("root/dangling")).expect("writable");
    let mut siege = site.siege();
    siege.attack_while_handing_over(|addr| {
        for target in [&b"/folder/secret"[..], b"/file"] {
            let answer = with_another_behind(addr, &get(target));
            assert!(statuses(&answer) == [200, 200] && answer.contains(SECRET), "{answer}");
        }
        // The parent of the link's target cannot be reached through the link.
        expect(addr, &get(b"/folder/../outside/secret"), 404);
        expect(addr, &get(b"/dangling"), 404);
    });
    siege.end(CALM);
}

#[test]
fn fifos_devices_and_sockets_are_not_opened_and_delay_no_client() {
    let site = Site::make();
    // Opening a FIFO waits for a writer, and would occupy one of the server's 512 threads for as long.
    let made = std::process::Command::new("mkfifo").arg(site.path("root/fifo")).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo is part of coreutils");
    std::os::unix::fs::symlink("/dev/zero", site.path("root/device")).expect("writable");
    let _socket = std::os::unix::net::UnixListener::bind(site.path("root/socket")).expect("a short path");
    let mut siege = site.siege();
    siege.attack_while_handing_over(|addr| {
        for target in [&b"/fifo"[..], b"/device", b"/socket"] {
            expect(addr, &get(target), 404);
        }
    });
    assert!(siege.server.first_exit().success());
    siege.end(CALM);
}

#[test]
fn a_range_gives_a_part_of_the_file_or_the_whole_once_or_416() {
    let site = Site::make();
    let mut siege = site.siege();
    siege.attack_while_handing_over(|addr| {
        let many = |n| format!("bytes={}", vec!["0-"; n].join(","));
        for (range, status) in [
            ("bytes=0-0", 206),
            ("bytes=-5", 206),
            ("bytes=0-18446744073709551615", 206),
            ("bytes=0-99999999999999999999999", 206),
            ("bytes=5-2", 416),
            ("bytes=100-", 416),
            ("bytes=-0", 416),
            ("bytes=--1", 416),
            ("bytes=1-2-3", 416),
            ("bytes=a-b", 416),
            ("bytes=", 416),
            ("bytes=0-1,1-2", 200),
            (&many(3), 200),
            // CVE-2011-3192: each part would be the whole file.
            (&many(1000), 200),
            (&many(25_000), 200),
        ] {
            let request = format!("GET /ten HTTP/1.1\r\nhost: t\r\nrange: {range}\r\n\r\n");
            expect(addr, request.as_bytes(), status);
            let answer = with_another_behind(addr, request.as_bytes());
            assert!(answer.matches("0123456789").count() <= 1, "{answer}");
        }
    });
    siege.end(CALM);
}

#[test]
fn a_method_other_than_get_and_head_is_answered_405_and_changes_nothing() {
    let site = Site::make();
    let mut siege = site.siege();
    siege.attack_while_handing_over(|addr| {
        for method in ["OPTIONS", "TRACE", "POST", "PUT", "DELETE", "PATCH", "CONNECT", "BREW", "get"] {
            let request = format!("{method} /ten HTTP/1.1\r\nhost: t\r\nx-private: mirrored\r\n\r\n");
            expect(addr, request.as_bytes(), 405);
            assert!(!with_another_behind(addr, request.as_bytes()).contains("mirrored"));
        }
        expect(addr, b"OPTIONS * HTTP/1.1\r\nhost: t\r\n\r\n", 405);
        // The server opens no tunnel: the bytes behind are the next request.
        expect(addr, b"CONNECT other:80 HTTP/1.1\r\nhost: t\r\n\r\n", 405);
        expect(addr, b"G(T /ten HTTP/1.1\r\nhost: t\r\n\r\n", 400);
        expect(addr, b"HEAD /ten HTTP/1.1\r\nhost: t\r\n\r\n", 200);
        let head = exchange(addr, b"HEAD /ten HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n");
        assert!(head.contains("content-length: 10\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    });
    assert_eq!(std::fs::read(site.path("root/ten")).expect("the file exists"), b"0123456789");
    siege.end(CALM);
}
