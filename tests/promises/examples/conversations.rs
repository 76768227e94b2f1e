//! The examples with conversations: each ends with a goodbye that the client can tell from a failure, and the client goes
//! on with the next generation.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use support::harness::{get, hand_over, wait_until};
use support::process::{PATIENCE, Server};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::{assert_nobody_was_cut, start};

/// The replies and the failures of one client.
#[derive(Debug, Default)]
struct Tally {
    answers: u64,
    goodbyes: u64,
    failures: Vec<String>,
}

/// The reply to one question.
enum Reply {
    Answer,
    Goodbye,
}

/// A client of either protocol.
trait Talk: Sized + Send + 'static {
    fn connect(address: SocketAddr) -> impl Future<Output = Result<Self, String>> + Send;
    fn ask(&mut self, question: &str) -> impl Future<Output = Result<Reply, String>> + Send;
}

struct Lines(BufStream<TcpStream>);

impl Talk for Lines {
    async fn connect(address: SocketAddr) -> Result<Lines, String> {
        let stream = TcpStream::connect(address).await.map_err(|e| format!("connect: {e}"))?;
        Ok(Lines(BufStream::new(stream)))
    }

    async fn ask(&mut self, question: &str) -> Result<Reply, String> {
        // Sending may fail after a goodbye; the read that follows decides.
        let _ = self.0.write_all(format!("{question}\n").as_bytes()).await;
        let _ = self.0.flush().await;
        let mut line = String::new();
        self.0.read_line(&mut line).await.map_err(|e| format!("read: {e}"))?;
        match line.trim_end() {
            "goodbye" => Ok(Reply::Goodbye),
            answer if answer.starts_with("generation=") && answer.ends_with(question) => Ok(Reply::Answer),
            other => Err(format!("{other:?} to {question:?}")),
        }
    }
}

impl Talk for WebSocketStream<TcpStream> {
    async fn connect(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|e| format!("connect: {e}"))?;
        let shaken = client_async(format!("ws://{address}/"), stream).await;
        Ok(shaken.map_err(|e| format!("handshake: {e}"))?.0)
    }

    async fn ask(&mut self, question: &str) -> Result<Reply, String> {
        self.send(Message::text(question)).await.map_err(|e| format!("send: {e}"))?;
        match self.next().await {
            Some(Ok(Message::Text(answer))) if answer.as_str() == question => Ok(Reply::Answer),
            Some(Ok(Message::Close(Some(close)))) if close.code == CloseCode::Away => {
                // Reading on answers the close frame; after that the server has to end the connection.
                while let Some(Ok(_)) = self.next().await {}
                Ok(Reply::Goodbye)
            }
            other => Err(format!("{other:?} to {question:?}")),
        }
    }
}

const CLIENTS: usize = 32;

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// The number of clients that have an answer.
    talking: AtomicUsize,
}

/// Asks questions until told to stop. A question that a goodbye answers is asked again on a new connection.
async fn converse<T: Talk>(address: SocketAddr, shared: Arc<Shared>) -> Tally {
    let mut tally = Tally::default();
    let mut open: Option<T> = None;
    while !shared.stop.load(Ordering::Relaxed) {
        let asked = timeout(PATIENCE, async {
            let mut talk = match open.take() {
                Some(talk) => talk,
                None => T::connect(address).await?,
            };
            Ok((talk.ask(&format!("question {}", tally.answers)).await?, talk))
        });
        match asked.await.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok((Reply::Answer, talk)) => {
                if tally.answers == 0 {
                    shared.talking.fetch_add(1, Ordering::Relaxed);
                }
                tally.answers += 1;
                open = Some(talk);
            }
            Ok((Reply::Goodbye, _)) => tally.goodbyes += 1,
            Err(failure) => tally.failures.push(failure),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    tally
}

/// Hands over while all clients talk, and asserts that the first generation said goodbye to each and cut none.
fn assert_every_conversation_moves<T: Talk>(server: &mut Server) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let shared = Arc::new(Shared::default());
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn_on(converse::<T>(server.address(), Arc::clone(&shared)), runtime.handle());
    }
    wait_until("all clients talk", server, || shared.talking.load(Ordering::Relaxed) == CLIENTS);
    hand_over(server, 1, server.first_pid());
    assert_nobody_was_cut(server);
    shared.stop.store(true, Ordering::Relaxed);
    for tally in runtime.block_on(clients.join_all()) {
        assert_eq!(tally.failures, [""; 0], "\n{}", server.log().history());
        assert!(tally.goodbyes == 1 && tally.answers > 5, "{tally:?}");
    }
}

#[test]
fn raw_tcp_says_goodbye_to_everyone_and_is_handed_over() {
    assert_every_conversation_moves::<Lines>(&mut start("raw_tcp", &["127.0.0.1:0"]));
}

#[test]
fn websocket_closes_with_1001_and_is_handed_over() {
    let mut server = start("websocket", &["127.0.0.1:0"]);
    assert!(get(server.address(), "/").starts_with("HTTP/1.1 426"), "this is no WebSocket handshake");
    assert_every_conversation_moves::<WebSocketStream<TcpStream>>(&mut server);
}
