//! Compressed files that lie beside the plain ones, and which of them a client accepts.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

use hyper::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};

/// In the order in which they are preferred, from the smallest file on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Zstd,
    Brotli,
    Gzip,
}

impl Encoding {
    fn of(token: &str) -> Option<Encoding> {
        [
            ("zstd", Encoding::Zstd),
            ("br", Encoding::Brotli),
            ("gzip", Encoding::Gzip),
            ("x-gzip", Encoding::Gzip),
        ]
        .into_iter()
        .find(|(name, _)| token.eq_ignore_ascii_case(name))
        .map(|(_, encoding)| encoding)
    }

    pub(super) fn name(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Encoding::Zstd => "zstd",
            Encoding::Brotli => "br",
            Encoding::Gzip => "gzip",
        })
    }

    /// Returns the path of the file that is compressed in this way.
    pub(super) fn beside(self, plain: &Path) -> PathBuf {
        let mut path = plain.as_os_str().to_owned();
        path.push(match self {
            Encoding::Zstd => ".zst",
            Encoding::Brotli => ".br",
            Encoding::Gzip => ".gz",
        });
        path.into()
    }
}

/// Returns the encodings that a client accepts and does not like less than the plain file, the best one first.
pub(super) fn accepted(headers: &HeaderMap) -> Vec<Encoding> {
    let lines = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    let (mut encodings, mut plain) = (vec![], 0);
    for one in lines.flat_map(|line| line.split(',')) {
        let (token, quality) = one.split_once(';').unwrap_or((one, "q=1"));
        let (token, quality) = (token.trim(), thousandths(quality.trim()));
        match Encoding::of(token) {
            Some(encoding) if quality > 0 => encodings.push((quality, encoding)),
            _ if token.eq_ignore_ascii_case("identity") => plain = quality,
            _ => {}
        }
    }
    encodings.retain(|(quality, _)| *quality >= plain);
    encodings.sort_by_key(|(quality, encoding)| (Reverse(*quality), *encoding as u8));
    encodings.dedup();
    encodings.into_iter().map(|(_, encoding)| encoding).collect()
}

/// Returns a weight in thousandths; 0, which means "not acceptable", for what is not a weight.
fn thousandths(weight: &str) -> u32 {
    let value = weight.strip_prefix("q=").or_else(|| weight.strip_prefix("Q=")).unwrap_or_default();
    let (whole, part) = value.split_once('.').unwrap_or((value, ""));
    let digits = format!("{whole}{part:0<3}");
    let is_weight = matches!(whole, "0" | "1") && part.len() <= 3;
    digits.parse().ok().filter(|value| is_weight && *value <= 1000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encodings_of_a_client_are_in_the_order_of_its_weights_and_then_of_ours() {
        use Encoding::{Brotli, Gzip, Zstd};
        for (accepts, expected) in [
            ("gzip, deflate, br, zstd", &[Zstd, Brotli, Gzip][..]),
            ("gzip;q=1.0, br;q=0.5", &[Gzip, Brotli]),
            ("GZIP , x-gzip", &[Gzip]),
            ("br;q=0, gzip;q=0.001", &[Gzip]),
            ("identity;q=0.5, gzip;q=0.4, br;q=0.5", &[Brotli]),
            ("gzip;q=2, br;q=a, zstd;q=0.1234", &[]),
            ("*", &[]),
            ("", &[]),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(accepts));
            assert_eq!(accepted(&headers), expected, "{accepts:?}");
        }
    }
}
