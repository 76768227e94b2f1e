//! What becomes of a connection, by calls and times alone: no runtime, no socket, no waiting.

use std::net::SocketAddr;

use super::super::frames::{ACK, END_STREAM, HEADERS, PING, PREFACE};
use super::super::registry::Registration;
use super::super::requests::InFlight;
use super::super::room::Room;
use super::super::{Drain, DrainOptions, PAUSED};
use super::*;
use crate::sock_diag::Connection;

const GET: &str = "GET / HTTP/1.1\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nab";
const NEAR: Option<Connection> =
    Some(Connection { round_trip: Duration::from_millis(1), last_sent: Duration::ZERO, has_ended: false });

/// One connection, and what its socket would say.
struct Rig {
    drain: Drain,
    state: ConnState,
    _registration: Registration,
    began: Instant,
    in_flight: Vec<InFlight>,
    arrived: Arrived,
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
        let requests = Arc::new(Requests::new(&drain, remote, remote, Room::Public, began));
        let registration = drain.0.registry.register(&requests, &drain.0.turn);
        let state = ConnState::new(&requests, began);
        let (arrived, kernel) = (Arrived::Nothing, NEAR);
        Rig { drain, state, _registration: registration, began, in_flight: vec![], arrived, kernel }
    }

    fn http1() -> Rig {
        let mut rig = Rig::new(DrainOptions::default());
        rig.state.on_protocol(Protocol::Http1, vec![], &Clock::new(rig.began));
        rig
    }

    /// Its preface and the SETTINGS of both ends have passed.
    fn http2() -> Rig {
        let mut rig = Rig::new(DrainOptions::default());
        rig.state.on_protocol(Protocol::Http2, PREFACE.to_vec(), &Clock::new(rig.began));
        rig.receive(0.0, &frame(4, 0, 0, &[]));
        rig.send(0.0, &frame(4, 0, 0, &[]));
        rig
    }

    fn now(&self, at: f64) -> Clock {
        Clock::new(self.began + secs(at))
    }

    /// Returns how many of the bytes hyper gets.
    fn receive(&mut self, at: f64, bytes: &[u8]) -> usize {
        let now = self.now(at);
        self.state.on_read(&mut bytes.to_vec(), &now)
    }

    fn begin(&mut self) {
        self.in_flight.push(self.state.requests().begin());
    }

    /// A request whose head has come is with the service.
    fn request(&mut self, at: f64, bytes: &str) {
        self.receive(at, bytes.as_bytes());
        self.begin();
    }

    /// In two parts, of which not all was taken at first.
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

    /// The oldest request is answered.
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

    /// What the state wants, with the answers of the socket.
    fn ask(&mut self, at: f64) -> Close {
        let (now, mut seen) = (self.now(at), Seen::default());
        loop {
            match self.state.poll_close(&now, &seen) {
                Close::Look => assert!(seen.arrived.replace(self.arrived).is_none(), "it was told"),
                Close::AskKernel => assert!(seen.kernel.replace(self.kernel).is_none(), "it was told"),
                close => return close,
            }
        }
    }

    /// What it waits for, in seconds.
    fn waits(&mut self, at: f64) -> Option<f64> {
        match self.ask(at) {
            Close::Wait(until) => until.map(|until| self.seconds(until)),
            close => panic!("{close:?} at {at}"),
        }
    }

    /// What becomes of it if nothing happens, and when.
    fn ends(&mut self, mut at: f64) -> (f64, Close) {
        for _ in 0..10 {
            match self.ask(at) {
                Close::Wait(Some(until)) if self.seconds(until) > at => at = self.seconds(until),
                close => return (at, close),
            }
        }
        panic!("it waits again and again");
    }

    /// Rounded up, so that a time has been reached then.
    fn seconds(&self, time: Instant) -> f64 {
        ((time - self.began).as_nanos().div_ceil(1000)) as f64 / 1e6
    }

    fn output(&mut self) -> Vec<u8> {
        std::mem::take(self.state.output())
    }

    /// hyper says GOAWAY when it is told to, and a PING behind it.
    fn is_told(&self) -> bool {
        self.state.requests().says_goaway()
    }
}

