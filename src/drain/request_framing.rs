//! Finds the beginning and end of requests in the bytes of an HTTP/1 client (RFC 9112). hyper does not expose how much of its
//! input belongs to a later request, or whether a body is complete. The connection needs to know both before it decides that
//! a client sends nothing more. Nothing is validated here: hyper closes a connection that sends malformed requests.

use memchr::memchr;

/// The longest line that matters: the name of a header, a colon and a number.
const LINE: usize = 128;

#[derive(Debug, Default)]
pub(super) struct RequestFraming {
    part: Part,
    /// Heads that have arrived completely.
    heads: u64,
    /// The beginning of a line that arrives in several reads.
    line: Vec<u8>,
    body: BodyLength,
}

/// The part of a request to which the next byte belongs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// No request, or an empty line before one.
    #[default]
    Between,
    Head,
    /// A body with this many bytes left.
    Body(u64),
    /// A chunk with this many bytes left, including the line end behind it.
    Chunk(u64),
    ChunkSize,
    Trailers,
    /// After a length that cannot be parsed; hyper refuses the request.
    Unknown,
}

/// The length of the body, according to the head so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum BodyLength {
    #[default]
    Zero,
    Bytes(u64),
    Chunked,
    Unknown,
}

impl RequestFraming {
    /// Reads bytes. Returns how many bytes at their end are empty lines between two requests, which a server ignores (RFC
    /// 9112, section 2.2).
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> usize {
        while !bytes.is_empty() {
            match self.part {
                Part::Between => {
                    let empty = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                    bytes = &bytes[empty..];
                    if bytes.is_empty() {
                        return empty;
                    }
                    self.part = Part::Head;
                    self.body = BodyLength::Zero;
                }
                Part::Body(left) | Part::Chunk(left) => {
                    let skipped = left.min(bytes.len() as u64);
                    bytes = &bytes[skipped as usize..];
                    self.part = match (self.part, left - skipped) {
                        (Part::Body(_), 0) => Part::Between,
                        (Part::Body(_), left) => Part::Body(left),
                        (_, 0) => Part::ChunkSize,
                        (_, left) => Part::Chunk(left),
                    };
                }
                Part::Head => bytes = self.read_head(bytes),
                Part::ChunkSize | Part::Trailers => bytes = self.read_line(bytes),
                Part::Unknown => break,
            }
        }
        0
    }

    /// Reads lines of a head and returns the rest. This is the fast path of every request: most lines are skipped without a copy.
    fn read_head<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while self.part == Part::Head && self.line.is_empty() {
            let Some(end) = memchr(b'\n', bytes) else { break };
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            if matches!(line, [] | [b'\r' | b'c' | b'C' | b't' | b'T', ..]) {
                self.line(line);
            }
            bytes = rest;
        }
        if self.part == Part::Head { self.read_line(bytes) } else { bytes }
    }

    /// Reads up to the end of a line and returns the rest.
    fn read_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let end = memchr(b'\n', bytes);
        let line = &bytes[..end.unwrap_or(bytes.len())];
        let room = LINE - self.line.len();
        self.line.extend_from_slice(&line[..line.len().min(room)]);
        let Some(end) = end else { return &[] };
        let line = std::mem::take(&mut self.line);
        self.line(&line);
        &bytes[end + 1..]
    }

    /// Processes a line, which is passed without its `\n`.
    fn line(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match self.part {
            Part::Head if line.is_empty() => {
                self.heads += 1;
                self.part = match self.body {
                    BodyLength::Zero | BodyLength::Bytes(0) => Part::Between,
                    BodyLength::Bytes(length) => Part::Body(length),
                    BodyLength::Chunked => Part::ChunkSize,
                    BodyLength::Unknown => Part::Unknown,
                };
            }
            Part::Head => self.header(line),
            Part::ChunkSize => {
                self.part = match chunk_size(line) {
                    Some(0) => Part::Trailers,
                    // Two more bytes for the line end behind the chunk.
                    Some(size) => size.checked_add(2).map_or(Part::Unknown, Part::Chunk),
                    None => Part::Unknown,
                };
            }
            Part::Trailers if line.is_empty() => self.part = Part::Between,
            _ => {}
        }
    }

    fn header(&mut self, line: &[u8]) {
        let Some(colon) = memchr(b':', line) else { return };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            // hyper refuses any other last encoding, and the encoding takes precedence over a length.
            self.body = BodyLength::Chunked;
        } else if name.eq_ignore_ascii_case(b"content-length") && self.body != BodyLength::Chunked {
            self.body = number(value, 10).map_or(BodyLength::Unknown, BodyLength::Bytes);
        }
    }

    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    /// Returns whether a head has begun and is not complete.
    pub(super) fn is_within_head(&self) -> bool {
        self.part == Part::Head
    }

    /// Returns whether a body has begun and is not known to be complete.
    pub(super) fn is_within_body(&self) -> bool {
        !matches!(self.part, Part::Between | Part::Head)
    }
}

