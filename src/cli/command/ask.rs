//! One request to one control socket. HTTP/1.0, so that an answer ends where the connection does, whether it comes at once
//! or line by line.

use std::io::{self, BufRead, BufReader, Lines, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use handover::control::protocol::{LINES, Refusal, Step};
use serde::de::DeserializeOwned;

/// No answer is longer.
const LARGEST: u64 = 16 << 20;

/// An answer of which the head has come.
pub(crate) struct Answer {
    pub(crate) code: u16,
    body: BufReader<UnixStream>,
}

/// Asks, and waits for the head of the answer; for each piece of it as long as `patience`.
pub(crate) fn ask(
    socket: &Path,
    method: &str,
    target: &str,
    patience: Option<Duration>,
) -> io::Result<Answer> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(patience)?;
    stream.set_write_timeout(patience)?;
    (&stream).write_all(
        format!("{method} {target} HTTP/1.0\r\nhost: control\r\naccept: {LINES}\r\n\r\n").as_bytes(),
    )?;
    let mut body = BufReader::new(stream);
    let mut line = String::new();
    body.read_line(&mut line)?;
    let code = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.ok_or(io::ErrorKind::UnexpectedEof)?;
    loop {
        line.clear();
        if body.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.trim_end().is_empty() {
            return Ok(Answer { code, body });
        }
    }
}

impl Answer {
    /// The answer as one value.
    pub(crate) fn value<T: DeserializeOwned>(mut self) -> io::Result<T> {
        let mut text = Vec::new();
        self.body.by_ref().take(LARGEST).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Why it was refused.
    pub(crate) fn error(self) -> String {
        let refusal = self.value().unwrap_or(Refusal { error: String::new() });
        if refusal.error.is_empty() { "it does not say why".to_owned() } else { refusal.error }
    }

    /// The answer as it comes. It ends early if who answers dies.
    pub(crate) fn steps(self) -> Steps {
        Steps(self.body.lines())
    }
}

pub(crate) struct Steps(Lines<BufReader<UnixStream>>);

impl Iterator for Steps {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        serde_json::from_str(&self.0.next()?.ok()?).ok()
    }
}
