//! Slow transfers of bodies, each on a separate connection, checked to the last byte and the server's FIN.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

use super::exchange::{Head, broken, connect, unconnected};
use super::target::GENERATION;

const PIECES: usize = 16;
/// The receive buffer of a client.
const WINDOW: u32 = 64 * 1024;
/// The segment size of Ethernet. With the large segments of loopback a server can send far more than a window at once.
const SEGMENT: u32 = 1460;

/// Sends a body in pieces while reading it back; returns the generation that answered.
pub(super) async fn upload(
    tls: Option<&TlsConnector>,
    addr: SocketAddr,
    bytes: usize,
    over: Duration,
) -> Result<u64, &'static str> {
    // The period is prime, so no piece equals another.
    let body: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
    let (mut from, mut to) = tokio::io::split(connect(tls, addr).await?);
    let sending = async {
        let head = format!(
            "POST /echo HTTP/1.1\r\nhost: load\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n"
        );
        to.write_all(head.as_bytes()).await?;
        for piece in body.chunks(bytes.div_ceil(PIECES)) {
            sleep(over / PIECES as u32).await;
            to.write_all(piece).await?;
            to.flush().await?;
        }
        Ok(())
    };
    let sending = async { sending.await.map_err(|e: io::Error| broken(&e, "reset while sending")) };
    let (generation, ()) = tokio::try_join!(whole(&mut from, &body, Duration::ZERO), sending)?;
    Ok(generation)
}

/// Reads `body` in pieces from a server without TLS, slowly enough to take `over`; returns the generation that answered, which
/// the header `generation` names.
pub async fn download(
    addr: SocketAddr,
    path: &str,
    body: &[u8],
    over: Duration,
) -> Result<u64, &'static str> {
    let mut stream = connect_narrow(addr, WINDOW).await.map_err(|e| unconnected(&e))?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: load\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|e| broken(&e, "reset while sending"))?;
    whole(&mut stream, body, over).await
}

/// Connects with a small receive buffer. With 64 KiB the kernels then buffer about 1 MiB; otherwise they would take most of a
/// body from the server at once.
pub async fn connect_narrow(addr: SocketAddr, window: u32) -> io::Result<TcpStream> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_recv_buffer_size(window)?;
    SockRef::from(&socket).set_tcp_mss(SEGMENT)?;
    socket.connect(addr).await
}

/// Reads an answer up to the end of the connection, slowly enough to take `over`, and compares it with `body`.
async fn whole(
    from: &mut (impl AsyncRead + Unpin),
    body: &[u8],
    over: Duration,
) -> Result<u64, &'static str> {
    let mut answer = Vec::with_capacity(body.len() + 512);
    let began = Instant::now();
    let ended = loop {
        match from.take(body.len().div_ceil(PIECES) as u64).read_buf(&mut answer).await {
            Ok(0) => break Ok(()),
            Ok(_) => {}
            Err(_) if answer.is_empty() => break Err("reset before the answer"),
            Err(_) => break Err("not closed properly after the answer"),
        }
        let due = over.mul_f64(answer.len() as f64 / body.len() as f64);
        sleep(due.saturating_sub(began.elapsed())).await;
    };
    if answer.is_empty() {
        return Err(ended.err().unwrap_or("closed before the answer"));
    }
    let (head, got) = Head::split(&answer)?.ok_or("cut within the answer")?;
    if got.len() < body.len() {
        return Err("cut within the answer");
    }
    if got != body {
        return Err("bad answer");
    }
    ended?;
    head.get(GENERATION).and_then(|who| who.parse().ok()).ok_or("bad answer")
}
