//! The settings that have no flag: the tables [headers] and [mime] of the config file.

use std::collections::HashMap;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use toml::Spanned;
use toml::de::DeValue;

use super::{Place, described};

#[derive(Debug, Clone, Default)]
pub(crate) struct Tables {
    /// Added to every response that does not have the header already.
    pub(crate) headers: HeaderMap,
    /// Media types by extension in lower case.
    pub(crate) mime: HashMap<String, HeaderValue>,
}

/// Headers that describe how a message is sent; only the server can set them correctly.
const FRAMING: [&str; 9] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Tables {
    pub(super) fn take_headers(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        place: Place<'_>,
    ) -> Result<(), String> {
        each(value, place, "headers", "x-frame-options = \"DENY\"", |key, text| {
            let name = HeaderName::from_bytes(key.as_bytes())
                .map_err(|_| "this is not a valid header name; use letters, digits and dashes".to_owned())?;
            if FRAMING.contains(&name.as_str()) {
                return Err("the server sets this header itself; remove the line".into());
            }
            let value = HeaderValue::from_str(text)
                .ok()
                .filter(|value| value.to_str().is_ok())
                .ok_or("expected ASCII text without line breaks")?;
            match self.headers.insert(name, value) {
                Some(_) => Err("the same header in another spelling is above; keep one of them".into()),
                None => Ok(()),
            }
        })
    }

    pub(super) fn take_mime(&mut self, value: &Spanned<DeValue<'_>>, place: Place<'_>) -> Result<(), String> {
        each(value, place, "mime", "md = \"text/markdown\"", |extension, kind| {
            if extension.is_empty() || extension.contains(['.', '/']) {
                return Err("expected a file extension without the dot, such as md".into());
            }
            let value = HeaderValue::from_str(kind).ok().filter(|_| is_media_type(kind));
            let value = value.ok_or("expected a media type, such as text/markdown; charset=utf-8")?;
            match self.mime.insert(extension.to_ascii_lowercase(), value) {
                Some(_) => Err("the same extension in another spelling is above; keep one of them".into()),
                None => Ok(()),
            }
        })
    }
}

/// Passes each entry of a table to `take`, and returns the first error with its position.
fn each(
    value: &Spanned<DeValue<'_>>,
    place: Place<'_>,
    table: &str,
    example: &str,
    mut take: impl FnMut(&str, &str) -> Result<(), String>,
) -> Result<(), String> {
    let DeValue::Table(entries) = value.get_ref() else {
        let (at, found) = (place.at(&value.span()), described(value.get_ref()));
        return Err(format!("{at}: {table}: expected a table, such as [{table}] {example}, not {found}"));
    };
    // In the order of the file, so that the first error in the file is reported.
    let mut entries: Vec<_> = entries.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let mut result = Ok(());
    for (key, value) in entries {
        let name = key.get_ref();
        let fail = |why: String| format!("{}: {table}.{name}: {why}", place.at(&value.span()));
        let taken = match value.get_ref() {
            DeValue::String(text) => take(name, text).map_err(fail),
            other => {
                Err(fail(format!("expected text in quotes, such as {example}, not {}", described(other))))
            }
        };
        result = result.and(taken);
    }
    result
}

fn is_media_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    // Media types and header names consist of the same token characters (RFC 9110, sections 5.6.2 and 8.3.1).
    let is_token = |part: &str| HeaderName::from_bytes(part.as_bytes()).is_ok();
    text.is_ascii() && essence.split_once('/').is_some_and(|(kind, sub)| is_token(kind) && is_token(sub))
}
