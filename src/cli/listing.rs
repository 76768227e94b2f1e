//! The page for a directory without index.html: the names in it, none of them hidden, nothing outside of ROOT.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use hyper::Response;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::site::{Page, uncached};

/// A directory with more names is listed up to here, so that no request takes memory without end.
const MOST: usize = 10_000;
/// What may stand in a link as it is. A colon may not: it would make the name before it a scheme.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The page for the directory that `path`, of a request, means; `None` if there is none to be seen.
pub(crate) fn page(root: &Path, path: &str) -> Option<Response<Page>> {
    let dir = directory(root, path).filter(|dir| !dir.join("index.html").exists())?;
    let Names { mut names, more } = names(&dir).ok()?;
    names.sort_unstable();

    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let title = escaped(&decoded);
    let style = "color-scheme: light dark; font: 1rem/1.6 system-ui; max-width: 44rem; margin: 2rem auto; padding: 0 1rem";
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title}</title><body style=\"{style}\"><h1 style=\"font-size: 1.2rem; overflow-wrap: anywhere\">\
         {title}</h1><ul style=\"list-style: none; padding: 0; overflow-wrap: anywhere\">\n"
    );
    if dir != fs::canonicalize(root).ok()? {
        html.push_str("<li><a href=\"../\">../</a>\n");
    }
    for (name, slash) in names {
        let link = percent_encode(&name, ESCAPED);
        let shown = escaped(&String::from_utf8_lossy(&name));
        html.push_str(&format!("<li><a href=\"{link}{slash}\"><bdi>{shown}</bdi>{slash}</a>\n"));
    }
    html.push_str("</ul>\n");
    if more {
        html.push_str(&format!("<p>There are more than these {MOST}.\n"));
    }
    Some(uncached(html, "text/html; charset=utf-8"))
}

/// The directory that is meant, without links. A link that leads out of ROOT is followed to a file, because who made it
/// meant that file, but nobody meant to show what else lies there.
fn directory(root: &Path, path: &str) -> Option<PathBuf> {
    let decoded = percent_decode_str(path.trim_start_matches('/')).decode_utf8().ok()?;
    let mut dir = root.to_path_buf();
    for component in Path::new(&*decoded).components() {
        match component {
            Component::Normal(name) if !is_hidden(name) => dir.push(name),
            Component::CurDir => {}
            _ => return None,
        }
    }
    let dir = fs::canonicalize(dir).ok()?;
    let inside = dir.strip_prefix(fs::canonicalize(root).ok()?).ok()?;
    (!inside.components().any(|part| is_hidden(part.as_os_str()))).then_some(dir)
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".")
}

struct Names {
    /// Each with the slash that stands behind a directory, or nothing.
    names: Vec<(Vec<u8>, &'static str)>,
    /// There are more than [`MOST`].
    more: bool,
}

/// The names of what can be served.
fn names(dir: &Path) -> io::Result<Names> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_hidden(&name) {
            continue;
        }
        if names.len() == MOST {
            return Ok(Names { names, more: true });
        }
        // Of what a link points to.
        match fs::metadata(entry.path()) {
            Ok(found) if found.is_dir() => names.push((name.as_bytes().to_vec(), "/")),
            Ok(found) if found.is_file() => names.push((name.as_bytes().to_vec(), "")),
            _ => {}
        }
    }
    Ok(Names { names, more: false })
}

/// For HTML, as text or in quotation marks.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Nothing visible, and some a terminal obeys.
            _ if char.is_control() => escaped.push('\u{fffd}'),
            _ => escaped.push(char),
        }
    }
    escaped
}
