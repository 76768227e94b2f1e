//! `Server` without HTTP: the program runs a custom accept loop and says when it is ready.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::engine::Engine;
use super::{Server, checked};
use crate::drain::{Conn, Retiring};
use crate::error::Error;
use crate::listeners::Serve;
use crate::report::Outcome;

/// The listening addresses of a generation, for a program with a custom accept loop.
///
/// ```no_run
/// # async fn greet(_: handover::Conn) {}
/// # async fn run() -> Result<(), handover::Error> {
/// let mut listener = handover::Server::bind("0.0.0.0:7000").listen().await?;
/// // Connect to the database, fill the caches: the predecessor serves until `ready` is called.
/// listener.ready();
/// while let Some(conn) = listener.accept().await {
///     tokio::spawn(greet(conn));
/// }
/// listener.finish().await?;
/// # Ok(()) }
/// ```
///
/// Dropping a `Listener` closes the addresses at once.
#[derive(Debug)]
pub struct Listener {
    connections: mpsc::UnboundedReceiver<Conn>,
    ready: Option<oneshot::Sender<()>>,
    retiring: Retiring,
    engine: JoinHandle<Result<Outcome, Error>>,
}

impl Server {
    /// Listens for any protocol over TCP. The program itself accepts and serves each connection, and says when it is ready.
    ///
    /// A check given to [`ready_when`](Server::ready_when) runs when [`Listener::ready`] is called.
    ///
    /// # Errors
    ///
    /// When a setting is invalid (see [`check`](Server::check)), an address cannot be listened on or the pid file cannot be
    /// written.
    pub async fn listen(self) -> Result<Listener, Error> {
        self.config.check()?;
        let drain = self.config.drain();
        let (accepted, connections) = mpsc::unbounded_channel();
        // Unbounded, because the accept loop must never be blocked while connections are steered to its listener.
        let socket = self.config.socket.clone();
        let serve: Serve = Arc::new(move |conn: Conn| {
            socket.apply(conn.get_ref());
            drop(accepted.send(conn));
        });
        let retiring = drain.retiring();
        let engine = Engine::start(self.config, self.remote, drain, &serve)?;
        let (ready, told) = oneshot::channel();
        let check = self.check;
        let engine = tokio::spawn(engine.run(async move {
            if told.await.is_err() {
                std::future::pending::<()>().await;
            }
            checked(check).await
        }));
        Ok(Listener { connections, ready: Some(ready), retiring, engine })
    }
}

impl Listener {
    /// Declares that this program can serve, and takes over from the predecessor. Call it within the ready timeout.
    pub fn ready(&mut self) {
        if let Some(ready) = self.ready.take() {
            let _ = ready.send(());
        }
    }

    /// Returns the next connection, or `None` once the generation has closed its listeners because it retired, stopped or
    /// failed; [`finish`](Listener::finish) returns which. Cancel safe.
    pub async fn accept(&mut self) -> Option<Conn> {
        self.connections.recv().await
    }

    /// Returns a [`Retiring`], which tells long-lived connections when to end.
    pub fn retiring(&self) -> Retiring {
        self.retiring.clone()
    }

    /// Waits until every accepted [`Conn`] is dropped or the drain deadline has passed.
    ///
    /// # Errors
    ///
    /// When this generation never took over: see [`Server::serve`].
    pub async fn finish(mut self) -> Result<Outcome, Error> {
        match (&mut self.engine).await {
            Ok(outcome) => outcome,
            // Only a panic ends the task early, as nothing else can abort it.
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.engine.abort();
    }
}
