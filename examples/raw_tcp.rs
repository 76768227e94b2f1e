//! A protocol of one's own over TCP: lines are sent back, and a generation that retires says goodbye.
//!
//! `cargo run --example raw_tcp`, in a second terminal `nc localhost 7000` and a few lines, then `kill -HUP` the pid that the
//! server logs: `nc` says goodbye, and the next one speaks to generation 2.

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
    // Connect to the database, fill the caches: the predecessor serves until here.
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
        // `read_until` keeps what it has read in `line`, so nothing is lost when the other branch is taken.
        tokio::select! {
            read = conn.read_until(b'\n', &mut line) => if read? == 0 { return Ok(()) },
            () = retiring.wait(), if line.is_empty() => {
                conn.write_all(b"goodbye\n").await?;
                conn.shutdown().await?;
                // Until the client has closed too: a close with unread input is a reset, and that destroys the goodbye.
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
