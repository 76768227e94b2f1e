//! The path of a request, and the file below ROOT that it names.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use hyper::header::HeaderValue;
use percent_encoding::percent_decode_str;

const INDEX: &str = "index.html";

#[derive(Debug)]
pub(crate) struct RequestPath<'a> {
    raw: &'a str,
    /// The file, or the `index.html` of the directory.
    pub(crate) file: PathBuf,
    pub(crate) ends_with_slash: bool,
}

impl RequestPath<'_> {
    /// Returns `None` for a path that no file below ROOT can have: one with `..` or NUL. A name may have any other bytes.
    pub(crate) fn of<'a>(root: &Path, raw: &'a str) -> Option<RequestPath<'a>> {
        // `*` and the empty path name no file.
        let names = raw.strip_prefix('/')?;
        let decoded: Cow<'_, [u8]> = percent_decode_str(names).into();
        if decoded.contains(&0) {
            return None;
        }
        let mut file = Vec::with_capacity(root.as_os_str().len() + decoded.len() + 1 + INDEX.len());
        file.extend_from_slice(root.as_os_str().as_bytes());
        for name in decoded.split(|byte| *byte == b'/') {
            match name {
                // More slashes than needed.
                b"" | b"." => {}
                b".." => return None,
                name => {
                    file.push(b'/');
                    file.extend_from_slice(name);
                }
            }
        }
        let ends_with_slash = raw.ends_with('/');
        if ends_with_slash {
            file.push(b'/');
            file.extend_from_slice(INDEX.as_bytes());
        }
        Some(RequestPath { raw, file: OsString::from_vec(file).into(), ends_with_slash })
    }

    /// Returns the path of the directory with a slash at its end. It begins with one slash only: with two of them, the first name
    /// would be taken for a host.
    pub(crate) fn with_slash(&self, query: Option<&str>) -> HeaderValue {
        let path = self.raw.trim_start_matches('/');
        let location = match query {
            Some(query) => format!("/{path}/?{query}"),
            None => format!("/{path}/"),
        };
        HeaderValue::try_from(location).unwrap_or_else(|_| HeaderValue::from_static("/"))
    }

    pub(crate) fn media_type(&self) -> HeaderValue {
        let kind = mime_guess::from_path(&self.file).first_raw().unwrap_or("application/octet-stream");
        HeaderValue::from_static(kind)
    }
}