#[test]
fn a_client_of_http1_has_its_time_for_each_step_and_no_longer() {
    type Steps = fn(&mut Rig);
    let table: [(&str, Steps, f64, Close); 13] = [
        ("silent", |_| {}, 30.0, Close::End),
        ("half a head", |rig| assert_eq!(rig.receive(9.0, b"GET /"), 5), 30.0, Close::End),
        (
            "idle",
            |rig| {
                rig.request(1.0, GET);
                rig.answer(2.0);
            },
            77.0,
            Close::End,
        ),
        (
            "idle twice",
            |rig| {
                rig.request(1.0, GET);
                rig.answer(2.0);
                rig.request(50.0, GET);
                rig.answer(51.0);
            },
            126.0,
            Close::End,
        ),
        (
            "half of the next head",
            |rig| {
                rig.request(1.0, GET);
                rig.answer(2.0);
                rig.receive(40.0, b"GET /");
                assert_eq!(rig.waits(40.0), Some(70.0));
                rig.receive(50.0, b"a");
            },
            70.0,
            Close::End,
        ),
        (
            "a body that stops",
            |rig| {
                rig.request(1.0, POST);
                rig.ask(1.0);
            },
            61.0,
            Close::Fail(Failure::Late),
        ),
        (
            "a body that goes on and stops",
            |rig| {
                rig.request(1.0, POST);
                rig.ask(1.0);
                rig.receive(50.0, b"c");
                rig.ask(50.0);
            },
            110.0,
            Close::Fail(Failure::Late),
        ),
        (
            "a body whose answer has begun",
            |rig| {
                rig.request(1.0, POST);
                rig.state.requests().set_answered();
            },
            2.0,
            Close::Wait(None),
        ),
        ("in flight", |rig| rig.request(1.0, GET), 2.0, Close::Wait(None)),
        (
            "in flight, with the next head begun",
            |rig| {
                rig.request(1.0, GET);
                rig.receive(1.0, b"GET");
            },
            2.0,
            Close::Wait(None),
        ),
        (
            "an answer that is not written",
            |rig| {
                rig.request(1.0, GET);
                rig.in_flight.clear();
                assert_eq!(
                    rig.state.poll_blocked(&rig.now(2.0), &Seen::default()),
                    Close::Wait(Some(rig.began + secs(62.0)))
                );
            },
            3.0,
            Close::Wait(None),
        ),
        (
            "upgraded",
            |rig| {
                rig.request(1.0, GET);
                rig.state.requests().set_protocol(Protocol::Other);
                rig.in_flight.clear();
            },
            2.0,
            Close::Wait(None),
        ),
        (
            "in a handshake",
            |rig| rig.state.requests().set_protocol(Protocol::Handshake),
            2.0,
            Close::Wait(None),
        ),
    ];
    for (name, steps, at, close) in table {
        let mut rig = Rig::http1();
        steps(&mut rig);
        let waits = matches!(close, Close::Wait(_));
        assert_eq!(rig.ends(if waits { at } else { at - 0.001 }), (at, close), "{name}");
        assert_eq!(rig.state.has_left(), !waits, "{name}");
    }
}

#[test]
fn zero_is_no_limit_for_any_step() {
    let zero = Duration::ZERO;
    let options = DrainOptions::default().header_timeout(zero).keep_alive_timeout(zero).body_timeout(zero);
    let mut rig = Rig::new(options.send_timeout(zero).http2_ping_interval(zero));
    rig.state.on_protocol(Protocol::Http1, vec![], &rig.now(0.0));
    assert_eq!(rig.waits(1e6), None);
    rig.request(1e6, POST);
    assert_eq!(rig.waits(2e6), None);
    rig.receive(2e6, b"cdefghi");
    assert_eq!(rig.answer(2e6), Ask::WhenSomethingHappens);
    assert_eq!(rig.waits(3e6), None);
    assert_eq!(rig.state.poll_blocked(&rig.now(3e6), &Seen::default()), Close::Wait(None));
}

