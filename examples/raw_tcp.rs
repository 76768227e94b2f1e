//! A custom protocol over TCP: the server echoes lines, and a retiring generation sends `goodbye` to its clients.
//!
//! Run `cargo run --example raw_tcp`, in a second terminal `nc localhost 7000`, and type a few lines. Then `kill -HUP` the pid
//! that the server logs: `nc` prints `goodbye`, and the next `nc` is answered by generation 2.

use std::io;
use std::time::Duration;

use handover::{Conn, Retiring, Server};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream, copy, sink};
use tokio::time::timeout;

#[tokio::main]
async fn main() -> Result<(), handover::Error> {
    tracing_subscriber::fmt().json().flatten_event(true).with_writer(io::stderr).init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());

    let server = Server::bind(&*address);
    let handle = server.handle();
    let mut listener = server.listen().await?;
    // Warm up here, before `ready`: connect to the database, fill the caches. The predecessor serves meanwhile.
    listener.ready();
    while let Some(conn) = listener.accept().await {
        let (retiring, generation) = (listener.retiring(), handle.generation());
        tokio::spawn(async move {
            let peer = conn.connect_info().remote();
            if let Err(error) = echo(conn, retiring, generation).await {
                tracing::debug!(%error, %peer, "a connection ended early");
            }
        });
    }
    listener.finish().await?;
    Ok(())
}

async fn echo(conn: Conn, mut retiring: Retiring, generation: u64) -> io::Result<()> {
    let mut conn = BufStream::new(conn);
    let mut line = Vec::new();
    loop {
        // `read_until` stores partial input in `line`, so cancelling it loses nothing.
        tokio::select! {
            read = conn.read_until(b'\n', &mut line) => if read? == 0 { return Ok(()) },
            () = retiring.wait(), if line.is_empty() => {
                conn.write_all(b"goodbye\n").await?;
                conn.shutdown().await?;
                // Wait until the client has closed too: closing a socket with unread input sends RST, which can destroy the
                // goodbye.
                let _ = timeout(Duration::from_secs(5), copy(&mut conn, &mut sink())).await;
                return Ok(());
            }
        }
        conn.write_all(format!("generation={generation} ").as_bytes()).await?;
        conn.write_all(&line).await?;
        conn.flush().await?;
        line.clear();
    }
}
