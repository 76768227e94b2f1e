//! A server on ecdysis, after its example `tokio_echo`: on HUP it starts a successor, which inherits the listener; when the
//! successor is ready, the old process stops accepting and ends its connections.

use ecdysis::tokio_ecdysis::{SignalKind, StopOnShutdown, TokioEcdysisBuilder};
use futures_util::StreamExt;
use peer_common::{BACKLOG, Connections, PID_FILE, address};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut builder = TokioEcdysisBuilder::new(SignalKind::hangup())?;
    builder.stop_on_signal(SignalKind::terminate())?;
    builder.set_pid_file(PID_FILE);
    let mut accepted = builder.build_listen_tcp(StopOnShutdown::Yes, address(), |socket, address| {
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG as i32)?;
        Ok(socket.into())
    })?;
    let serving = tokio::spawn(async move {
        let connections = Connections::default();
        while let Some(accepted) = accepted.next().await {
            if let Ok(stream) = accepted {
                connections.serve(stream);
            }
        }
        drop(accepted);
        connections.end().await;
    });
    let (_ecdysis, exit) = builder.ready()?;
    exit.await.map_err(std::io::Error::other)?;
    serving.await?;
    Ok(())
}