#[test]
fn what_has_arrived_is_served_before_a_connection_is_closed() {
    for (arrived, close) in [
        (Arrived::Nothing, Close::End),
        (Arrived::Something, Close::Wait(None)),
        (Arrived::End, Close::Wait(None)),
    ] {
        let mut rig = Rig::http1();
        rig.request(0.0, GET);
        rig.answer(0.0);
        rig.arrived = arrived;
        assert_eq!(rig.ask(75.0), close);
    }
    // A part of a record is the beginning of a head, which has its own time.
    let mut rig = Rig::http1();
    rig.request(0.0, GET);
    rig.answer(0.0);
    rig.arrived = Arrived::Part;
    assert_eq!(rig.waits(75.0), Some(105.0));
    assert_eq!(rig.ask(105.0), Close::End);

    let mut late = Rig::http1();
    late.request(0.0, POST);
    late.ask(0.0);
    late.arrived = Arrived::Something;
    assert_eq!(late.ask(60.0), Close::Wait(None));
    late.arrived = Arrived::End;
    assert_eq!(late.ask(60.0), Close::Fail(Failure::Late));
}

#[test]
fn after_an_answer_it_says_when_it_is_to_be_asked_again() {
    let mut rig = Rig::http1();
    rig.request(0.0, GET);
    assert_eq!(rig.send(1.0, b"the head"), Ask::WhenSomethingHappens, "not all is answered");
    assert_eq!(rig.answer(2.0), Ask::At(rig.began + secs(77.0)));
    assert_eq!(rig.state.on_flush(&rig.now(3.0)), Ask::WhenSomethingHappens, "it was said");
    assert_eq!(rig.send(4.0, b"?"), Ask::WhenSomethingHappens, "it has been idle since");
    rig.drain.lame_duck(secs(5.0));
    rig.request(5.0, GET);
    assert_eq!(rig.answer(6.0), Ask::WhenSomethingHappens, "a lame duck is asked by its next read");

    let mut http2 = Rig::http2();
    http2.stream(1.0, 1);
    assert_eq!(http2.answer_stream(2.0, 1), Ask::At(http2.began + secs(77.0)));
    assert_eq!(http2.state.on_flush(&http2.now(80.0)), Ask::WhenSomethingHappens, "nothing was written");
    assert_eq!(http2.send(80.0, b""), Ask::Now, "its time is over");
}

#[test]
fn a_lame_duck_is_closed_once_it_has_been_quiet_for_its_grace() {
    let mut rig = Rig::http1();
    assert_eq!(rig.waits(0.0), Some(30.0));
    rig.drain.lame_duck(secs(5.0));
    assert_eq!(rig.waits(10.0), Some(15.0), "it learns it when it is asked");
    rig.drain.lame_duck(secs(3.0));
    assert_eq!(rig.waits(11.0), Some(13.0), "another grace, the same beginning");
    rig.request(12.0, GET);
    assert_eq!(rig.waits(12.0), None);
    assert!(rig.state.requests().is_last());
    rig.answer(14.0);
    let last_end = rig.state.requests().last_end().expect("a request of a lame duck has ended");
    assert_eq!(rig.waits(14.0), Some(17.0_f64.max(rig.seconds(last_end) + 3.0)));
    assert_eq!(rig.ask(17.0), Close::End);
    assert!(!rig.state.has_left(), "it does not leave, it is drained");
    rig.drain.normal();
    assert_eq!(rig.waits(18.0), Some(89.0), "it is as before: idle since 14");
    rig.drain.lame_duck(secs(5.0));
    assert_eq!(rig.waits(20.0), Some(25.0));
    rig.drain.cut_now();
    assert_eq!(rig.ask(21.0), Close::Fail(Failure::Cut));
}

