//! Every kind of exchange in flight over handovers, together, and over a stop.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Client, start};
use crate::process::{Server, signal};

const STREAMS: usize = 50;

/// Many exchanges of one kind; the first that fails ends them with what went wrong.
struct Kind {
    name: &'static str,
    thread: JoinHandle<Result<u64, String>>,
}

impl Kind {
    /// `exchange` is done again and again until `stop`, each time from the beginning.
    fn again_and_again(
        name: &'static str,
        stop: &Arc<AtomicBool>,
        mut exchange: impl FnMut() -> Result<(), String> + Send + 'static,
    ) -> Kind {
        let stop = Arc::clone(stop);
        let thread = std::thread::spawn(move || {
            let mut done = 0;
            while !stop.load(Ordering::SeqCst) {
                exchange().map_err(|why| format!("after {done}: {why}"))?;
                done += 1;
            }
            Ok(done)
        });
        Kind { name, thread }
    }

    fn finish(self, server: &Server) {
        let done = self.thread.join().unwrap_or_else(|_| Err("it panicked".to_owned()));
        match done {
            Ok(done) => assert!(done > 0, "{}: no exchange was completed", self.name),
            Err(why) => panic!("{}: {why}\n{}", self.name, server.log().history()),
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn connect(addr: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(addr).map_err(text)?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).map_err(text)?;
    Ok(stream)
}

/// Reads everything until the server closes.
fn rest(mut stream: TcpStream) -> Result<String, String> {
    let mut all = String::new();
    stream.read_to_string(&mut all).map_err(text)?;
    Ok(all)
}

fn whole(answer: &str, end: &str) -> Result<(), String> {
    let good = answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(end);
    if good { Ok(()) } else { Err(format!("not whole: {answer:?}")) }
}

/// Three requests in one write: all are answered, on this connection.
fn pipelined(addr: SocketAddr) -> Result<(), String> {
    let mut stream = connect(addr)?;
    let one = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";
    let last = "GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    stream.write_all(format!("{one}{one}{last}").as_bytes()).map_err(text)?;
    let answers = rest(stream)?;
    match answers.matches("generation=").count() {
        3 => Ok(()),
        n => Err(format!("{n} of 3 answers: {answers:?}")),
    }
}

/// 8 KiB, 1 KiB at a time over `time`, which come back.
fn slow_upload(addr: SocketAddr, time: Duration) -> Result<(), String> {
    let mut stream = connect(addr)?;
    let head = "POST /echo HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: 8192\r\n\r\n";
    stream.write_all(head.as_bytes()).map_err(text)?;
    for _ in 0..8 {
        std::thread::sleep(time / 8);
        stream.write_all(&[b'u'; 1024]).map_err(text)?;
    }
    let answer = rest(stream)?;
    whole(&answer, "uuuuuuuu")?;
    match answer.matches('u').count() {
        8192.. => Ok(()),
        n => Err(format!("{n} of 8192 bytes came back")),
    }
}

/// A reader at `rate` bytes a second.
fn slow_download(addr: SocketAddr, bytes: usize, rate: usize) -> Result<(), String> {
    let mut stream = connect(addr)?;
    let request = format!("GET /bytes?n={bytes} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(text)?;
    let (mut got, began) = (0, Instant::now());
    let mut chunk = [0; 16 * 1024];
    loop {
        let n = stream.read(&mut chunk).map_err(|e| format!("{e} after {got} bytes"))?;
        got += n;
        if n == 0 {
            return if got > bytes { Ok(()) } else { Err(format!("{got} of {bytes} bytes")) };
        }
        let due = Duration::from_secs_f64(got as f64 / rate as f64);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
}

fn chunked(addr: SocketAddr) -> Result<(), String> {
    let mut stream = connect(addr)?;
    let request = "GET /stream?n=30&ms=50 HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).map_err(text)?;
    whole(&rest(stream)?, "0 to go\n\r\n0\r\n\r\n")
}

/// Requests with pauses; looks whether the server has closed before each, as clients do.
fn pausing(addr: SocketAddr, kept: &mut Option<Client>, pause: Duration) -> Result<(), String> {
    std::thread::sleep(pause);
    let open = |client: &Client| {
        let stream = &client.0;
        stream.set_nonblocking(true).expect("a socket");
        let open = matches!(stream.peek(&mut [0; 1]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock);
        stream.set_nonblocking(false).expect("a socket");
        open
    };
    let mut client = match kept.take().filter(open) {
        Some(client) => client,
        None => Client(connect(addr)?),
    };
    let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| client.get("/")));
    let answer = answer.map_err(|_| "no answer".to_owned())?;
    whole(&answer, "\n")?;
    *kept = (!answer.contains("connection: close")).then_some(client);
    Ok(())
}

/// One HTTP/2 connection with 50 requests at a time, until the server says GOAWAY. What was sent is answered.
async fn h2_connection(addr: SocketAddr, stop: &Arc<AtomicBool>) -> Result<(), String> {
    let stream = tokio::net::TcpStream::connect(addr).await.map_err(text)?;
    let (client, connection) = h2::client::handshake(stream).await.map_err(text)?;
    let driver = tokio::spawn(connection);
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..STREAMS {
        streams.spawn(h2_requests(client.clone(), addr, Arc::clone(stop)));
    }
    drop(client);
    let mut failed = None;
    while let Some(done) = streams.join_next().await {
        failed = failed.or(done.map_err(text)?.err());
    }
    driver.abort();
    failed.map_or(Ok(()), Err)
}

async fn h2_requests(
    client: h2::client::SendRequest<hyper::body::Bytes>,
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
) -> Result<(), String> {
    while !stop.load(Ordering::SeqCst) {
        // Not ready any more: the server has said GOAWAY, before anything was sent.
        let Ok(mut ready) = client.clone().ready().await else { return Ok(()) };
        let request = hyper::Request::get(format!("http://{addr}/slow?ms=2")).body(()).expect("a request");
        let Ok((response, _)) = ready.send_request(request, true) else { return Ok(()) };
        let mut body = response.await.map_err(|e| format!("sent, not answered: {e}"))?.into_body();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.map_err(|e| format!("answered, cut: {e}"))?;
            body.flow_control().release_capacity(chunk.len()).map_err(text)?;
        }
    }
    Ok(())
}

fn h2_streams(addr: SocketAddr, stop: &Arc<AtomicBool>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
    runtime.block_on(h2_connection(addr, stop))
}

fn all_kinds(addr: SocketAddr, stop: &Arc<AtomicBool>) -> Vec<Kind> {
    let mut random = fastrand::Rng::with_seed(7);
    let (mut kept, mut busy) = (None, None);
    let stopped = Arc::clone(stop);
    vec![
        Kind::again_and_again("keep-alive, pauses up to 3 times the grace", stop, move || {
            pausing(addr, &mut kept, Duration::from_millis(random.u64(0..1500)))
        }),
        Kind::again_and_again("keep-alive without pauses", stop, move || {
            pausing(addr, &mut busy, Duration::ZERO)
        }),
        Kind::again_and_again("pipelining", stop, move || pipelined(addr)),
        Kind::again_and_again("upload over 8 s", stop, move || slow_upload(addr, Duration::from_secs(8))),
        Kind::again_and_again("upload over 1 s", stop, move || slow_upload(addr, Duration::from_secs(1))),
        Kind::again_and_again("slow reader", stop, move || slow_download(addr, 4 << 20, 512 << 10)),
        Kind::again_and_again("chunks", stop, move || chunked(addr)),
        Kind::again_and_again("HTTP/2, 50 streams", stop, move || h2_streams(addr, &stopped)),
    ]
}

#[test]
fn every_kind_of_exchange_survives_ten_handovers() {
    let server = start(&["--idle-grace", "500ms"]);
    let stop = Arc::new(AtomicBool::new(false));
    let kinds = all_kinds(server.address(), &stop);
    let mut pid = server.first_pid();
    for generation in 1..=10 {
        std::thread::sleep(Duration::from_millis(700));
        signal(pid, Signal::SIGHUP);
        pid = server.wait_serving(generation + 1);
        server.wait_state(generation, "draining");
    }
    stop.store(true, Ordering::SeqCst);
    kinds.into_iter().for_each(|kind| kind.finish(&server));
    let lines = server.log().lines();
    let cut: Vec<_> = lines.iter().filter(|l| l.json["cut"].as_u64().is_some_and(|cut| cut > 0)).collect();
    assert!(cut.is_empty(), "{cut:?}");
}
