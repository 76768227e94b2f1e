//! The memory that the server needs for each client that requests a large file and then reads nothing.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use support::load::connect_narrow;
use support::process::Server;
use support::resources::{pss_mib, rss_mib};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::site::{LARGE, Site};
use crate::growth::raise_descriptors;

/// The receive buffer of a reader.
const WINDOW: u32 = 4096;
/// The time until the server has sent what the kernel takes.
const SETTLE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    readers: usize,
    rss_before_mib: f64,
    rss_mib: f64,
    /// The resident memory for each reader.
    kib_per_connection: f64,
    /// The proportional memory for each reader.
    pss_kib_per_connection: f64,
    /// The readers without the head of an answer.
    pub(super) failed: u64,
}

/// Measures with this number of readers. The default limit of connections is half of the descriptors, and the default timeout of
/// a client that reads nothing may be shorter than the measurement.
pub(super) async fn memory(readers: usize) -> Memory {
    println!("\n  files-memory: {readers} clients that request 10 MB and read only the head of the answer");
    raise_descriptors();
    let site = Site::new();
    let mut command = site.command();
    command.args(["--max-connections", &(readers + 1000).to_string(), "--send-timeout", "10m"]);
    let server = Server::start(command);
    let pid = server.first_pid();
    let before = (rss_mib(pid), pss_mib(pid));
    let (mut open, mut failed) = (Vec::with_capacity(readers), 0);
    for _ in 0..readers {
        match timeout(PATIENCE, begin(server.address())).await {
            Ok(Ok(stream)) => open.push(stream),
            _ => failed += 1,
        }
    }
    sleep(SETTLE).await;
    let after = (rss_mib(pid), pss_mib(pid));
    let each = |before: f64, after: f64| (after - before) * 1024.0 / open.len() as f64;
    let memory = Memory {
        readers,
        rss_before_mib: before.0,
        rss_mib: after.0,
        kib_per_connection: each(before.0, after.0),
        pss_kib_per_connection: each(before.1, after.1),
        failed,
    };
    memory.print();
    memory
}

/// Requests the large file, and reads until the answer has begun.
async fn begin(addr: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = connect_narrow(addr, WINDOW).await?;
    let request = format!("GET /{} HTTP/1.1\r\nhost: load\r\n\r\n", LARGE.name);
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; 13];
    stream.read_exact(&mut head).await?;
    if &head == b"HTTP/1.1 200 " { Ok(stream) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

impl Memory {
    fn print(&self) {
        println!(
            "  RSS {:.1} MiB before, {:.1} MiB with them: {:.1} KiB per connection (Pss: {:.1} KiB)   failed {}",
            self.rss_before_mib,
            self.rss_mib,
            self.kib_per_connection,
            self.pss_kib_per_connection,
            self.failed
        );
    }
}
