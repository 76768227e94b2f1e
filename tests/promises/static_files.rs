//! `handover ROOT` serves what is in ROOT at the time of the request: nothing stale, nothing mixed, nothing outside.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use support::harness::{Client, QUICK};
use support::process::{Server, command};
use tempfile::TempDir;

use crate::HANDOVER;

mod answers;
mod changes;
mod hung;
mod systems;

/// A server of a ROOT.
struct Bed {
    dir: TempDir,
    server: Server,
}

impl Bed {
    fn start(args: &[&str]) -> Bed {
        Bed::start_in(tempfile::tempdir().expect("a directory"), args, Server::start)
    }

    fn start_in(dir: TempDir, args: &[&str], start: impl FnOnce(Command) -> Server) -> Bed {
        std::fs::create_dir(dir.path().join("root")).expect("writable");
        let mut started = command(HANDOVER);
        started.args(QUICK).args(args).arg(dir.path().join("root"));
        Bed { server: start(started), dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("root").join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).expect("writable");
    }

    /// Replaces a file as a deployment does.
    fn replace(&self, name: &str, content: impl AsRef<[u8]>) {
        let draft = self.dir.path().join("draft");
        std::fs::write(&draft, content).expect("writable");
        std::fs::rename(draft, self.path(name)).expect("writable");
    }

    fn get(&self, target: &str, fields: &[&str]) -> Response {
        get(self.server.address(), target, fields)
    }
}

/// A whole response, to the end of its connection.
struct Response {
    head: String,
    body: Vec<u8>,
}

impl Response {
    fn of(bytes: &[u8]) -> Response {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(bytes[..end].to_vec()).expect("ASCII");
        Response { head, body: bytes[end + 4..].to_vec() }
    }

    fn status(&self) -> u16 {
        self.head[9..12].parse().expect("a status")
    }

    fn field(&self, name: &str) -> &str {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(field, _)| *field == name).map(|(_, value)| value).next().unwrap_or_default()
    }

    fn is_whole(&self) -> bool {
        self.field("content-length") == self.body.len().to_string()
    }
}

fn request(target: &str, fields: &[&str]) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("GET {target} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n{fields}\r\n")
}

fn get(addr: SocketAddr, target: &str, fields: &[&str]) -> Response {
    let mut client = Client::connect(addr);
    client.write(request(target, fields));
    Response::of(&read_all(&mut client))
}

/// Reads to the end of the connection, however it ends.
fn read_all(client: &mut Client) -> Vec<u8> {
    let mut all = vec![];
    let _ = std::io::Read::read_to_end(&mut client.0, &mut all);
    all
}

/// Bytes without a pattern, so that none can be taken for others.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(bytes).collect()
}
