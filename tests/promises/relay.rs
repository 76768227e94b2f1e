//! A relay that records the HTTP/2 frames between a real client and the server.
//!
//! h2load counts requests that it never sends: nghttp2 refuses to open a stream after GOAWAY, and h2load counts each such
//! request as failed and does not reconnect. So its own count of failures says nothing about a handover. The frames on the
//! wire do: the server must end every stream that the client opened.

use std::collections::BTreeSet;
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use support::frames::{Frame, HEADERS, PREFACE, RST_STREAM};

/// Relays connections to the server until the test process exits.
pub(crate) struct Relay {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<JoinHandle<Seen>>>>,
    /// The number of frames since the last [`take`](Relay::take).
    passed: Arc<AtomicUsize>,
}

/// The streams of one connection.
pub(crate) struct Seen {
    pub(crate) sent: BTreeSet<u32>,
    pub(crate) ended: BTreeSet<u32>,
    pub(crate) reset: BTreeSet<u32>,
}

impl Relay {
    pub(crate) fn start(server: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let connections = Arc::new(Mutex::new(Vec::new()));
        let passed = Arc::new(AtomicUsize::new(0));
        let (accepted, count) = (Arc::clone(&connections), Arc::clone(&passed));
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, count) = (client.expect("a connection"), Arc::clone(&count));
                let watched = thread::spawn(move || watch(&client, server, &count));
                accepted.lock().expect("no holder panics").push(watched);
            }
        });
        Relay { address, connections, passed }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns whether this number of clients have connected and are busy.
    pub(crate) fn is_busy(&self, clients: usize) -> bool {
        let connected = self.connections.lock().expect("no holder panics").len();
        connected == clients && self.passed.load(Ordering::Relaxed) > 500 * clients
    }

    /// Waits until all connections have ended, and returns the streams of each.
    pub(crate) fn take(&self) -> Vec<Seen> {
        let connections = std::mem::take(&mut *self.connections.lock().expect("no holder panics"));
        let seen = connections.into_iter().map(|watched| watched.join().expect("the server closes properly"));
        let seen = seen.collect();
        self.passed.store(0, Ordering::Relaxed);
        seen
    }
}

fn watch(client: &TcpStream, server: SocketAddr, count: &AtomicUsize) -> Seen {
    let server = TcpStream::connect(server).expect("the server listens");
    client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).expect("sockets");
    let (asked, answered) = thread::scope(|both| {
        let asked = both.spawn(|| {
            let mut preface = [0; PREFACE.len()];
            let mut from = client;
            from.read_exact(&mut preface).expect("a preface");
            (&server).write_all(&preface).expect("the server reads");
            // The client may end its connection in any way, also with a reset.
            pass(client, &server, count).0
        });
        let (answered, end) = pass(&server, client, count);
        assert!(end.is_ok(), "the server must close properly: {end:?}");
        (asked.join().expect("the client sends HTTP/2"), answered)
    });
    let streams = |frames: &[Frame], is: fn(&Frame) -> bool| {
        frames.iter().filter(|frame| is(frame)).map(|frame| frame.stream).collect()
    };
    Seen {
        sent: streams(&asked, |frame| frame.kind == HEADERS),
        ended: streams(&answered, Frame::ends_stream),
        reset: streams(&answered, |frame| frame.kind == RST_STREAM),
    }
}

/// Relays frames in one direction until it ends; returns all frames and how the direction ended.
fn pass(from: &TcpStream, mut to: &TcpStream, count: &AtomicUsize) -> (Vec<Frame>, std::io::Result<()>) {
    let mut from = BufReader::new(from);
    let mut frames = Vec::new();
    let end = loop {
        match Frame::read(&mut from) {
            Ok(Some(frame)) => {
                // A peer that has gone gets no more frames. The frames that it sent before are recorded all the same.
                let _ = to.write_all(&frame.to_bytes());
                frames.push(frame);
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let _ = to.shutdown(Shutdown::Write);
    (frames, end)
}
