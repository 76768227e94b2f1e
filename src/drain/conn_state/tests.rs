//! Tests the state of a connection with calls and times alone: no runtime, no socket, no waiting.

use std::net::SocketAddr;

use super::super::frames::{ACK, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM};
use super::super::registry::Registration;
use super::super::requests::InFlight;
use super::super::slots::Pool;
use super::super::{Drain, DrainOptions, PAUSED};
use super::*;
use crate::sock_diag::Connection;

const GET: &str = "GET / HTTP/1.1\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nab";
const NEAR: Option<Connection> =
    Some(Connection { round_trip: Duration::from_millis(1), last_sent: Duration::ZERO, has_ended: false });

mod http1;
mod http2;

/// One connection, and the answers that its socket would give.
struct Rig {
    drain: Drain,
    state: ConnState,
    _registration: Registration,
    began: Instant,
    in_flight: Vec<InFlight>,
    arrived: Pending,
    kernel: Option<Connection>,
}

fn secs(secs: f64) -> Duration {
    Duration::from_secs_f64(secs)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("short");
    [&[0, 0, length, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

impl Rig {
    fn new(options: DrainOptions) -> Rig {
        let (drain, began) = (Drain::with_options(options), Instant::now());
        let remote = SocketAddr::from(([192, 0, 2, 1], 1));
        let requests = Arc::new(Requests::new(&drain, remote, remote, Pool::Public, began));
        let registration = drain.0.registry.register(&requests, &drain.0.mode);
        let state = ConnState::new(&requests, began);
        let (arrived, kernel) = (Pending::Nothing, NEAR);
        Rig { drain, state, _registration: registration, began, in_flight: vec![], arrived, kernel }
    }

    fn http1() -> Rig {
        let mut rig = Rig::new(DrainOptions::default());
        rig.state.on_protocol(Protocol::Http1, vec![], &Clock::new(rig.began));
        rig
    }

    /// Creates an HTTP/2 connection after the preface and the SETTINGS of both ends.
    fn http2() -> Rig {
        let mut rig = Rig::new(DrainOptions::default());
        rig.state.on_protocol(Protocol::Http2, PREFACE.to_vec(), &Clock::new(rig.began));
        rig.state.rewind().clear();
        rig.receive(0.0, &frame(4, 0, 0, &[]));
        rig.send(0.0, &frame(4, 0, 0, &[]));
        rig
    }

    fn now(&self, at: f64) -> Clock {
        Clock::new(self.began + secs(at))
    }

    /// Receives bytes. Returns how many of them hyper gets.
    fn receive(&mut self, at: f64, bytes: &[u8]) -> usize {
        let now = self.now(at);
        self.state.on_read(&mut bytes.to_vec(), &now)
    }

    fn begin(&mut self) {
        self.in_flight.push(self.state.requests().begin());
    }

    /// Receives a request and passes it to the service.
    fn request(&mut self, at: f64, bytes: &str) {
        self.receive(at, bytes.as_bytes());
        self.begin();
    }

    /// Writes bytes from two buffers, of which the first write takes only a part.
    fn write(&mut self, bytes: &[u8], now: &Clock) -> bool {
        let (a, b) = bytes.split_at(bytes.len() / 3);
        let n = bytes.len() / 2;
        let first = self.state.on_write(&[IoSlice::new(a), IoSlice::new(b)], n, now);
        self.state.on_write(&[IoSlice::new(&bytes[n..])], bytes.len() - n, now) || first
    }

    fn send(&mut self, at: f64, bytes: &[u8]) -> Ask {
        let now = self.now(at);
        self.write(bytes, &now);
        self.state.on_flush(&now)
    }

    /// Answers the oldest request.
    fn answer(&mut self, at: f64) -> Ask {
        drop(self.in_flight.remove(0));
        self.send(at, b"")
    }

    fn stream(&mut self, at: f64, number: u32) {
        self.receive(at, &frame(HEADERS, END_STREAM, number, b"?"));
        self.begin();
    }

    fn answer_stream(&mut self, at: f64, number: u32) -> Ask {
        drop(self.in_flight.remove(0));
        self.send(at, &frame(HEADERS, END_STREAM, number, b"!"))
    }

    /// Returns the decision of the state, given the answers of the socket.
    fn ask(&mut self, at: f64) -> Close {
        let (now, mut seen) = (self.now(at), Seen::default());
        loop {
            match self.state.poll_close(&now, &seen) {
                Close::Look => assert!(seen.arrived.replace(self.arrived).is_none(), "asked twice"),
                Close::AskKernel => assert!(seen.kernel.replace(self.kernel).is_none(), "asked twice"),
                close => return close,
            }
        }
    }

    /// Returns the time until which the connection waits, in seconds.
    fn waits(&mut self, at: f64) -> Option<f64> {
        match self.ask(at) {
            Close::Wait(until) => until.map(|until| self.seconds(until)),
            close => panic!("{close:?} at {at}"),
        }
    }

    /// Returns when the connection ends if nothing happens, and how.
    fn ends(&mut self, mut at: f64) -> (f64, Close) {
        for _ in 0..10 {
            match self.ask(at) {
                Close::Wait(Some(until)) if self.seconds(until) > at => at = self.seconds(until),
                close => return (at, close),
            }
        }
        panic!("the connection waits again and again");
    }

    /// Returns a time in seconds, rounded up so that the time has been reached then.
    fn seconds(&self, time: Instant) -> f64 {
        ((time - self.began).as_nanos().div_ceil(1000)) as f64 / 1e6
    }

    fn output(&mut self) -> Vec<u8> {
        std::mem::take(self.state.output())
    }

    /// Returns whether hyper was told to send GOAWAY.
    fn is_told(&self) -> bool {
        self.state.requests().says_goaway()
    }
}

#[test]
fn after_a_response_the_state_says_when_to_ask_again() {
    let mut rig = Rig::http1();
    rig.request(0.0, GET);
    assert_eq!(rig.send(1.0, b"the head"), Ask::WhenSomethingHappens, "not all is answered");
    assert_eq!(rig.answer(2.0), Ask::At(rig.began + secs(77.0)));
    assert_eq!(rig.state.on_flush(&rig.now(3.0)), Ask::WhenSomethingHappens, "already said");
    assert_eq!(rig.send(4.0, b"?"), Ask::WhenSomethingHappens, "idle since then");
    rig.drain.lame_duck(secs(5.0));
    rig.request(5.0, GET);
    assert_eq!(rig.answer(6.0), Ask::WhenSomethingHappens, "a lame duck is asked by its next read");

    let mut http2 = Rig::http2();
    http2.stream(1.0, 1);
    assert_eq!(http2.answer_stream(2.0, 1), Ask::At(http2.began + secs(77.0)));
    assert_eq!(http2.state.on_flush(&http2.now(80.0)), Ask::WhenSomethingHappens, "nothing was written");
    assert_eq!(http2.send(80.0, b""), Ask::Now, "the keep-alive timeout is over");
}

#[test]
fn a_connection_that_is_asked_to_leave_does_so_unless_data_has_arrived() {
    let asked = |mut rig: Rig, arrived| {
        rig.arrived = arrived;
        assert!(rig.state.requests().slot_state().ask());
        rig.drain.0.pools.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let close = rig.ask(5.0);
        (close == Close::End, rig.state.has_left(), rig.output())
    };
    let no = (false, false, vec![]);
    assert_eq!(asked(Rig::http1(), Pending::Nothing), (true, true, vec![]));
    assert_eq!(asked(Rig::http1(), Pending::End), (true, true, vec![]));
    assert_eq!(asked(Rig::http1(), Pending::Something), no);
    assert_eq!(asked(Rig::http1(), Pending::Part), no);
    let mut busy = Rig::http1();
    busy.request(0.0, GET);
    assert_eq!(asked(busy, Pending::Nothing), no);
    let mut blocked = Rig::http1();
    blocked.state.poll_blocked(&blocked.now(0.0), &Seen::default());
    assert_eq!(asked(blocked, Pending::Nothing), no);
    let lame_duck = Rig::http1();
    lame_duck.drain.lame_duck(secs(50.0));
    assert_eq!(asked(lame_duck, Pending::Nothing), no);

    assert_eq!(asked(Rig::http2(), Pending::Nothing), (true, true, vec![]), "no request has come");
    let mut idle = Rig::http2();
    idle.stream(0.0, 7);
    idle.answer_stream(1.0, 7);
    let goaway = frame(7, 0, 0, &[0, 0, 0, 7, 0, 0, 0, 0]);
    assert_eq!(asked(idle, Pending::Nothing), (true, true, goaway));
    let mut half = Rig::http2();
    half.receive(0.0, &frame(HEADERS, END_STREAM, 1, b"?"));
    assert_eq!(asked(half, Pending::Nothing), (true, true, vec![]), "the first request has not come");
    let mut open = Rig::http2();
    open.stream(0.0, 1);
    open.in_flight.clear();
    assert_eq!(asked(open, Pending::Nothing), no, "a response is not written");
}

#[test]
fn a_connection_lingers_for_a_client_that_may_still_be_sending() {
    use Pending::{End, Nothing, Part, Something};
    let lingers = |rig: &Rig| [Nothing, Something, Part, End].map(|arrived| rig.state.must_linger(arrived));
    let rig = Rig::http1();
    assert_eq!(lingers(&rig), [false, true, true, false]);
    rig.drain.lame_duck(secs(5.0));
    assert_eq!(lingers(&rig), [true, true, true, false], "the client did not ask for the close");
    rig.state.requests().set_client_closes();
    assert_eq!(lingers(&rig), [false, true, true, false]);
    for (protocol, waits) in [
        (Protocol::Unknown, false),
        (Protocol::Handshake, false),
        (Protocol::Http2, true),
        (Protocol::Other, true),
    ] {
        rig.state.requests().set_protocol(protocol);
        assert_eq!(rig.state.must_linger(Nothing), waits, "{protocol:?}");
    }
    rig.drain.cut_now();
    assert_eq!(lingers(&rig), [false; 4]);

    let mut upload = Rig::http1();
    upload.request(0.0, POST);
    assert!(upload.state.ends().more);
    assert_eq!(lingers(&upload), [true, true, true, false], "the rest of the body is on its way");
    upload.receive(0.0, b"cdefghi");
    assert_eq!(lingers(&upload), [false, true, true, false]);
    upload.state.on_broken();
    assert_eq!(lingers(&upload), [false; 4]);
    assert!(!upload.state.ends().sent);
    upload.state.on_shutdown();
    assert!(upload.state.ends().sent);
}

#[cfg(feature = "tls")]
#[test]
fn the_grace_of_a_lame_duck_begins_with_the_end_of_a_handshake() {
    let mut rig = Rig::new(DrainOptions::default());
    rig.drain.lame_duck(secs(5.0));
    rig.state.on_handshake(Protocol::Http2, &rig.now(3.0));
    assert_eq!(rig.state.default_protocol(), Protocol::Http2);
    assert_eq!(rig.state.requests().protocol(), Protocol::Other);
    rig.state.requests().set_protocol(Protocol::Unknown);
    assert_eq!(rig.waits(3.0), Some(8.0));
}

#[test]
fn the_clock_is_read_once_per_call_and_never_runs_backwards() {
    let later = Instant::now() + secs(100.0);
    let clock = Clock::new(later);
    assert!(clock.has_reached(later) && !clock.has_reached(later + secs(0.001)));
    clock.reach(later - secs(1.0));
    clock.next_call();
    assert_eq!((clock.now(), clock.now()), (later, later));

    let clock = Clock::new(Instant::now() - secs(100.0));
    clock.next_call();
    assert!(!clock.has_reached(Instant::now() - secs(1.0)), "the clock was not read");
    let time = clock.now();
    assert!(clock.has_reached(time) && time.elapsed() < secs(50.0));
    assert_eq!(clock.now(), time);
    assert!(!clock.is_long_after(time - PAUSED) && clock.is_long_after(time - PAUSED - secs(0.001)));
}
