//! The access log: one line for each request, written when its response has ended. Text from a request is escaped, so that it
//! cannot forge a line.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use clap::{Args, ValueEnum};
use handover::Handle;
use hyper::body::{Body, Buf, Frame, SizeHint};
use hyper::{Method, Request, StatusCode, Version};
use pin_project_lite::pin_project;

use super::log::cannot_open;
use super::log_file;
use super::log_writer::{Flush, LogWriter};
use super::reopen::LogFiles;

#[derive(Debug, Args)]
pub(crate) struct AccessOptions {
    /// Write a line for each request, in the common log format or as JSON
    #[arg(long, value_name = "FORM", default_value = "off")]
    access_log: Form,
    /// Append the access log to this file instead of stdout. Rotate it like the log file
    #[arg(long, value_name = "FILE")]
    access_log_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Off,
    Common,
    Json,
}

/// How many lines may wait for a slow reader.
const QUEUE: usize = 16 * 1024;
/// How long lines may wait to be written together.
const PAUSE: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(crate) struct AccessLog {
    form: Form,
    lines: LogWriter,
    handle: Handle,
}

impl AccessOptions {
    /// Returns the file of the access log, if the log is on and goes to a file.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.access_log_file.as_deref().filter(|_| self.access_log != Form::Off)
    }

    /// Opens the access log; `None` if it is off. Dropping the `Flush` writes the lines that are left.
    pub(crate) fn open(
        &self,
        handle: &Handle,
        files: &LogFiles,
    ) -> Result<Option<(Arc<AccessLog>, Flush)>, String> {
        if self.access_log == Form::Off {
            return Ok(None);
        }
        let out: Box<dyn io::Write + Send> = match &self.access_log_file {
            None => Box::new(io::stdout()),
            Some(path) => Box::new(
                log_file::append(path, true).map_err(|error| cannot_open("access log", path, &error))?,
            ),
        };
        let (lines, flush) = LogWriter::begin("access log", QUEUE, PAUSE, out, |dropped| {
            tracing::warn!(
                dropped,
                "lines of the access log were dropped: they could not be written, or not soon enough"
            );
        });
        self.file().into_iter().for_each(|path| files.add(path.to_owned(), lines.clone()));
        let log = AccessLog { form: self.access_log, lines, handle: handle.clone() };
        Ok(Some((Arc::new(log), flush)))
    }
}

/// One request; its line is written when this is dropped.
#[derive(Debug)]
pub(crate) struct Record {
    log: Arc<AccessLog>,
    remote: SocketAddr,
    time: SystemTime,
    begun: Instant,
    method: Method,
    target: String,
    version: Version,
    /// `None` if the client left before there was a response.
    pub(crate) status: Option<StatusCode>,
    bytes: u64,
}

impl Record {
    pub(crate) fn begin<B>(log: &Arc<AccessLog>, client: SocketAddr, request: &Request<B>) -> Record {
        // In HTTP/2 every target has a scheme and an authority, so only its path is logged. In HTTP/1 the target is logged as
        // the client sent it.
        let (uri, is_http2) = (request.uri(), request.version() >= Version::HTTP_2);
        let target = match uri.path_and_query() {
            Some(path) if is_http2 || uri.authority().is_none() => path.as_str().to_owned(),
            _ => uri.to_string(),
        };
        Record {
            log: Arc::clone(log),
            remote: client,
            time: SystemTime::now(),
            begun: Instant::now(),
            method: request.method().clone(),
            target,
            version: request.version(),
            status: None,
            bytes: 0,
        }
    }

    fn common(&self) -> String {
        let mut line = String::with_capacity(128 + self.target.len());
        // Writing to a String cannot fail.
        let _ = write!(line, "{}", self.remote.ip());
        // The slices cannot panic: the format `Sun, 06 Nov 1994 08:49:37 GMT` has a fixed length.
        let date = httpdate::fmt_http_date(self.time);
        let (day, month, year, clock) = (&date[5..7], &date[8..11], &date[12..16], &date[17..25]);
        let method = self.method.as_str();
        line.extend([" - - [", day, "/", month, "/", year, ":", clock, " +0000] \"", method, " "]);
        quote(&self.target, &mut line);
        let _ = write!(line, " {:?}\" ", self.version);
        let _ = match &self.status {
            Some(status) => line.write_str(status.as_str()),
            None => line.write_char('-'),
        };
        let _ = match self.bytes {
            0 => line.write_str(" -\n"),
            bytes => writeln!(line, " {bytes}"),
        };
        line
    }

    fn json(&self) -> String {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let or_null = |known: Option<String>| known.unwrap_or_else(|| "null".into());
        format!(
            "{{\"time\":\"{}\",\"remote\":{},\"method\":{},\"target\":{},\"version\":\"{:?}\",\"status\":{},\
             \"bytes\":{},\"duration_ms\":{:.3},\"generation\":{},\"pid\":{}}}\n",
            humantime::format_rfc3339_millis(self.time),
            text(&self.remote.to_string()),
            text(self.method.as_str()),
            text(&self.target),
            self.version,
            or_null(self.status.map(|status| status.as_u16().to_string())),
            self.bytes,
            self.begun.elapsed().as_secs_f64() * 1000.0,
            self.log.handle.generation(),
            std::process::id(),
        )
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let line = match self.log.form {
            Form::Json => self.json(),
            Form::Common | Form::Off => self.common(),
        };
        self.log.lines.put(line.into_bytes());
    }
}

/// Escapes text for a quoted field: quotation marks, backslashes and every byte that is not printable ASCII.
fn quote(text: &str, into: &mut String) {
    let needs_escape = |byte: u8| matches!(byte, b'"' | b'\\') || !matches!(byte, b' '..=b'~');
    if !text.bytes().any(needs_escape) {
        return into.push_str(text);
    }
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => into.extend(['\\', byte.into()]),
            b' '..=b'~' => into.push(byte.into()),
            _ => write!(into, "\\x{byte:02x}").expect("writing to a String cannot fail"),
        }
    }
}

pin_project! {
    /// A response body that counts its bytes. Its drop ends the request and writes the line.
    #[derive(Debug)]
    pub(crate) struct Recorded<B> {
        record: Option<Record>,
        #[pin]
        body: B,
    }
}

impl<B> Recorded<B> {
    pub(crate) fn new(record: Option<Record>, body: B) -> Recorded<B> {
        Recorded { record, body }
    }
}

impl<B: Body> Body for Recorded<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        if let (Some(record), Some(Ok(frame))) = (this.record, &frame)
            && let Some(data) = frame.data_ref()
        {
            record.bytes += data.remaining() as u64;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
