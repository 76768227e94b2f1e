//! Finds HTTP/2 frames (RFC 9113, section 4.1) in one direction of a connection.

use std::ops::Range;

/// The connection preface, which comes before the client's first frame (section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
/// The flag of a PING.
pub(super) const ACK: u8 = 1;
/// The flag of DATA and HEADERS.
pub(super) const END_STREAM: u8 = 1;

const HEADER: usize = 9;
const PING_LENGTH: usize = 8;

/// The header of a frame, and the range of the whole frame in the bytes that were read, if all of it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) whole: Option<Range<usize>>,
}

/// Reads the headers of frames and skips their payloads.
#[derive(Debug)]
pub(super) struct Frames {
    /// The part of the next frame's header that has arrived: length (3 bytes), type, flags, stream (4 bytes).
    header: Vec<u8>,
    /// Bytes until the next header.
    skip: usize,
    /// The frame that they belong to is a PING of the right length.
    is_ping: bool,
}

impl Frames {
    pub(super) fn of_client() -> Frames {
        Frames { header: Vec::new(), skip: PREFACE.len(), is_ping: false }
    }

    pub(super) fn of_server() -> Frames {
        Frames { header: Vec::new(), skip: 0, is_ping: false }
    }

    /// Returns whether no frame, and no preface, is incomplete.
    pub(super) fn is_between(&self) -> bool {
        self.header.is_empty() && self.skip == 0
    }

    /// Forgets the frame that began in the last `read` bytes and is not complete, if it is a PING or may become one. Returns how
    /// many bytes of it there are: they have to be read again, with the rest.
    pub(super) fn forget_partial_ping(&mut self, read: usize) -> usize {
        let begun = match self.header.len() {
            0 if self.is_ping && self.skip > 0 => HEADER + PING_LENGTH - self.skip,
            header => header,
        };
        if begun > read {
            return 0;
        }
        self.header.clear();
        if begun > 0 {
            self.skip = 0;
        }
        begun
    }

    pub(super) fn read(&mut self, bytes: &[u8], mut each: impl FnMut(Frame)) {
        let mut at = 0;
        while at < bytes.len() {
            let skipped = self.skip.min(bytes.len() - at);
            self.skip -= skipped;
            at += skipped;
            let missing = (HEADER - self.header.len()).min(bytes.len() - at);
            self.header.extend_from_slice(&bytes[at..at + missing]);
            at += missing;
            if let [a, b, c, kind, flags, stream @ ..] = &self.header[..]
                && let Ok(stream) = <[u8; 4]>::try_from(stream)
            {
                self.skip = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                self.is_ping = *kind == PING && self.skip == PING_LENGTH;
                let end = at + self.skip;
                let whole = (missing == HEADER && end <= bytes.len()).then(|| at - HEADER..end);
                // The first bit is reserved and must be ignored.
                each(Frame {
                    kind: *kind,
                    flags: *flags,
                    stream: u32::from_be_bytes(stream) & !(1 << 31),
                    whole,
                });
                self.header.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: u8, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
        let head = [&[0, 0, length, kind, flags][..], &stream.to_be_bytes()].concat();
        [head, vec![PING; usize::from(length)]].concat()
    }

    fn read(bytes: &[u8], sizes: impl IntoIterator<Item = usize>) -> Vec<(u8, u8, u32)> {
        let (mut frames, mut rest, mut seen) = (Frames::of_client(), bytes, Vec::new());
        for size in sizes {
            let (chunk, more) = rest.split_at(size.min(rest.len()));
            frames.read(chunk, |frame| {
                if let Some(whole) = &frame.whole {
                    assert_eq!(chunk[whole.start + 3], frame.kind);
                }
                seen.push((frame.kind, frame.flags, frame.stream));
            });
            assert!(frames.header.len() < HEADER && frames.header.capacity() < 64);
            rest = more;
        }
        assert!(rest.is_empty());
        seen
    }

    #[test]
    fn frames_are_found_no_matter_how_the_bytes_arrive() {
        let wire = [PREFACE, &frame(6, 4, 0, 0), &frame(8, PING, ACK, 0), &frame(0, HEADERS, 5, 1 << 31 | 7)]
            .concat();
        let all = [(4, 0, 0), (PING, ACK, 0), (HEADERS, 5, 7)];
        for size in 1..=wire.len() {
            assert_eq!(
                read(&wire, std::iter::repeat_n(size, wire.len().div_ceil(size))),
                all,
                "{size} bytes at a time"
            );
        }
        let mut frames = Frames::of_client();
        let mut whole = Vec::new();
        frames.read(&wire, |frame| whole.push(frame.whole));
        assert_eq!(whole, [Some(24..39), Some(39..56), Some(56..65)]);
        assert!(frames.is_between());
        frames.read(&[0], |_| {});
        assert!(!frames.is_between());
    }

    #[test]
    fn random_bytes_are_read_the_same_no_matter_how_they_arrive_and_are_not_kept() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut seen = 0;
        for _ in 0..20_000 {
            let mut bytes = PREFACE.to_vec();
            for _ in 0..random.usize(0..8) {
                // The lengths are right, so that more than one frame is understood; types and flags are random.
                bytes.extend(frame(random.u8(0..40), random.u8(0..12), random.u8(..), random.u32(..)));
            }
            bytes.extend((0..random.usize(0..30)).map(|_| random.u8(..)));
            bytes.truncate(random.usize(PREFACE.len()..=bytes.len()));
            let sizes: Vec<_> = (0..=bytes.len()).map(|_| random.usize(1..=40)).collect();
            let at_once = read(&bytes, [bytes.len()]);
            assert_eq!(read(&bytes, sizes), at_once, "{bytes:?}");
            seen += at_once.len();
        }
        assert!(seen > 20_000, "too few frames to prove anything: {seen}");
    }
}
