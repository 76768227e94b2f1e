//! Bare hyper that ends its connections on TERM, and allows another process to listen beside it.
//!
//! A restart starts a new process and then ends the old one, or the other way round.

use peer_common::{Connections, address, listen_beside, write_pid_file};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = listen_beside(address())?;
    write_pid_file()?;
    let connections = Connections::default();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.serve(stream);
                }
            }
            _ = terminate.recv() => break,
        }
    }
    drop(listener);
    connections.end().await;
    Ok(())
}