#[test]
fn a_head_that_has_begun_has_its_time_on_a_lame_duck_too() {
    let mut rig = Rig::http1();
    rig.request(0.0, GET);
    rig.answer(0.0);
    rig.drain.lame_duck(secs(5.0));
    rig.receive(4.0, b"GET /");
    assert_eq!(rig.waits(4.0), Some(34.0));
    assert_eq!(rig.ask(34.0), Close::End);
    rig.state.requests().set_protocol(Protocol::Other);
    assert_eq!(rig.waits(35.0), None);
}

#[test]
fn what_arrives_behind_a_request_of_a_lame_duck_is_another_request_unless_it_is_its_body() {
    let mut rig = Rig::http1();
    rig.drain.lame_duck(secs(5.0));
    rig.request(1.0, GET);
    for (arrived, is_last) in
        [(Arrived::Nothing, true), (Arrived::Something, false), (Arrived::Part, false), (Arrived::End, true)]
    {
        rig.arrived = arrived;
        assert_eq!(rig.waits(2.0), None);
        assert_eq!(rig.state.requests().is_last(), is_last, "{arrived:?}");
    }
    rig.receive(3.0, b"GET /");
    assert_eq!((rig.waits(3.0), rig.state.requests().is_last()), (None, false));

    let mut upload = Rig::http1();
    upload.drain.lame_duck(secs(5.0));
    upload.request(1.0, POST);
    upload.arrived = Arrived::Something;
    assert_eq!((upload.waits(2.0), upload.state.requests().is_last()), (None, true));
}

#[test]
fn the_end_of_a_client_waits_for_the_answer() {
    let mut rig = Rig::http1();
    assert!(!rig.state.on_end(&rig.now(1.0)), "nothing is in flight");
    rig.request(1.0, GET);
    assert!(rig.state.on_end(&rig.now(2.0)) && rig.state.on_end(&rig.now(3.0)));
    assert_eq!(rig.waits(3.0), Some(4.0));
    assert_eq!(rig.send(20.0, b"a part"), Ask::WhenSomethingHappens);
    assert_eq!(rig.waits(20.0), Some(22.0), "it gets on");
    assert_eq!(rig.answer(25.0), Ask::Now, "all is written, and hyper may know it");
    assert_eq!(rig.waits(25.0), Some(100.0));

    rig.request(30.0, GET);
    assert!(rig.state.on_end(&rig.now(30.0)));
    assert_eq!(rig.ask(32.0), Close::End, "it gets nowhere");
    assert!(rig.state.on_end(&rig.now(32.0)));
    assert_eq!(rig.waits(50.0), Some(52.0), "the process did not run for 16 s");
    assert!(!rig.state.must_linger(Arrived::Nothing), "it has ended");

    let mut blocked = Rig::http1();
    blocked.state.poll_blocked(&blocked.now(0.0), &Seen::default());
    assert!(blocked.state.on_end(&blocked.now(1.0)), "the rest of an answer is not written");
    let mut upload = Rig::http1();
    upload.request(0.0, POST);
    assert!(!upload.state.on_end(&upload.now(1.0)), "the reader of a body has to learn of it");
    let mut at_once = Rig::new(DrainOptions::default().half_close_timeout(Duration::ZERO));
    at_once.state.on_protocol(Protocol::Http1, vec![], &at_once.now(0.0));
    at_once.request(0.0, GET);
    assert!(!at_once.state.on_end(&at_once.now(1.0)));
    let mut http2 = Rig::http2();
    http2.stream(0.0, 1);
    assert!(!http2.state.on_end(&http2.now(1.0)), "there it is the end");
}

