//! The body of a response with a file.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};

use crate::open_files::Sending;

/// All bytes at once, or one piece after another.
#[derive(Debug)]
pub(crate) struct FileBody(Content);

#[derive(Debug)]
enum Content {
    Whole(Bytes),
    Sending(Box<Sending>),
}

impl FileBody {
    pub(super) fn empty() -> FileBody {
        FileBody::whole(Bytes::new())
    }

    pub(super) fn whole(bytes: Bytes) -> FileBody {
        FileBody(Content::Whole(bytes))
    }

    /// Returns the content if it is already in memory.
    pub(super) fn content(&self) -> Option<&Bytes> {
        match &self.0 {
            Content::Whole(bytes) => Some(bytes),
            Content::Sending(_) => None,
        }
    }

    pub(super) fn sending(sending: Sending) -> FileBody {
        FileBody(Content::Sending(Box::new(sending)))
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.get_mut().0 {
            Content::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Content::Sending(sending) => Pin::new(&mut **sending).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Sending(sending) => sending.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Sending(sending) => sending.size_hint(),
        }
    }
}
