//! Clients that do not read or that request a lot cannot exhaust the resources that other clients need.

use std::collections::HashMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;

use support::frames::{DATA, END_HEADERS, END_STREAM, Frame, HEADERS, PREFACE, RST_STREAM, SETTINGS};
use support::harness::QUICK;
use support::process::{PATIENCE, Server, command};
use tempfile::TempDir;

use crate::HANDOVER;

mod compression;
mod descriptors;
mod files;
mod gave_up;
mod listings;

/// The number of streams on each connection of a greedy client.
const STREAMS: u32 = 100;
const WINDOW_UPDATE: u8 = 8;

/// A ROOT with a control directory beside it.
struct Bed {
    dir: TempDir,
}

impl Bed {
    fn make() -> Bed {
        let bed = Bed { dir: tempfile::tempdir().expect("a directory") };
        std::fs::create_dir(bed.path("root")).expect("writable");
        bed.file("index.html", "generation=0 ROOT\n");
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path("root").join(name), content).expect("writable");
    }

    /// Starts the server with `descriptors` as both its soft and its hard limit, so that it cannot raise the limit.
    fn start(&self, descriptors: u32, args: &[&str]) -> Server {
        let mut started = command("sh");
        started.args(["-c", "ulimit -n $0; exec \"$@\""]).arg(descriptors.to_string()).arg(HANDOVER);
        started.args(QUICK).args(args).arg("--control").arg(self.path("control")).arg(self.path("root"));
        Server::start(started)
    }

    /// Returns the output of `handover status`: a row with the phase of each generation that answers.
    fn status(&self) -> String {
        let mut asked = command("timeout");
        asked.args(["20", HANDOVER, "status", "--control"]).arg(self.path("control"));
        let output = asked.stdout(Stdio::piped()).output().expect("it starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// An HTTP/2 connection with a window of one byte per stream; that byte has been read from each.
struct Stalled {
    stream: TcpStream,
    received: HashMap<u32, Vec<u8>>,
}

impl Stalled {
    /// Opens the streams and returns when every response has begun.
    fn begin(addr: SocketAddr, path: &str, accepts: &str, streams: u32) -> Stalled {
        let stream = TcpStream::connect(addr).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut stalled = Stalled { stream, received: HashMap::new() };
        let window_of_one = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]);
        let requests = (0..streams)
            .flat_map(|n| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &request(path, accepts)));
        let hello: Vec<u8> = PREFACE.iter().copied().chain(window_of_one).chain(requests).collect();
        stalled.stream.write_all(&hello).expect("the server reads");
        while stalled.received.values().filter(|received| !received.is_empty()).count() < streams as usize {
            let frame = stalled.next();
            assert_ne!(frame.kind, RST_STREAM, "stream {} is refused", frame.stream);
        }
        stalled
    }

    fn next(&mut self) -> Frame {
        let frame = Frame::read(&mut self.stream).expect("the server answers");
        let frame = frame.expect("the server keeps the connection");
        if frame.kind == DATA {
            self.received.entry(frame.stream).or_default().extend(&frame.payload);
        }
        frame
    }

    /// Reads one response to its end; returns `None` if the stream is reset.
    fn finish(mut self, stream: u32) -> Option<Vec<u8>> {
        for of in [0, stream] {
            let much = (1_u32 << 30).to_be_bytes();
            self.stream.write_all(&frame(WINDOW_UPDATE, 0, of, &much)).expect("the server reads");
        }
        loop {
            let frame = self.next();
            if frame.stream == stream && frame.kind == RST_STREAM {
                return None;
            } else if frame.stream == stream && frame.ends_stream() {
                return self.received.remove(&stream);
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    Frame { kind, flags, stream, payload: payload.to_vec() }.to_bytes()
}

/// Encodes a GET request with HPACK's static table and without Huffman coding.
fn request(path: &str, accepts: &str) -> Vec<u8> {
    let literal = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    // :method GET and :scheme http are indexed; :path, :authority and accept-encoding are literals without indexing.
    [&[0x82, 0x86, 0x04][..], &literal(path), &[0x01], &literal("t"), &[0x0f, 0x01], &literal(accepts)]
        .concat()
}

/// A text that compression shrinks only a little.
fn text(bytes: usize) -> String {
    let mut random = fastrand::Rng::with_seed(15);
    std::iter::repeat_with(|| random.alphanumeric()).take(bytes).collect()
}
