//! Requests with an ambiguous end, and malformed heads.

use std::io::Write;

use super::files::{CALM, Site, expect, with_another_behind};
use super::{connect, statuses};

#[test]
fn no_request_can_be_smuggled_in_the_body_of_another() {
    let site = Site::make();
    let mut siege = site.siege();
    siege.attack_while_handing_over(|addr| {
        // If two ways to find the end of the body disagree, one of them finds this request.
        let hidden = "GET /sub HTTP/1.1\r\nhost: t\r\n\r\n";
        let (short, long) = ("content-length: 5\r\n", format!("content-length: {}\r\n", 5 + hidden.len()));
        for (fields, body, status) in [
            (format!("{short}{long}"), "hello", 400),
            (format!("{long}{short}"), "hello", 400),
            ("content-length: 5, 6\r\n".into(), "hello", 400),
            ("content-length: -5\r\n".into(), "hello", 400),
            ("content-length: +5\r\n".into(), "hello", 400),
            ("content-length: 99999999999999999999\r\n".into(), "hello", 400),
            ("transfer-encoding: xchunked\r\n".into(), "hello", 400),
            ("transfer-encoding: chunked, identity\r\n".into(), "0\r\n\r\n", 400),
            ("transfer-encoding : chunked\r\n".into(), "0\r\n\r\n", 400),
            // The length is ignored, and the bytes behind the body are not trusted (RFC 9112, section 6.3).
            (format!("{long}transfer-encoding: chunked\r\n"), "0\r\n\r\n", 200),
            (format!("transfer-encoding: chunked\r\n{short}"), "0\r\n\r\n", 200),
            // The answer needs no request body, so the file is sent before the body is found to be wrong.
            ("transfer-encoding: chunked\r\n".into(), "ZZ\r\n", 200),
            ("transfer-encoding: chunked\r\n".into(), "ffffffffffffffffff\r\n", 200),
        ] {
            let request = format!("GET /ten HTTP/1.1\r\nhost: t\r\n{fields}\r\n{body}{hidden}");
            let answer = with_another_behind(addr, request.as_bytes());
            assert_eq!(statuses(&answer), [status], "{request:?} was answered {answer:?}");
        }
        expect(addr, b"GET /ten HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400);
        expect(addr, b"GET /ten HTTP/1.1\r\nhost: t\r\n folded: x\r\n\r\n", 400);
        expect(addr, b"GET /ten HTTP/1.1\rhost: t\r\r", 400);
        expect(addr, b"GET /ten HTTP/9.9\r\nhost: t\r\n\r\n", 400);
        expect(addr, b"GET /ten HTTP/1.1\r\nhost: t\r\nx: a\0b\r\n\r\n", 400);
        expect(addr, b"GET /ten HTTP/1.1\r\nhost: t\r\nx: a\x1bb\r\n\r\n", 400);
        // A client leaves in the middle of a request.
        let mut gone = connect(addr);
        gone.write_all(b"GET /ten HTTP/1.1\r\nhost: t\r\ncontent-length: 50\r\n\r\nhalf")
            .expect("the server reads");
    });
    siege.end(CALM);
}
