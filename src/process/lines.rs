//! A bounded buffer for the output lines of another program.

use std::collections::VecDeque;

const LINES: usize = 20;
const LINE_BYTES: usize = 2000;

/// The first or the last lines of an output. The final line may be incomplete.
#[derive(Debug)]
pub(crate) struct Lines {
    kept: VecDeque<Vec<u8>>,
    /// Whether the last lines are kept, rather than the first.
    last: bool,
}

impl Lines {
    /// Keeps the last 20 lines, up to 2,000 bytes of each.
    pub(crate) fn last() -> Lines {
        Lines { kept: VecDeque::new(), last: true }
    }

    /// Keeps the first 20 lines, up to 2,000 bytes of each.
    #[cfg(feature = "control")]
    pub(crate) fn first() -> Lines {
        Lines { kept: VecDeque::new(), last: false }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.kept.back().is_none_or(|line| line.ends_with(b"\n")) {
                if !self.last && self.kept.len() == LINES {
                    return;
                }
                self.kept.push_back(vec![]);
            }
            if let Some(line) = self.kept.back_mut() {
                let room = LINE_BYTES.saturating_sub(line.len());
                line.extend_from_slice(&piece[..piece.len().min(room)]);
                if piece.ends_with(b"\n") && !line.ends_with(b"\n") {
                    line.push(b'\n');
                }
            }
            if self.kept.len() > LINES {
                self.kept.pop_front();
            }
        }
    }

    /// The non-empty lines, with control characters replaced by spaces.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.kept.iter().map(|line| text(line)).filter(|line| !line.is_empty()).collect()
    }
}

fn text(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line.trim_ascii_end());
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(mut lines: Lines, chunks: &[&[u8]]) -> Vec<String> {
        chunks.iter().for_each(|chunk| lines.push(chunk));
        lines.texts()
    }

    #[test]
    fn lines_may_come_in_pieces_and_the_last_one_without_a_newline() {
        assert_eq!(kept(Lines::last(), &[b"on", b"e\ntwo\nth", b"ree"]), ["one", "two", "three"]);
        assert_eq!(kept(Lines::last(), &[b"one\n\n", b"two\x1b[1m\r\n"]), ["one", "two [1m"]);
    }

    #[test]
    fn the_number_and_the_length_of_the_lines_are_limited() {
        let many: String = (0..100).map(|n| format!("{n}\n")).collect();
        let last = kept(Lines::last(), &[many.as_bytes()]);
        assert_eq!((last.len(), &*last[0], &*last[LINES - 1]), (LINES, "80", "99"));
        let long = [vec![b'x'; 100_000], b"\nend".to_vec()].concat();
        assert_eq!(kept(Lines::last(), &[&long[..50_000], &long[50_000..]])[0].len(), LINE_BYTES);
        assert_eq!(kept(Lines::last(), &[&long]).len(), 2);
    }

    #[cfg(feature = "control")]
    #[test]
    fn the_first_lines_can_be_kept_instead_of_the_last() {
        let many: String = (0..100).map(|n| format!("{n}\n")).collect();
        let first = kept(Lines::first(), &[&many.as_bytes()[..31], &many.as_bytes()[31..]]);
        assert_eq!((first.len(), &*first[0], &*first[LINES - 1]), (LINES, "0", "19"));
    }
}
