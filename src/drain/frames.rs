//! Whether an HTTP/2 client has acknowledged our PING: the only thing about a graceful shutdown that hyper does not tell.

/// The connection preface, which comes before the first frame (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PING: u8 = 6;
const ACK: u8 = 1;

/// Reads the headers of the frames of one direction and skips their payloads.
#[derive(Debug)]
pub(super) struct Frames {
    /// The part of the next frame's header that has arrived: length (3 bytes), type, flags, stream (4 bytes).
    header: Vec<u8>,
    /// Bytes until the next header.
    skip: usize,
    pub(super) acknowledged: bool,
}

impl Default for Frames {
    fn default() -> Frames {
        Frames { header: Vec::new(), skip: PREFACE.len(), acknowledged: false }
    }
}

impl Frames {
    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let (header, rest) = bytes.split_at((9 - self.header.len()).min(bytes.len()));
            self.header.extend_from_slice(header);
            bytes = rest;
            if let [a, b, c, kind, flags, _, _, _, _] = self.header[..] {
                self.acknowledged |= kind == PING && flags & ACK != 0;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                self.header.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledged_ping_is_seen_however_the_bytes_arrive() {
        let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, PING, ACK, PING, ACK, PING, ACK];
        let ping = |flags| [&[0, 0, 8, PING, flags, 0, 0, 0, 0][..], &[PING; 8]].concat();
        let asked = [PREFACE, &settings, &ping(0)].concat();
        let answered = [&asked[..], &ping(ACK), &settings].concat();
        for size in 1..answered.len() {
            let read = |bytes: &[u8]| {
                let mut frames = Frames::default();
                bytes.chunks(size).for_each(|chunk| frames.read(chunk));
                frames.acknowledged
            };
            assert!(!read(&asked) && read(&answered), "{size} bytes at a time");
        }
    }

    /// The same answer from all bytes at once, with nothing to remember.
    fn acknowledges(mut frames: &[u8]) -> bool {
        while let [a, b, c, kind, flags, _, _, _, _, rest @ ..] = frames {
            if *kind == PING && flags & ACK != 0 {
                return true;
            }
            frames = rest.get(u32::from_be_bytes([0, *a, *b, *c]) as usize..).unwrap_or_default();
        }
        false
    }

    #[test]
    fn random_bytes_are_read_the_same_however_they_arrive_and_nothing_is_kept_of_them() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut seen = [0; 2];
        for _ in 0..20_000 {
            let mut bytes = PREFACE.to_vec();
            for _ in 0..random.usize(0..8) {
                // Lengths that are right, so that more than one frame is understood; types and flags of all kinds.
                let payload: Vec<u8> = (0..random.usize(0..40)).map(|_| random.u8(..)).collect();
                bytes.extend([
                    0,
                    0,
                    payload.len() as u8,
                    random.u8(0..12),
                    random.u8(..),
                    0,
                    0,
                    0,
                    random.u8(..),
                ]);
                bytes.extend(payload);
            }
            bytes.extend((0..random.usize(0..30)).map(|_| random.u8(..)));
            bytes.truncate(random.usize(PREFACE.len()..=bytes.len()));
            let mut frames = Frames::default();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (chunk, more) = rest.split_at(random.usize(1..=rest.len()));
                frames.read(chunk);
                assert!(frames.header.len() < 9 && frames.header.capacity() < 64);
                rest = more;
            }
            assert_eq!(frames.acknowledged, acknowledges(&bytes[PREFACE.len()..]), "{bytes:?}");
            seen[usize::from(frames.acknowledged)] += 1;
        }
        assert!(seen.iter().all(|n| *n > 1000), "one answer was too rare to prove anything: {seen:?}");
    }
}