#[test]
fn a_client_that_takes_nothing_is_given_up_when_the_kernel_sends_nothing_either() {
    let mut rig = Rig::http1();
    rig.request(0.0, GET);
    let blocked = |rig: &mut Rig, at: f64, kernel| {
        let seen = Seen { kernel, ..Seen::default() };
        let now = rig.now(at);
        rig.state.poll_blocked(&now, &seen)
    };
    let until = |rig: &Rig, at: f64| Close::Wait(Some(rig.began + secs(at)));
    let sent = |ago: f64| Some(Some(Connection { last_sent: secs(ago), ..NEAR.expect("literal") }));
    assert_eq!(blocked(&mut rig, 1.0, None), until(&rig, 61.0));
    assert!(rig.state.write_blocked);
    assert_eq!(blocked(&mut rig, 2.0, None), until(&rig, 61.0));
    assert_eq!(blocked(&mut rig, 61.0, None), Close::AskKernel);
    assert_eq!(blocked(&mut rig, 61.0, sent(10.0)), until(&rig, 111.0));
    assert_eq!(blocked(&mut rig, 113.0, None), until(&rig, 173.0), "the process did not run");
    rig.send(170.0, b"a part");
    assert!(!rig.state.write_blocked);
    assert_eq!(blocked(&mut rig, 171.0, None), until(&rig, 231.0), "it got on");
    assert!(!rig.state.has_left());
    assert_eq!(blocked(&mut rig, 231.0, sent(60.0)), Close::Fail(Failure::Stalled));
    assert!(rig.state.has_left());
    assert_eq!(
        blocked(&mut rig, 231.0, Some(None)),
        Close::Fail(Failure::Stalled),
        "the kernel does not say"
    );
    rig.state.requests().set_protocol(Protocol::Other);
    assert_eq!(blocked(&mut rig, 500.0, None), Close::Wait(None));
}

#[test]
fn a_connection_that_is_asked_makes_room_unless_something_has_come() {
    let asked = |mut rig: Rig, arrived| {
        rig.arrived = arrived;
        assert!(rig.state.requests().tenancy().ask());
        rig.drain.0.rooms.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let close = rig.ask(5.0);
        (close == Close::End, rig.state.has_left(), rig.output())
    };
    let no = (false, false, vec![]);
    assert_eq!(asked(Rig::http1(), Arrived::Nothing), (true, true, vec![]));
    assert_eq!(asked(Rig::http1(), Arrived::End), (true, true, vec![]));
    assert_eq!(asked(Rig::http1(), Arrived::Something), no);
    assert_eq!(asked(Rig::http1(), Arrived::Part), no);
    let mut busy = Rig::http1();
    busy.request(0.0, GET);
    assert_eq!(asked(busy, Arrived::Nothing), no);
    let mut blocked = Rig::http1();
    blocked.state.poll_blocked(&blocked.now(0.0), &Seen::default());
    assert_eq!(asked(blocked, Arrived::Nothing), no);
    let lame_duck = Rig::http1();
    lame_duck.drain.lame_duck(secs(50.0));
    assert_eq!(asked(lame_duck, Arrived::Nothing), no);

    assert_eq!(asked(Rig::http2(), Arrived::Nothing), (true, true, vec![]), "it has asked for nothing");
    let mut idle = Rig::http2();
    idle.stream(0.0, 7);
    idle.answer_stream(1.0, 7);
    let goaway = frame(7, 0, 0, &[0, 0, 0, 7, 0, 0, 0, 0]);
    assert_eq!(asked(idle, Arrived::Nothing), (true, true, goaway));
    let mut half = Rig::http2();
    half.receive(0.0, &frame(HEADERS, END_STREAM, 1, b"?"));
    assert_eq!(asked(half, Arrived::Nothing), (true, true, vec![]), "its first request has not come");
    let mut open = Rig::http2();
    open.stream(0.0, 1);
    open.in_flight.clear();
    assert_eq!(asked(open, Arrived::Nothing), no, "an answer is not written");
}