/// Parses the size of a chunk, and ignores an extension behind it.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    number(&line[..end], 16)
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    // `from_str_radix` accepts a sign, but HTTP does not.
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u64::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After the bytes: complete heads, within a head, within a body, and empty lines at the end.
    type Expected = (u64, bool, bool, usize);

    #[test]
    fn requests_end_where_they_should_no_matter_how_the_bytes_arrive() {
        let table: [(&str, Expected); 24] = [
            ("", (0, false, false, 0)),
            ("\r\n", (0, false, false, 2)),
            ("G", (0, true, false, 0)),
            ("GET / HTTP/1.1\r\n", (0, true, false, 0)),
            ("GET / HTTP/1.1\r\n\r", (0, true, false, 0)),
            ("GET / HTTP/1.1\r\n\r\n", (1, false, false, 0)),
            ("GET / HTTP/1.1\n\n", (1, false, false, 0)),
            ("\r\n\n\r\nGET / HTTP/1.1\r\na: b\r\n\r\n", (1, false, false, 0)),
            ("GET / HTTP/1.1\r\n\r\n\r\n", (1, false, false, 2)),
            ("GET / HTTP/1.1\r\n\r\n\r", (1, false, false, 1)),
            ("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n", (2, false, false, 0)),
            ("GET / HTTP/1.1\r\n\r\nGET / HT", (1, true, false, 0)),
            ("POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\n", (1, false, true, 0)),
            ("POST / HTTP/1.1\r\nContent-Length:4\r\n\r\nab", (1, false, true, 0)),
            ("POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\na\r\n\n", (1, false, false, 0)),
            ("POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcd\r\n", (1, false, false, 2)),
            ("POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcdGET / HTTP/1.1\r\n\r\n", (2, false, false, 0)),
            ("POST / HTTP/1.1\r\ncontent-length: +4\r\n\r\nabcd", (1, false, true, 0)),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4;a=b\r\nGET \r\n", (1, false, true, 0)),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n", (1, false, true, 0)),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0\r\n\r\n\r\n\r\nb\r\n0\r\n\r\n",
                (1, false, false, 0),
            ),
            (
                "POST / HTTP/1.1\r\ncontent-length: 9\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\nx: y\r\n\r\nG",
                (1, true, false, 0),
            ),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n\r\n", (1, false, false, 2)),
            (
                "GET / HTTP/1.1\r\ncontent-type: a\r\nte: b\r\ncookie: content-length: 7\r\n\r\n",
                (1, false, false, 0),
            ),
        ];
        for (bytes, expected) in table {
            for size in 1..=bytes.len().max(1) {
                let mut framing = RequestFraming::default();
                let empty =
                    bytes.as_bytes().chunks(size).map(|chunk| framing.read(chunk)).fold(0, |sum, n| {
                        // A read of nothing but empty lines continues those of the read before.
                        if n == size { sum + n } else { n }
                    });
                let actual = (framing.heads(), framing.is_within_head(), framing.is_within_body());
                assert_eq!(actual, (expected.0, expected.1, expected.2), "{bytes:?}, {size} bytes at a time");
                if size == bytes.len() {
                    assert_eq!(empty, expected.3, "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let mut framing = RequestFraming::default();
        for _ in 0..10_000 {
            framing.read(&[b'a'; 100]);
        }
        assert!(framing.line.capacity() <= 2 * LINE && framing.is_within_head());
    }
}
