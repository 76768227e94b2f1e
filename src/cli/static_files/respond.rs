//! Builds the response with a file: whole, in part, or only the statement that the client has it already.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use hyper::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue,
};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::body::FileBody;
use super::path::RequestPath;
use super::prepared::Prepared;
use super::ranges::{self, Ranges};
use super::validators::Precondition;
use super::{Representation, StaticFiles, status};
use crate::open_files::{Access, Segment};

impl StaticFiles {
    pub(super) fn respond_with(
        &self,
        head: &Parts,
        path: &RequestPath<'_>,
        chosen: &Representation<'_>,
        access: Access,
    ) -> io::Result<Response<FileBody>> {
        let prepared = match self.0.cache.get(chosen) {
            Some(cached) => cached,
            None => {
                self.0.files.is_foreign(&chosen.found, access)?;
                Arc::new(Prepared::of(path, chosen))
            }
        };
        let (size, validators) = (chosen.found.state.version.size, &prepared.validators);
        let precondition = validators.check(&head.headers);
        if precondition == Precondition::Fails {
            return Ok(status(StatusCode::PRECONDITION_FAILED));
        }
        let mut response = Response::new(FileBody::empty());
        *response.headers_mut() = prepared.headers.clone();
        if precondition == Precondition::NotModified {
            remove_content(response.headers_mut());
            response.headers_mut().remove(ACCEPT_RANGES);
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        let ranges = match validators.range(&head.headers) {
            Some(range) => Ranges::of(range, size),
            None => Ranges::Whole,
        };
        let segments = match ranges {
            Ranges::Whole => {
                if head.method == Method::GET {
                    *response.body_mut() = self.whole(chosen, prepared, access)?;
                }
                return Ok(response);
            }
            Ranges::Unsatisfiable => {
                remove_content(response.headers_mut());
                response.headers_mut().insert(CONTENT_RANGE, ranges::unsatisfied(size));
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                return Ok(response);
            }
            Ranges::One(part) => {
                response.headers_mut().insert(CONTENT_RANGE, ranges::content_range(&part, size));
                vec![Segment::File(part)]
            }
            Ranges::Several(parts) => {
                let media_type = &prepared.headers[CONTENT_TYPE];
                let (media_type, segments) = ranges::multipart(&parts, size, media_type);
                response.headers_mut().insert(CONTENT_TYPE, media_type);
                segments
            }
        };
        let length: u64 = segments.iter().map(Segment::length).sum();
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        if head.method == Method::GET {
            *response.body_mut() = match &segments[..] {
                [Segment::File(part)] => self.part(chosen, part.clone(), access)?,
                _ => FileBody::sending(self.0.files.send(&chosen.found, &chosen.path, segments, access)?),
            };
        }
        Ok(response)
    }

    /// Returns the content of a file. That of a small file is kept.
    fn whole(
        &self,
        chosen: &Representation<'_>,
        prepared: Arc<Prepared>,
        access: Access,
    ) -> io::Result<FileBody> {
        if let Some(content) = &prepared.content {
            return Ok(FileBody::whole(content.clone()));
        }
        let body = self.part(chosen, 0..chosen.found.state.version.size, access)?;
        if let Some(content) = body.content()
            && !self.0.files.is_foreign(&chosen.found, access)?
        {
            // A thread for blocking work has read it, and another one will answer the next request.
            self.0.cache.put(chosen, prepared, content, access != Access::Cached);
        }
        Ok(body)
    }

    /// Returns a part of a file. A small one is read at once, so that the file can be closed.
    fn part(&self, chosen: &Representation<'_>, part: Range<u64>, access: Access) -> io::Result<FileBody> {
        let Representation { path, found, may_grow, .. } = chosen;
        if part.end - part.start <= self.0.files.most() as u64 {
            return Ok(FileBody::whole(self.0.files.read(found, path, part, access, *may_grow)?));
        }
        Ok(FileBody::sending(self.0.files.send(found, path, vec![Segment::File(part)], access)?))
    }
}

/// Removes what describes a body.
fn remove_content(headers: &mut HeaderMap) {
    for name in [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING] {
        headers.remove(name);
    }
}