#[test]
fn an_idle_client_of_http2_is_told_and_one_that_is_gone_is_found_out() {
    let mut idle = Rig::http2();
    assert_eq!(idle.waits(0.0), Some(30.0), "without a request");
    idle.stream(1.0, 1);
    idle.answer_stream(2.0, 1);
    assert_eq!(idle.waits(2.0), Some(77.0));
    // It is probed first.
    let at = idle.waits(77.0).expect("it goes on");
    assert!((77.0..=78.0).contains(&at) && !idle.is_told(), "{at}");
    assert_eq!(idle.output(), frame(PING, 0, 0, b"handover"));
    idle.receive(77.01, &frame(PING, ACK, 0, b"handover"));
    let at = idle.waits(77.01).expect("it goes on");
    assert_eq!(idle.waits(at), Some(82.0), "told, it has 5 s");
    assert!(idle.is_told());

    let mut gone = Rig::http2();
    gone.stream(1.0, 1);
    assert_eq!(gone.waits(1.0), Some(61.0));
    gone.receive(30.0, &frame(8, 0, 0, &[0, 0, 1, 0]));
    assert_eq!(gone.waits(30.0), Some(90.0), "something came");
    assert_eq!(gone.waits(90.0), Some(110.0));
    assert_eq!(gone.output(), frame(PING, 0, 0, b"anybody?"));
    gone.receive(100.0, &frame(PING, ACK, 0, b"anybody?"));
    assert_eq!(gone.waits(100.0), Some(160.0), "it is there");
    assert_eq!(gone.waits(160.0), Some(180.0));
    gone.arrived = Arrived::Something;
    assert_eq!(gone.ask(180.0), Close::Wait(None));
    gone.arrived = Arrived::Nothing;
    assert_eq!(gone.ask(180.0), Close::Fail(Failure::Gone));

    let mut unread = Rig::http2();
    unread.stream(1.0, 1);
    unread.send(2.0, &frame(0, 0, 1, b"a part"));
    unread.in_flight.clear();
    let idle_since = unread.state.requests().idle_since().expect("nothing is in flight");
    assert_eq!(unread.waits(3.0), Some(unread.seconds(idle_since).max(2.0) + 60.0));
    assert_eq!(unread.ask(63.0), Close::End);

    let mut tunnel = Rig::http2();
    tunnel.stream(1.0, 1);
    tunnel.in_flight.clear();
    tunnel.state.requests().set_tunnel();
    assert_eq!(tunnel.waits(2.0), Some(62.0), "it is asked whether it is there, not given up");
}

#[test]
fn a_lame_duck_of_http2_is_told_in_a_pause_and_gets_the_answer_to_its_ping_later() {
    let mut rig = Rig::http2();
    rig.stream(0.0, 1);
    rig.drain.lame_duck(secs(5.0));
    assert_eq!(rig.waits(1.0), Some(6.0), "something is under way: at the latest");
    drop(rig.in_flight.pop());
    let end = frame(HEADERS, END_STREAM, 1, b"!");
    assert!(rig.write(&end, &rig.now(2.0)), "it has to be asked again");
    rig.kernel = Some(Connection { round_trip: secs(0.1), ..NEAR.expect("literal") });
    let at = rig.waits(2.0).expect("a pause");
    assert!((2.0..2.25).contains(&at) && rig.output().is_empty(), "too far away to be probed: {at}");
    assert!(!rig.is_told());
    let close_at = rig.waits(at).expect("it has 5 s to acknowledge");
    assert!(rig.is_told() && close_at >= at);
    let answer = frame(PING, ACK, 0, b"by hyper");
    assert_eq!(rig.receive(3.0, &answer), 0, "hyper does not get it yet");
    assert_eq!(rig.waits(3.0), Some(3.25));
    assert_eq!((rig.ask(3.25), &answer), (Close::Read, &*rig.state.input()));
    assert_eq!(rig.waits(3.25), None, "h2 closes it");
    rig.drain.normal();
    assert_eq!(rig.waits(4.0), Some(77.0));
}

