//! HTTP/1 clients.

use super::*;

#[test]
fn an_http1_client_has_a_timeout_for_each_step() {
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
            "a body after the response has begun",
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
            "a response that is not written",
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
fn pending_input_is_served_before_a_connection_is_closed() {
    for (arrived, close) in [
        (Pending::Nothing, Close::End),
        (Pending::Something, Close::Wait(None)),
        (Pending::End, Close::Wait(None)),
    ] {
        let mut rig = Rig::http1();
        rig.request(0.0, GET);
        rig.answer(0.0);
        rig.arrived = arrived;
        assert_eq!(rig.ask(75.0), close);
    }
    // A part of a TLS record is the beginning of a head, which has its own timeout.
    let mut rig = Rig::http1();
    rig.request(0.0, GET);
    rig.answer(0.0);
    rig.arrived = Pending::Part;
    assert_eq!(rig.waits(75.0), Some(105.0));
    assert_eq!(rig.ask(105.0), Close::End);

    let mut late = Rig::http1();
    late.request(0.0, POST);
    late.ask(0.0);
    late.arrived = Pending::Something;
    assert_eq!(late.ask(60.0), Close::Wait(None));
    late.arrived = Pending::End;
    assert_eq!(late.ask(60.0), Close::Fail(Failure::Late));
}

#[test]
fn a_lame_duck_is_closed_once_it_has_been_quiet_for_its_grace() {
    let mut rig = Rig::http1();
    assert_eq!(rig.waits(0.0), Some(30.0));
    rig.drain.lame_duck(secs(5.0));
    assert_eq!(rig.waits(10.0), Some(15.0), "the grace begins when the connection learns of it");
    rig.drain.lame_duck(secs(3.0));
    assert_eq!(rig.waits(11.0), Some(13.0), "a new grace, the same beginning");
    rig.request(12.0, GET);
    assert_eq!(rig.waits(12.0), None);
    assert!(rig.state.requests().is_last());
    rig.answer(14.0);
    let last_end = rig.state.requests().last_end().expect("a request of a lame duck has ended");
    assert_eq!(rig.waits(14.0), Some(17.0_f64.max(rig.seconds(last_end) + 3.0)));
    assert_eq!(rig.ask(17.0), Close::End);
    assert!(!rig.state.has_left(), "drained, not closed in normal mode");
    rig.drain.normal();
    assert_eq!(rig.waits(18.0), Some(89.0), "as before: idle since 14 s");
    rig.drain.lame_duck(secs(5.0));
    assert_eq!(rig.waits(20.0), Some(25.0));
    rig.drain.cut_now();
    assert_eq!(rig.ask(21.0), Close::Fail(Failure::Cut));
}

#[test]
fn the_header_timeout_applies_on_a_lame_duck_too() {
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
fn input_behind_a_request_on_a_lame_duck_is_another_request_unless_it_is_its_body() {
    let mut rig = Rig::http1();
    rig.drain.lame_duck(secs(5.0));
    rig.request(1.0, GET);
    for (arrived, is_last) in
        [(Pending::Nothing, true), (Pending::Something, false), (Pending::Part, false), (Pending::End, true)]
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
    upload.arrived = Pending::Something;
    assert_eq!((upload.waits(2.0), upload.state.requests().is_last()), (None, true));
}

#[test]
fn a_half_close_waits_for_the_response() {
    let mut rig = Rig::http1();
    assert!(!rig.state.on_end(&rig.now(1.0)), "nothing is in flight");
    rig.request(1.0, GET);
    assert!(rig.state.on_end(&rig.now(2.0)) && rig.state.on_end(&rig.now(3.0)));
    assert_eq!(rig.waits(3.0), Some(4.0));
    assert_eq!(rig.send(20.0, b"a part"), Ask::WhenSomethingHappens);
    assert_eq!(rig.waits(20.0), Some(22.0), "the response makes progress");
    assert_eq!(rig.answer(25.0), Ask::Now, "all output is written, and hyper may read the end");
    assert_eq!(rig.waits(25.0), Some(100.0));

    rig.request(30.0, GET);
    assert!(rig.state.on_end(&rig.now(30.0)));
    assert_eq!(rig.ask(32.0), Close::End, "the response makes no progress");
    assert!(rig.state.on_end(&rig.now(32.0)));
    assert_eq!(rig.waits(50.0), Some(52.0), "the process did not run for 16 s");
    assert!(!rig.state.must_linger(Pending::Nothing), "the client has ended");

    let mut blocked = Rig::http1();
    blocked.state.poll_blocked(&blocked.now(0.0), &Seen::default());
    assert!(blocked.state.on_end(&blocked.now(1.0)), "the rest of a response is not written");
    let mut upload = Rig::http1();
    upload.request(0.0, POST);
    assert!(!upload.state.on_end(&upload.now(1.0)), "the reader of a body has to learn of it");
    let mut at_once = Rig::new(DrainOptions::default().half_close_timeout(Duration::ZERO));
    at_once.state.on_protocol(Protocol::Http1, vec![], &at_once.now(0.0));
    at_once.request(0.0, GET);
    assert!(!at_once.state.on_end(&at_once.now(1.0)));
    let mut http2 = Rig::http2();
    http2.stream(0.0, 1);
    assert!(!http2.state.on_end(&http2.now(1.0)), "HTTP/2 has no half-close of the connection");
}

#[test]
fn a_client_that_reads_nothing_is_given_up_when_the_kernel_sends_nothing_either() {
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
    assert_eq!(blocked(&mut rig, 171.0, None), until(&rig, 231.0), "the client made progress");
    assert!(!rig.state.has_left());
    assert_eq!(blocked(&mut rig, 231.0, sent(60.0)), Close::Fail(Failure::Stalled));
    assert!(rig.state.has_left());
    assert_eq!(
        blocked(&mut rig, 231.0, Some(None)),
        Close::Fail(Failure::Stalled),
        "the kernel has no answer"
    );
    rig.state.requests().set_protocol(Protocol::Other);
    assert_eq!(blocked(&mut rig, 500.0, None), Close::Wait(None));
}

#[test]
fn empty_lines_are_hidden_from_hyper_but_not_on_an_upgraded_connection() {
    let mut rig = Rig::http1();
    assert_eq!(rig.receive(0.0, b"GET / HTTP/1.1\r\n\r\n\r\n"), 18);
    assert_eq!(rig.receive(0.0, b"\r\n"), 0);
    rig.state.requests().set_protocol(Protocol::Other);
    assert_eq!(rig.receive(0.0, b"\r\n"), 2);
}

#[test]
fn the_socket_is_looked_at_only_where_the_answer_matters() {
    let mut rig = Rig::http1();
    rig.request(0.0, GET);
    let unasked = |rig: &mut Rig, at: f64| {
        let now = rig.now(at);
        rig.state.poll_close(&now, &Seen::default())
    };
    assert_eq!(unasked(&mut rig, 1.0), Close::Wait(None), "in flight in normal times");
    rig.drain.lame_duck(secs(5.0));
    assert_eq!(unasked(&mut rig, 2.0), Close::Look, "another request may be behind it");
    rig.answer(3.0);
    assert!(matches!(unasked(&mut rig, 3.0), Close::Wait(Some(_))), "idle, and its grace is not over");
}

#[test]
fn a_lame_duck_is_not_closed_before_its_answer_is_written() {
    let mut rig = Rig::http1();
    rig.request(0.0, GET);
    rig.answer(0.0);
    rig.drain.lame_duck(secs(5.0));
    assert_eq!(rig.waits(1.0), Some(6.0));
    rig.state.poll_blocked(&rig.now(2.0), &Seen::default());
    assert_eq!(rig.ask(6.0), Close::Wait(None));
    rig.send(7.0, b"the rest");
    assert_eq!((rig.waits(7.0), rig.ask(12.0)), (Some(12.0), Close::End));
}

#[test]
fn each_head_has_a_time_of_its_own() {
    let mut rig = Rig::http1();
    rig.request(0.0, GET);
    rig.answer(0.0);
    rig.receive(10.0, b"GET /");
    assert_eq!((rig.waits(10.0), rig.waits(15.0)), (Some(40.0), Some(40.0)));
    rig.request(20.0, " HTTP/1.1\r\n\r\n");
    rig.answer(20.0);
    rig.receive(50.0, b"GET /");
    assert_eq!(rig.waits(50.0), Some(80.0));
}
