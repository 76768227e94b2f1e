//! The listing of a directory without index.html: its names except hidden ones, and nothing outside of ROOT. Listings are made one
//! after the other, so that large directories do not take all file threads, and are cached.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::Response;
use hyper::body::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rustix::fs::{Mode, OFlags, open, openat};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::file_state::FileState;
use super::files::{Page, uncached};
use super::static_files::RequestPath;

mod cache;

use cache::Cache;

/// Limit of names in a listing, so that a request takes a bounded amount of memory.
const MOST: usize = 10_000;
/// How many threads look for a directory at the same time.
const LOOKING: usize = 16;
/// The characters to escape in a link. A colon is among them: the text before it would be taken for a scheme.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The listings of one ROOT.
#[derive(Debug, Clone)]
pub(crate) struct Listings(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    made: Mutex<Cache>,
    turn: Arc<Semaphore>,
    /// Permits to look for a directory, which may be on a file system that never answers.
    looking: Arc<Semaphore>,
}

impl Listings {
    pub(crate) fn of(root: PathBuf) -> Listings {
        let (turn, looking) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(LOOKING)));
        Listings(Arc::new(Inner { root, made: Mutex::default(), turn, looking }))
    }

    /// Returns the listing for a request path; `None` if there is no such directory, or it must not be listed.
    pub(crate) async fn page(&self, path: &str) -> Option<Response<Page>> {
        let (inner, path) = (Arc::clone(&self.0), path.to_owned());
        let looking = Arc::clone(&inner.looking).acquire_owned().await.ok()?;
        let look = move || {
            let _looking = looking;
            inner.made(&path).map(|page| (page, path))
        };
        let (page, path) = spawn_blocking(look).await.ok()??;
        let page = match page {
            Some(page) => page,
            None => {
                // Waits as a task and does not occupy a file thread.
                let turn = Arc::clone(&self.0.turn).acquire_owned().await.ok()?;
                let inner = Arc::clone(&self.0);
                let made = spawn_blocking(move || {
                    // Held until the listing is made, even if the request is dropped meanwhile.
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
    /// Returns the cached page if it is still right. The outer `None` means that there is no such directory.
    fn made(&self, path: &str) -> Option<Option<Bytes>> {
        let dir = Directory::of(&self.root, path)?;
        let state = FileState::at(&dir.real).ok()?;
        Some(self.made.lock().unwrap_or_else(PoisonError::into_inner).get(&dir.title, &dir.real, &state))
    }

    fn made_or_make(&self, path: &str) -> Option<Bytes> {
        if let Some(made) = self.made(path)? {
            return Some(made);
        }
        let dir = Directory::of(&self.root, path)?;
        // Taken before the names are read: a change during the read must invalidate this page.
        let state = FileState::at(&dir.real).ok()?;
        let names = names(&dir.real).ok()?;
        let lasts = !names.links && state.is_settled();
        let page = Bytes::from(page(&dir, names));
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.put(dir.title, dir.real, state, lasts, page.clone());
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
        // Writing to a String cannot fail.
        let _ = writeln!(html, "<li><a href=\"{link}{slash}\"><bdi>{shown}</bdi>{slash}</a>");
    }
    html.push_str("</ul>\n");
    if names.more {
        html.push_str(&format!("<p>There are more than these {MOST}.\n"));
    }
    html
}

/// A directory that may be listed.
struct Directory {
    /// The path with all links resolved.
    real: PathBuf,
    /// The path below ROOT in one normal form, independent of the spelling in the request.
    title: String,
    is_root: bool,
}

impl Directory {
    /// Returns the directory for a request path, if it may be listed. A link out of ROOT is served as a file, because its author
    /// published that file, but a directory outside of ROOT is never listed.
    fn of(root: &Path, path: &str) -> Option<Directory> {
        let index = RequestPath::of(root, path)?.file;
        let dir = index.parent()?;
        let mut title = "/".to_owned();
        for name in dir.strip_prefix(root).ok()? {
            if is_hidden(name) {
                return None;
            }
            title.extend([&name.to_string_lossy(), "/"]);
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
    /// Each name with its suffix: a slash for a directory, nothing for a file.
    names: Vec<(Vec<u8>, &'static str)>,
    /// There are more than [`MOST`].
    more: bool,
    /// Some of them are symbolic links.
    links: bool,
}

/// Opens a directory by a path without links. One that was put into it meanwhile is not followed: it may lead out of ROOT.
fn open_without_links(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut dir = open("/", flags, Mode::empty())?;
    for name in path.strip_prefix("/").unwrap_or(path) {
        dir = openat(dir, name, flags, Mode::empty())?;
    }
    Ok(dir)
}

/// Reads the names of the files and directories that can be served.
fn names(dir: &Path) -> io::Result<Names> {
    let (mut names, mut links) = (Vec::new(), false);
    let opened = open_without_links(dir)?;
    for entry in fs::read_dir(format!("/proc/self/fd/{}", opened.as_raw_fd()))? {
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

/// Escapes text for HTML, as content or in a quoted attribute.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Control characters are invisible, and a terminal obeys some of them.
            _ if char.is_control() => escaped.push('\u{fffd}'),
            _ => escaped.push(char),
        }
    }
    escaped
}
