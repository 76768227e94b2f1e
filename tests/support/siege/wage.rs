//! One connection of an attack, from the connect to the end.

use std::collections::BTreeSet;
use std::future::pending;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant as Due, sleep_until};

use super::attacks::{Attack, More, Reads};
use super::sockets::Sockets;
use crate::frames::{ACK, Frame, PING, RST_STREAM, SETTINGS, frame};

/// The server's reaction to an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// The server closed or reset the connection.
    Closed,
    /// The server ended every stream, and keeps the connection.
    EndedStreams,
}

/// Attacks over one connection until the server reacts. Returns the reaction and the time until then.
pub async fn wage(attack: &Attack, addr: SocketAddr, sockets: &Sockets) -> io::Result<(Deed, Duration)> {
    let stream = connect(addr, attack.reads).await?;
    let (port, began) = (stream.local_addr()?.port(), Instant::now());
    let listening = async {
        match attack.reads {
            Reads::All => until_closed(&stream).await,
            Reads::Streams(streams) => until_ended(&stream, streams).await,
            Reads::Nothing => {
                sockets.given_up(port).await;
                Deed::Closed
            }
        }
    };
    let deed = tokio::select! {
        deed = listening => deed,
        () = send(&stream, attack) => unreachable!("sending never returns"),
    };
    Ok((deed, began.elapsed()))
}

async fn connect(addr: SocketAddr, reads: Reads) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if reads == Reads::Nothing {
        socket.set_recv_buffer_size(4096)?;
    }
    let stream = socket.connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends all bytes of the attack, and then waits for ever: the reading side notices the end.
async fn send(stream: &TcpStream, attack: &Attack) {
    let mut sent = write_all(stream, &(attack.opening)()).await;
    let mut number = 0;
    let mut due = Due::now();
    while let (Ok(()), Some(More { apart, batch, next })) = (&sent, attack.more) {
        due += apart;
        sleep_until(due).await;
        let all: Vec<u8> = (number..number + batch).flat_map(next).collect();
        sent = write_all(stream, &all).await;
        number += batch;
        // Batches that were missed while the server did not read are not made up for.
        due = due.max(Due::now() - apart);
    }
    pending::<()>().await;
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads some bytes; `None` when the server has ended the connection.
async fn read<'a>(stream: &TcpStream, chunk: &'a mut [u8]) -> Option<&'a [u8]> {
    loop {
        stream.readable().await.ok()?;
        match stream.try_read(chunk) {
            Ok(0) => return None,
            Ok(n) => return Some(&chunk[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
}

async fn until_closed(stream: &TcpStream) -> Deed {
    let mut chunk = vec![0; 64 * 1024];
    while read(stream, &mut chunk).await.is_some() {}
    Deed::Closed
}

async fn until_ended(stream: &TcpStream, streams: u32) -> Deed {
    let (mut chunk, mut come) = (vec![0; 16 * 1024], Vec::new());
    let mut open: BTreeSet<u32> = (0..streams).map(|n| 2 * n + 1).collect();
    while let Some(more) = read(stream, &mut chunk).await {
        come.extend_from_slice(more);
        while let Some(got) = Frame::take(&mut come) {
            let answer = match got.kind {
                SETTINGS if got.flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[]),
                PING if got.flags & ACK == 0 => frame(PING, ACK, 0, &got.payload),
                _ => vec![],
            };
            if write_all(stream, &answer).await.is_err() {
                return Deed::Closed;
            }
            if got.ends_stream() || got.kind == RST_STREAM {
                open.remove(&got.stream);
            }
        }
        if open.is_empty() {
            return Deed::EndedStreams;
        }
    }
    Deed::Closed
}
