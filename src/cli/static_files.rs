//! Answers a request with a file of ROOT: finds it, or a compressed one beside it that the client accepts.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::header::{ALLOW, HeaderMap, HeaderName, HeaderValue, LOCATION};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::open_files::{Access, Files, Found};

mod body;
mod encodings;
mod path;
mod prepared;
mod ranges;
mod respond;
mod validators;

pub(crate) use body::FileBody;
use encodings::Encoding;
pub(crate) use path::RequestPath;
use prepared::Cache;

/// How often a file that is written to while it is read is read again.
const TRIES: usize = 8;

/// The files of one ROOT.
#[derive(Debug, Clone)]
pub(crate) struct StaticFiles(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    files: Files,
    cache: Cache,
}

/// The file that a client gets.
struct Representation<'a> {
    path: Cow<'a, Path>,
    found: Found,
    encoding: Option<Encoding>,
    /// Whether it is sent although it grows while it is read. A log that is written to all the time would never be sent otherwise.
    may_grow: bool,
}

impl StaticFiles {
    pub(crate) fn new(root: PathBuf) -> StaticFiles {
        StaticFiles(Arc::new(Inner { files: Files::new(root.clone()), root, cache: Cache::default() }))
    }

    /// Answers a request at once if the kernel has all that is needed in memory.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if [`answer_later`](StaticFiles::answer_later) has to do it.
    pub(crate) fn answer(&self, head: &Parts) -> io::Result<Response<FileBody>> {
        self.respond(head, Access::Cached)
    }

    /// Answers a request on a thread for blocking work.
    pub(crate) async fn answer_later(self, head: Parts) -> io::Result<Response<FileBody>> {
        let (files, head) = (self.0.files.clone(), Arc::new(head));
        let respond = |access| {
            let (own, head) = (self.clone(), Arc::clone(&head));
            files.blocking(access, move |access| own.respond(&head, access))
        };
        match respond(Access::Blocking).await {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => respond(Access::Foreign).await,
            answer => answer,
        }
    }

    fn respond(&self, head: &Parts, access: Access) -> io::Result<Response<FileBody>> {
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return Ok(with_header(
                StatusCode::METHOD_NOT_ALLOWED,
                ALLOW,
                HeaderValue::from_static("GET,HEAD"),
            ));
        }
        let path = RequestPath::of(&self.0.root, head.uri.path()).ok_or(io::ErrorKind::NotFound)?;
        for tries_left in (0..TRIES).rev() {
            let Some(mut chosen) = self.choose(&path, &head.headers, access)? else {
                let location = path.with_slash(head.uri.query());
                return Ok(with_header(StatusCode::TEMPORARY_REDIRECT, LOCATION, location));
            };
            chosen.may_grow = tries_left == 0;
            match self.respond_with(head, &path, &chosen, access) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
                answer => return answer,
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// Finds what a client gets; `None` for a directory whose name lacks the slash at its end.
    fn choose<'a>(
        &self,
        path: &'a RequestPath<'_>,
        headers: &HeaderMap,
        access: Access,
    ) -> io::Result<Option<Representation<'a>>> {
        use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound, PermissionDenied};
        let mut compressed = None;
        for encoding in encodings::accepted(headers) {
            let path = encoding.beside(&path.file);
            match self.0.files.find(&path, access) {
                Ok(found) if !found.state.is_dir() => {
                    let (path, encoding) = (path.into(), Some(encoding));
                    compressed = Some(Representation { path, found, encoding, may_grow: false });
                    break;
                }
                Ok(_) => {}
                Err(error) => match error.kind() {
                    NotFound | NotADirectory | InvalidFilename | PermissionDenied => {}
                    _ => return Err(error),
                },
            }
        }
        // `docs.gz` may be an archive of the directory `docs`.
        let found = match self.0.files.find(&path.file, access) {
            Err(error) if error.kind() == NotFound && compressed.is_some() => return Ok(compressed),
            found => found?,
        };
        match (found.state.is_dir(), path.ends_with_slash, compressed) {
            (true, false, _) => Ok(None),
            (_, _, Some(compressed)) => Ok(Some(compressed)),
            (true, true, None) => Err(NotFound.into()),
            (false, _, None) => {
                let path = (&path.file).into();
                Ok(Some(Representation { path, found, encoding: None, may_grow: false }))
            }
        }
    }
}

fn status(status: StatusCode) -> Response<FileBody> {
    let mut response = Response::new(FileBody::empty());
    *response.status_mut() = status;
    response
}

fn with_header(code: StatusCode, name: HeaderName, value: HeaderValue) -> Response<FileBody> {
    let mut response = status(code);
    response.headers_mut().insert(name, value);
    response
}
