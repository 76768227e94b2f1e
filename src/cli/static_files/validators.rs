//! The validators of a file, and the conditions of a request (RFC 9110, section 13).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::header::{
    HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE,
};

use crate::file_state::Version;

const CONDITIONS: [HeaderName; 4] = [IF_MATCH, IF_UNMODIFIED_SINCE, IF_NONE_MATCH, IF_MODIFIED_SINCE];
/// The last second of the year 9999; later ones have no HTTP date.
const LAST: i64 = 253_402_300_799;

#[derive(Debug, Clone)]
pub(super) struct Validators {
    /// Strong: another version of the file has another inode, size or time.
    pub(super) tag: HeaderValue,
    /// `None` for a time that HTTP cannot express.
    pub(super) modified: Option<HeaderValue>,
    time: Option<SystemTime>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Precondition {
    Holds,
    /// The client wanted to have another version: 412.
    Fails,
    /// The client has this version: 304.
    NotModified,
}

impl Validators {
    pub(super) fn of(version: &Version) -> Validators {
        let (seconds, nanoseconds) = version.modified;
        let tag = format!("\"{:x}-{:x}-{seconds:x}.{nanoseconds:x}\"", version.inode, version.size);
        let time =
            (0..=LAST).contains(&seconds).then(|| UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs()));
        let modified = time.and_then(|time| HeaderValue::try_from(httpdate::fmt_http_date(time)).ok());
        Validators {
            tag: HeaderValue::try_from(tag).unwrap_or_else(|_| HeaderValue::from_static("\"\"")),
            modified,
            time,
        }
    }

    /// Checks the conditions in the order of RFC 9110, section 13.2.2.
    pub(super) fn check(&self, headers: &HeaderMap) -> Precondition {
        // Most requests have none, and a look at all names costs less than a search for each.
        if !headers.keys().any(|name| CONDITIONS.contains(name)) {
            return Precondition::Holds;
        }
        let since = |name| Some((date(headers, name)?, self.time?));
        let wanted = if headers.contains_key(IF_MATCH) {
            self.is_listed(headers, IF_MATCH, Comparison::Strong)
        } else {
            since(IF_UNMODIFIED_SINCE).is_none_or(|(since, time)| time <= since)
        };
        if !wanted {
            return Precondition::Fails;
        }
        let known = if headers.contains_key(IF_NONE_MATCH) {
            self.is_listed(headers, IF_NONE_MATCH, Comparison::Weak)
        } else {
            since(IF_MODIFIED_SINCE).is_some_and(|(since, time)| time <= since)
        };
        if known { Precondition::NotModified } else { Precondition::Holds }
    }

    /// Returns the ranges that a client wants, unless it has a part of another version.
    pub(super) fn range<'a>(&self, headers: &'a HeaderMap) -> Option<&'a [u8]> {
        let range = headers.get(RANGE)?;
        let same = headers.get(IF_RANGE).is_none_or(|part| {
            *part == self.tag || self.modified.as_ref().is_some_and(|modified| part == modified)
        });
        same.then(|| range.as_bytes())
    }

    fn is_listed(&self, headers: &HeaderMap, name: HeaderName, comparison: Comparison) -> bool {
        let own = self.tag.as_bytes();
        headers.get_all(name).iter().any(|line| {
            // Our tags contain no comma, so one of another server that does is no match either way.
            line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|tag| {
                let strong = match comparison {
                    Comparison::Weak => tag.strip_prefix(b"W/").unwrap_or(tag),
                    Comparison::Strong => tag,
                };
                strong == own || tag == b"*"
            })
        })
    }
}

#[derive(Clone, Copy)]
enum Comparison {
    Weak,
    Strong,
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}