#[test]
fn a_client_that_reads_only_with_its_requests_is_told_the_last_stream_at_once() {
    let mut rig = Rig::http2();
    rig.stream(0.0, 1);
    rig.answer_stream(0.0, 1);
    rig.drain.lame_duck(secs(5.0));
    let mut at = rig.waits(1.0).expect("probed");
    assert_eq!(rig.output(), frame(PING, 0, 0, b"handover"));
    // It is quiet, and does not answer.
    while !matches!(rig.ask(at), Close::End) {
        at = rig.waits(at).expect("it goes on");
        assert!(at < 6.0 && !rig.is_told(), "{at}");
    }
    assert_eq!(at, 2.0);
    let goaway = frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(rig.output(), goaway);
    rig.arrived = Arrived::Something;
    assert_eq!((rig.ask(at), rig.output()), (Close::Wait(None), vec![]), "a request is on its way");
}

#[test]
fn told_and_not_acknowledged_it_is_closed_between_two_streams() {
    let mut rig = Rig::http2();
    rig.drain.lame_duck(Duration::ZERO);
    rig.kernel = None;
    let at = rig.waits(1.0).expect("told at once");
    assert!(rig.is_told());
    assert_eq!(at, 6.0);
    rig.stream(5.0, 1);
    assert_eq!(rig.waits(5.0), None);
    rig.answer_stream(5.0, 1);
    assert_eq!(rig.waits(5.0), Some(10.0));
    rig.arrived = Arrived::Part;
    assert_eq!(rig.ask(10.0), Close::End, "half a frame is no request");
    assert!(!rig.state.has_left());
}

#[test]
fn its_end_waits_for_a_client_that_may_still_be_sending() {
    use Arrived::{End, Nothing, Part, Something};
    let lingers = |rig: &Rig| [Nothing, Something, Part, End].map(|arrived| rig.state.must_linger(arrived));
    let rig = Rig::http1();
    assert_eq!(lingers(&rig), [false, true, true, false]);
    rig.drain.lame_duck(secs(5.0));
    assert_eq!(lingers(&rig), [true, true, true, false], "it did not ask for the close");
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
    assert_eq!(lingers(&upload), [true, true, true, false], "the rest of its body is on its way");
    upload.receive(0.0, b"cdefghi");
    assert_eq!(lingers(&upload), [false, true, true, false]);
    upload.state.on_broken();
    assert_eq!(lingers(&upload), [false; 4]);
    assert!(!upload.state.ends().sent);
    upload.state.on_shutdown();
    assert!(upload.state.ends().sent);
}

#[test]
fn empty_lines_are_kept_from_hyper_and_what_is_upgraded_is_not() {
    let mut rig = Rig::http1();
    assert_eq!(rig.receive(0.0, b"GET / HTTP/1.1\r\n\r\n\r\n"), 18);
    assert_eq!(rig.receive(0.0, b"\r\n"), 0);
    rig.state.requests().set_protocol(Protocol::Other);
    assert_eq!(rig.receive(0.0, b"\r\n"), 2);
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
fn the_clock_is_looked_at_once_in_a_call_and_never_runs_backwards() {
    let later = Instant::now() + secs(100.0);
    let clock = Clock::new(later);
    assert!(clock.has_reached(later) && !clock.has_reached(later + secs(0.001)));
    clock.reach(later - secs(1.0));
    clock.next_call();
    assert_eq!((clock.now(), clock.now()), (later, later));

    let clock = Clock::new(Instant::now() - secs(100.0));
    clock.next_call();
    assert!(!clock.has_reached(Instant::now() - secs(1.0)), "it was not looked at");
    let time = clock.now();
    assert!(clock.has_reached(time) && time.elapsed() < secs(50.0));
    assert_eq!(clock.now(), time);
    assert!(!clock.is_long_after(time - PAUSED) && clock.is_long_after(time - PAUSED - secs(0.001)));
}
