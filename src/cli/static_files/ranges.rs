//! The parts of a file that a client asks for (RFC 9110, section 14).

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;

use hyper::body::Bytes;
use hyper::header::HeaderValue;

use crate::open_files::Segment;

/// How many parts a response has at most. A client that asks for more gets the whole file.
const MOST: usize = 64;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ranges {
    Whole,
    One(Range<u64>),
    Several(Vec<Range<u64>>),
    Unsatisfiable,
}

impl Ranges {
    /// Reads a `Range` field for a file of this size. Parts that overlap, or many of them, are answered with the whole file:
    /// they would let a small request cause a large response.
    pub(super) fn of(field: &[u8], size: u64) -> Ranges {
        let Some((unit, list)) = str::from_utf8(field).ok().and_then(|field| field.split_once('=')) else {
            return Ranges::Whole;
        };
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return Ranges::Whole;
        }
        let mut parts = vec![];
        for one in list.split(',').map(str::trim).filter(|one| !one.is_empty()) {
            match part(one, size) {
                None => return Ranges::Unsatisfiable,
                Some(part) if part.is_empty() => {}
                Some(_) if parts.len() == MOST => return Ranges::Whole,
                Some(part) => parts.push(part),
            }
        }
        match &parts[..] {
            [] => Ranges::Unsatisfiable,
            [part] => Ranges::One(part.clone()),
            _ if overlap(&parts) => Ranges::Whole,
            _ => Ranges::Several(parts),
        }
    }
}

/// Returns the part of a file of this size, which is empty if it lies behind the end; `None` for what is no range.
fn part(spec: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = spec.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    match (first, last) {
        (None, None) => None,
        (None, Some(length)) => Some(size.saturating_sub(length)..size),
        (Some(first), None) => Some(first.min(size)..size),
        (Some(first), Some(last)) => {
            (first <= last).then(|| first.min(size)..last.saturating_add(1).min(size))
        }
    }
}

/// Returns a number, `Some(None)` if there is none, and the largest for one that is larger.
fn number(digits: &str) -> Option<Option<u64>> {
    let digits = digits.trim();
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some((!digits.is_empty()).then(|| digits.parse().unwrap_or(u64::MAX)))
}

fn overlap(parts: &[Range<u64>]) -> bool {
    let mut sorted = parts.to_vec();
    sorted.sort_by_key(|part| part.start);
    sorted.windows(2).any(|two| two[0].end > two[1].start)
}

/// Returns the value of `Content-Range` for a part.
pub(super) fn content_range(part: &Range<u64>, size: u64) -> HeaderValue {
    value(range_text(part, size))
}

/// Returns the value of `Content-Range` if no part can be sent.
pub(super) fn unsatisfied(size: u64) -> HeaderValue {
    value(format!("bytes */{size}"))
}

fn range_text(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end - 1)
}

fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Returns the media type and the body of a response with several parts (RFC 9110, section 14.6).
pub(super) fn multipart(parts: &[Range<u64>], size: u64, kind: &HeaderValue) -> (HeaderValue, Vec<Segment>) {
    // Each `RandomState` is another one.
    let boundary = format!("{:016x}", RandomState::new().build_hasher().finish());
    let kind = kind.to_str().unwrap_or_default();
    let mut segments = vec![];
    for part in parts {
        let range = range_text(part, size);
        let head = format!("\r\n--{boundary}\r\ncontent-type: {kind}\r\ncontent-range: {range}\r\n\r\n");
        segments.extend([Segment::Text(Bytes::from(head)), Segment::File(part.clone())]);
    }
    segments.push(Segment::Text(Bytes::from(format!("\r\n--{boundary}--\r\n"))));
    (value(format!("multipart/byteranges; boundary={boundary}")), segments)
}

#[cfg(test)]
mod tests {
    use super::Ranges::{One, Several, Unsatisfiable, Whole};
    use super::*;

    #[test]
    fn a_range_is_a_part_of_the_file_or_several_or_the_whole_of_it() {
        for (field, expected) in [
            ("bytes=0-0", One(0..1)),
            ("bytes=8-", One(8..10)),
            ("bytes=-3", One(7..10)),
            ("bytes=-30", One(0..10)),
            ("bytes=5-99999999999999999999999", One(5..10)),
            ("BYTES = 1 - 2", One(1..3)),
            ("bytes=0-1,,20-30,", One(0..2)),
            ("bytes=0-1, 4-5", Several(vec![0..2, 4..6])),
            ("bytes=4-5,0-1", Several(vec![4..6, 0..2])),
            ("bytes=0-1,2-3", Several(vec![0..2, 2..4])),
            ("bytes=0-1,1-2", Whole),
            ("bytes=0-,0-", Whole),
            ("items=0-1", Whole),
            ("bytes", Whole),
            ("bytes=10-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=", Unsatisfiable),
            ("bytes=2-1", Unsatisfiable),
            ("bytes=a-b", Unsatisfiable),
            ("bytes=--1", Unsatisfiable),
            ("bytes=+1-2", Unsatisfiable),
            ("bytes=0-1,a", Unsatisfiable),
        ] {
            assert_eq!(Ranges::of(field.as_bytes(), 10), expected, "{field}");
        }
        let many: Vec<String> = (0..=MOST).map(|n| format!("{}-{}", 2 * n, 2 * n)).collect();
        assert_eq!(Ranges::of(format!("bytes={}", many.join(",")).as_bytes(), 1000), Whole);
        assert_eq!(Ranges::of(b"bytes=0-", 0), Unsatisfiable);
    }
}
