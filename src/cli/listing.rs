//! The page for a directory without index.html: the names in it, none of them hidden, nothing outside of ROOT. Pages are
//! made one after the other, so that a directory with many names keeps no other file waiting, and kept for the next one.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::Response;
use hyper::body::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::files::{Page, uncached};

mod cache;

use cache::{Cache, Version};

/// A directory with more names is listed up to here, so that no request takes memory without end.
const MOST: usize = 10_000;
/// What may stand in a link as it is. A colon may not: it would make the name before it a scheme.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The listings of one ROOT.
#[derive(Debug, Clone)]
pub(crate) struct Listings(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    made: Mutex<Cache>,
    turn: Arc<Semaphore>,
}

impl Listings {
    pub(crate) fn of(root: PathBuf) -> Listings {
        Listings(Arc::new(Inner { root, made: Mutex::default(), turn: Arc::new(Semaphore::new(1)) }))
    }

    /// The page for the directory that `path`, of a request, means; `None` if there is none to be seen.
    pub(crate) async fn page(&self, path: &str) -> Option<Response<Page>> {
        let (inner, path) = (Arc::clone(&self.0), path.to_owned());
        let (page, path) =
            spawn_blocking(move || inner.made(&path).map(|page| (page, path))).await.ok()??;
        let page = match page {
            Some(page) => page,
            None => {
                // Waits here, and not in a thread that reads files meanwhile.
                let turn = Arc::clone(&self.0.turn).acquire_owned().await.ok()?;
                let inner = Arc::clone(&self.0);
                let made = spawn_blocking(move || {
                    // Also if no request waits for it any more.
                    let _turn = turn;
                    inner.made_or_make(&path)
                });
                made.await.ok()??
            }
        };
        Some(uncached(page, "text/html; charset=utf-8"))
    }
}

impl Inner {
    /// The page if it was made before and is still right; `None` outside if there is no such directory.
    fn made(&self, path: &str) -> Option<Option<Bytes>> {
        let dir = Directory::of(&self.root, path)?;
        let version = Version::of(&dir.real).ok()?;
        Some(self.made.lock().unwrap_or_else(PoisonError::into_inner).get(&dir.title, &dir.real, &version))
    }

    fn made_or_make(&self, path: &str) -> Option<Bytes> {
        if let Some(made) = self.made(path)? {
            return Some(made);
        }
        let dir = Directory::of(&self.root, path)?;
        // Before the names: what changes while they are read counts for the next one.
        let version = Version::of(&dir.real).ok()?;
        let names = names(&dir.real).ok()?;
        let lasts = !names.links && version.is_settled();
        let page = Bytes::from(page(&dir, names));
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.put(dir.title, dir.real, version, lasts, page.clone());
        Some(page)
    }
}

fn page(dir: &Directory, mut names: Names) -> String {
    names.names.sort_unstable();
    let title = escaped(&dir.title);
    let style = "color-scheme: light dark; font: 1rem/1.6 system-ui; max-width: 44rem; margin: 2rem auto; padding: 0 1rem";
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title}</title><body style=\"{style}\"><h1 style=\"font-size: 1.2rem; overflow-wrap: anywhere\">\
         {title}</h1><ul style=\"list-style: none; padding: 0; overflow-wrap: anywhere\">\n"
    );
    if !dir.is_root {
        html.push_str("<li><a href=\"../\">../</a>\n");
    }
    for (name, slash) in names.names {
        let link = percent_encode(&name, ESCAPED);
        let shown = escaped(&String::from_utf8_lossy(&name));
        // Cannot fail because a String takes whatever is written to it.
        let _ = writeln!(html, "<li><a href=\"{link}{slash}\"><bdi>{shown}</bdi>{slash}</a>");
    }
    html.push_str("</ul>\n");
    if names.more {
        html.push_str(&format!("<p>There are more than these {MOST}.\n"));
    }
    html
}

/// A directory without index.html.
struct Directory {
    /// Without links.
    real: PathBuf,
    /// Its path below ROOT, the same however a request spells it.
    title: String,
    is_root: bool,
}

impl Directory {
    /// The one that is meant. A link that leads out of ROOT is followed to a file, because who made it meant that file, but
    /// it was not meant to show what else lies there.
    fn of(root: &Path, path: &str) -> Option<Directory> {
        let decoded = percent_decode_str(path.trim_start_matches('/')).decode_utf8().ok()?;
        let mut dir = root.to_path_buf();
        let mut title = "/".to_owned();
        for component in Path::new(&*decoded).components() {
            match component {
                Component::Normal(name) if !is_hidden(name) => {
                    dir.push(name);
                    title.extend([&name.to_string_lossy(), "/"]);
                }
                Component::CurDir => {}
                _ => return None,
            }
        }
        let (real, root) = (fs::canonicalize(dir).ok()?, fs::canonicalize(root).ok()?);
        let inside = real.strip_prefix(&root).ok()?;
        let hidden = inside.components().any(|part| is_hidden(part.as_os_str()));
        let is_root = real == root;
        (!hidden && !real.join("index.html").exists()).then_some(Directory { real, title, is_root })
    }
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".")
}

struct Names {
    /// Each with the slash that stands behind a directory, or nothing.
    names: Vec<(Vec<u8>, &'static str)>,
    /// There are more than [`MOST`].
    more: bool,
    /// Some of them are symbolic links.
    links: bool,
}

/// The names of what can be served.
fn names(dir: &Path) -> io::Result<Names> {
    let (mut names, mut links) = (Vec::new(), false);
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_hidden(&name) {
            continue;
        }
        if names.len() == MOST {
            return Ok(Names { names, more: true, links });
        }
        let mut kind = entry.file_type()?;
        if kind.is_symlink() {
            links = true;
            match fs::metadata(entry.path()) {
                Ok(target) => kind = target.file_type(),
                Err(_) => continue,
            }
        }
        if kind.is_dir() {
            names.push((name.as_bytes().to_vec(), "/"));
        } else if kind.is_file() {
            names.push((name.as_bytes().to_vec(), ""));
        }
    }
    Ok(Names { names, more: false, links })
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
