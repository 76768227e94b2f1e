//! A protocol of one's own over TCP: lines are sent back, and a generation that retires says goodbye.
//!
//! `cargo run --example raw_tcp -- 127.0.0.1:7000`, then `nc localhost 7000`, then `kill -HUP` the pid it logs.

use std::io;
use std::time::Duration;

use handover::{Conn, Retiring, Server};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().json().flatten_event(true).with_writer(io::stderr).init();
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let standby = args.next().map_or(Ok(5000), |ms| ms.parse())?;

    let mut listener = Server::bind(&*address).standby(Duration::from_millis(standby)).listen().await?;
    // Connect to the database, fill the caches: the predecessor serves until here.
    listener.ready();
    while let Some(conn) = listener.accept().await {
        let retiring = listener.retiring();
        tokio::spawn(async move {
            let peer = conn.connect_info().remote();
            if let Err(error) = echo(conn, retiring).await {
                tracing::debug!(%error, %peer, "a connection ended early");
            }
        });
    }
    listener.finish().await?;
    Ok(())
}

async fn echo(conn: Conn, mut retiring: Retiring) -> io::Result<()> {
    let mut conn = BufStream::new(conn);
    let mut line = Vec::new();
    loop {
        // `read_until` keeps what it has read in `line`, so nothing is lost when the other branch is taken.
        tokio::select! {
            read = conn.read_until(b'\n', &mut line) => if read? == 0 { return Ok(()) },
            () = retiring.wait(), if line.is_empty() => {
                conn.write_all(b"goodbye\n").await?;
                return conn.shutdown().await;
            }
        }
        conn.write_all(format!("{}: ", std::process::id()).as_bytes()).await?;
        conn.write_all(&line).await?;
        conn.flush().await?;
        line.clear();
    }
}
