//! What clients request, and the check of the answer's body.

use std::sync::Arc;

use hyper::body::Bytes;

/// The header of a file's answer that names the generation.
pub(super) const GENERATION: &str = "generation";

/// A request, and the answer that the client expects.
#[derive(Debug, Clone)]
pub enum Target {
    /// `/`, whose short body names the generation.
    Root,
    /// A file with this content. The header `generation` of the answer names the generation.
    File { path: Arc<str>, content: Bytes },
}

/// Chooses the target of each request.
pub(super) type Targets = Arc<dyn Fn() -> Target + Send + Sync>;

/// The most that is read at once.
const PIECE: usize = 64 * 1024;
/// Enough for any head, and for a body that names the generation.
const SMALL: usize = 1024;

impl Target {
    pub(super) fn path(&self) -> &str {
        match self {
            Target::Root => "/",
            Target::File { path, .. } => path,
        }
    }

    /// The content of the file; empty for `/`.
    pub(super) fn content(&self) -> &[u8] {
        match self {
            Target::Root => &[],
            Target::File { content, .. } => content,
        }
    }

    /// The size of a buffer that holds a small answer, or a piece of a large one.
    pub(super) fn room(&self) -> usize {
        (self.content().len() + SMALL).min(PIECE)
    }
}

/// The body of an answer, checked piece by piece.
pub(super) struct Arriving<'a> {
    target: &'a Target,
    /// The number of bytes so far.
    pub(super) length: usize,
    /// The text so far, if it names the generation.
    text: Vec<u8>,
}

impl<'a> Arriving<'a> {
    pub(super) fn of(target: &'a Target) -> Arriving<'a> {
        Arriving { target, length: 0, text: vec![] }
    }

    /// Takes the next bytes, which must be those of the file.
    pub(super) fn take(&mut self, piece: &[u8]) -> Result<(), &'static str> {
        let from = self.length;
        self.length += piece.len();
        match self.target {
            Target::Root => self.text.extend_from_slice(piece),
            Target::File { content, .. } if content.get(from..self.length) != Some(piece) => {
                return Err("wrong content");
            }
            Target::File { .. } => {}
        }
        Ok(())
    }

    /// Returns the generation that answered, at the end of the body. `header`: the value of the header `generation`.
    pub(super) fn end(&self, header: Option<u64>) -> Result<u64, &'static str> {
        match self.target {
            Target::Root => generation(&self.text).ok_or("bad answer"),
            Target::File { content, .. } if self.length < content.len() => Err("wrong content"),
            Target::File { .. } => header.ok_or("bad answer"),
        }
    }
}

/// The generation that answered, from the body.
fn generation(body: &[u8]) -> Option<u64> {
    let text = str::from_utf8(body).ok()?;
    let who = text.strip_prefix("generation=").or_else(|| text.strip_prefix("hello from "))?;
    who.split_whitespace().next()?.parse().ok()
}
