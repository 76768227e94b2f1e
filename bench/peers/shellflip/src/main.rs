//! A server on shellflip, after its example `restarter`: with `restart` as second argument it asks the running process to start
//! a successor. When the successor is ready, the old process closes its listener and ends its connections. Listeners are not
//! inherited, so both listen side by side.

use std::pin::pin;
use std::sync::Arc;

use hyper_util::server::graceful::GracefulConnection;
use peer_common::{PATIENCE, address, connection, listen_beside};
use shellflip::{RestartConfig, ShutdownCoordinator, ShutdownHandle, ShutdownSignal};
use tokio::net::TcpStream;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = RestartConfig {
        enabled: true,
        coordination_socket_path: "restart.sock".into(),
        exit_on_error: false,
        ..RestartConfig::default()
    };
    if std::env::args().nth(2).is_some_and(|command| command == "restart") {
        println!("{}", config.request_restart().await?);
        return Ok(());
    }
    let listener = listen_beside(address())?;
    let mut restarted = pin!(config.try_into_restart_task()?);
    let shutdown = ShutdownCoordinator::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(serve(stream, shutdown.handle()));
                }
            }
            restarted = &mut restarted => {
                restarted?;
                break;
            }
        }
    }
    drop(listener);
    shutdown.shutdown_with_timeout(PATIENCE.as_secs()).await;
    Ok(())
}

/// Serves a connection, and holds the handle until it ends: the coordinator waits for all handles.
async fn serve(stream: TcpStream, handle: Arc<ShutdownHandle>) {
    let mut shutdown = ShutdownSignal::from(&*handle);
    let mut connection = pin!(connection(stream));
    tokio::select! {
        _ = &mut connection => return,
        () = shutdown.on_shutdown() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
