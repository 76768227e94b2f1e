//! HTTP/2 clients.

use super::*;

#[test]
fn an_idle_http2_client_gets_goaway_and_one_that_is_gone_is_detected() {
    let mut idle = Rig::http2();
    assert_eq!(idle.waits(0.0), Some(30.0), "without a request");
    idle.stream(1.0, 1);
    idle.answer_stream(2.0, 1);
    assert_eq!(idle.waits(2.0), Some(77.0));
    // The client is probed first.
    let at = idle.waits(77.0).expect("GOAWAY is due");
    assert!((77.0..=78.0).contains(&at) && !idle.is_told(), "{at}");
    assert_eq!(idle.output(), frame(PING, 0, 0, b"handover"));
    idle.receive(77.01, &frame(PING, ACK, 0, b"handover"));
    let at = idle.waits(77.01).expect("GOAWAY is due");
    assert_eq!(idle.waits(at), Some(82.0), "5 s after GOAWAY");
    assert!(idle.is_told());

    let mut gone = Rig::http2();
    gone.stream(1.0, 1);
    assert_eq!(gone.waits(1.0), Some(61.0));
    gone.receive(30.0, &frame(8, 0, 0, &[0, 0, 1, 0]));
    assert_eq!(gone.waits(30.0), Some(90.0), "data arrived");
    assert_eq!(gone.waits(90.0), Some(110.0));
    assert_eq!(gone.output(), frame(PING, 0, 0, b"anybody?"));
    gone.receive(100.0, &frame(PING, ACK, 0, b"anybody?"));
    assert_eq!(gone.waits(100.0), Some(160.0), "the client answered");
    assert_eq!(gone.waits(160.0), Some(180.0));
    gone.arrived = Pending::Something;
    assert_eq!(gone.ask(180.0), Close::Wait(None));
    gone.arrived = Pending::Nothing;
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
    assert_eq!(tunnel.waits(2.0), Some(62.0), "the client gets a PING and is not given up");
}

#[test]
fn a_lame_duck_http2_client_gets_goaway_in_a_pause_and_hyper_gets_the_answer_to_its_ping_later() {
    let mut rig = Rig::http2();
    rig.stream(0.0, 1);
    rig.drain.lame_duck(secs(5.0));
    assert_eq!(rig.waits(1.0), Some(6.0), "a request is in flight: at the latest");
    drop(rig.in_flight.pop());
    let end = frame(HEADERS, END_STREAM, 1, b"!");
    assert!(rig.write(&end, &rig.now(2.0)), "hyper has to read again");
    rig.kernel = Some(Connection { round_trip: secs(0.1), ..NEAR.expect("literal") });
    let at = rig.waits(2.0).expect("a pause");
    assert!((2.0..2.25).contains(&at) && rig.output().is_empty(), "too far away for a probe: {at}");
    assert!(!rig.is_told());
    let close_at = rig.waits(at).expect("the client has 5 s to acknowledge");
    assert!(rig.is_told() && close_at >= at);
    let answer = frame(PING, ACK, 0, b"by hyper");
    assert_eq!(rig.receive(3.0, &answer), 0, "hyper does not get it yet");
    assert_eq!(rig.waits(3.0), Some(3.25));
    for arrived in [Pending::Something, Pending::Part] {
        rig.arrived = arrived;
        assert_eq!(rig.ask(3.25), Close::Wait(None), "a request behind the answer would be refused");
    }
    rig.arrived = Pending::Nothing;
    assert_eq!((rig.ask(3.25), &answer), (Close::Read, &*rig.state.rewind()));
    assert_eq!(rig.waits(3.25), None, "h2 closes it");
    rig.drain.normal();
    assert_eq!(rig.waits(4.0), Some(77.0));
}

#[test]
fn a_client_that_does_not_read_while_idle_gets_the_last_stream_at_once() {
    let mut rig = Rig::http2();
    rig.stream(0.0, 1);
    rig.answer_stream(0.0, 1);
    rig.drain.lame_duck(secs(5.0));
    let mut at = rig.waits(1.0).expect("the client is probed");
    assert_eq!(rig.output(), frame(PING, 0, 0, b"handover"));
    // The client is quiet, and does not answer.
    while !matches!(rig.ask(at), Close::End) {
        at = rig.waits(at).expect("GOAWAY is due");
        assert!(at < 6.0 && !rig.is_told(), "{at}");
    }
    assert_eq!(at, 2.0);
    let goaway = frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(rig.output(), goaway);
    rig.arrived = Pending::Something;
    assert_eq!((rig.ask(at), rig.output()), (Close::Wait(None), vec![]), "a request is on its way");
}

#[test]
fn a_connection_that_does_not_acknowledge_goaway_is_closed_between_two_streams() {
    let mut rig = Rig::http2();
    rig.drain.lame_duck(Duration::ZERO);
    rig.kernel = None;
    let at = rig.waits(1.0).expect("the close is due");
    assert!(rig.is_told());
    assert_eq!(at, 6.0);
    rig.stream(5.0, 1);
    assert_eq!(rig.waits(5.0), None);
    rig.answer_stream(5.0, 1);
    assert_eq!(rig.waits(5.0), Some(10.0));
    rig.arrived = Pending::Part;
    assert_eq!(rig.ask(10.0), Close::End, "half a frame is not a request");
    assert!(!rig.state.has_left());
}

#[test]
fn a_request_that_is_taken_back_at_once_interrupts_the_pause_too() {
    let far = Some(Connection { round_trip: secs(0.1), ..NEAR.expect("literal") });
    let taken_back = [frame(HEADERS, END_STREAM, 1, b"?"), frame(RST_STREAM, 0, 1, &[0; 4])].concat();
    let mut rig = Rig::http2();
    rig.kernel = far;
    rig.drain.lame_duck(secs(5.0));
    assert!(rig.waits(1.0).is_some_and(|at| at < 1.25));
    rig.receive(3.0, &taken_back);
    assert!(rig.waits(3.0).is_some_and(|at| at > 3.0), "it was quiet until now");

    let mut early = Rig::new(DrainOptions::default());
    early.kernel = far;
    early.drain.lame_duck(secs(5.0));
    early.ask(1.0);
    let preface = [PREFACE, &frame(4, 0, 0, &[]), &taken_back].concat();
    early.state.on_protocol(Protocol::Http2, preface, &early.now(3.0));
    early.send(3.0, &frame(4, 0, 0, &[]));
    assert!(early.waits(3.0).is_some_and(|at| at > 3.0), "it was quiet until now");
}

#[test]
fn how_far_away_a_client_is_is_asked_once() {
    let mut rig = Rig::http2();
    rig.drain.lame_duck(secs(5.0));
    let ping = frame(PING, 0, 0, b"handover");
    rig.waits(1.0);
    assert_eq!(rig.output(), ping);
    rig.stream(1.1, 1);
    rig.receive(1.2, &frame(PING, ACK, 0, b"handover"));
    rig.answer_stream(1.2, 1);
    let now = rig.now(1.2);
    assert!(matches!(rig.state.poll_close(&now, &Seen::default()), Close::Wait(Some(_))));
    assert_eq!(rig.output(), ping, "its answer was overtaken, so it is probed again");
}

/// What hyper gets of these bytes.
fn read(rig: &mut Rig, at: f64, bytes: &[u8]) -> Vec<u8> {
    let (now, mut bytes) = (rig.now(at), bytes.to_vec());
    let left = rig.state.on_read(&mut bytes, &now);
    bytes.truncate(left);
    bytes.extend(std::mem::take(rig.state.rewind()));
    bytes
}

#[test]
fn an_answer_in_two_parts_is_kept_back_too() {
    let answer = frame(PING, ACK, 0, b"by hyper");
    let request = frame(HEADERS, END_STREAM, 3, b"a request");
    let wire = [&request[..], &answer, &frame(8, 0, 0, &[0, 0, 1, 0]), &request].concat();
    for first in 0..=wire.len() {
        let mut rig = Rig::http2();
        rig.kernel = None;
        rig.drain.lame_duck(Duration::ZERO);
        rig.waits(1.0);
        assert!(rig.is_told());
        let mut got = read(&mut rig, 2.0, &wire[..first]);
        got.extend(read(&mut rig, 2.0, &wire[first..]));
        let rest = [&request[..], &frame(8, 0, 0, &[0, 0, 1, 0]), &request].concat();
        assert_eq!(got, rest, "{first} bytes, then the others");
        rig.begin();
        rig.answer_stream(2.0, 3);
        assert_eq!(rig.waits(2.0), Some(2.25));
        assert_eq!((rig.ask(2.25), &answer), (Close::Read, &*rig.state.rewind()));
    }
}

#[test]
fn the_beginning_of_a_frame_is_given_to_hyper_with_its_rest() {
    let mut rig = Rig::http2();
    rig.kernel = None;
    rig.drain.lame_duck(Duration::ZERO);
    rig.waits(1.0);
    let request = frame(HEADERS, END_STREAM, 3, b"a request");
    let mut got = vec![];
    for byte in &request {
        got.extend(read(&mut rig, 2.0, &[*byte]));
    }
    assert_eq!(got, request);
    // A PING of a wrong length is an error, and nothing of it is kept.
    let wrong = [&[0, 1, 0, PING, ACK][..], &[0; 64]].concat();
    assert_eq!(read(&mut rig, 2.0, &wrong), wrong);
}

#[test]
fn answers_to_several_pings_in_one_read_are_all_taken_out() {
    let by_hyper = frame(PING, ACK, 0, b"by hyper");
    let request = frame(HEADERS, END_STREAM, 3, b"a request");
    for ours in [b"handover", b"anybody?"] {
        let ours = frame(PING, ACK, 0, ours);
        for wire in [
            [&by_hyper[..], &ours, &request].concat(),
            [&ours[..], &request, &by_hyper].concat(),
            [&request[..], &ours, &by_hyper].concat(),
        ] {
            let mut rig = Rig::http2();
            rig.kernel = None;
            rig.drain.lame_duck(Duration::ZERO);
            rig.waits(1.0);
            assert!(rig.is_told());
            assert_eq!(read(&mut rig, 2.0, &wire), request);
            rig.begin();
            rig.answer_stream(2.0, 3);
            assert_eq!(rig.waits(2.0), Some(2.25));
            assert_eq!((rig.ask(2.25), &by_hyper), (Close::Read, &*rig.state.rewind()));
        }
    }
}

#[test]
fn a_client_that_never_pauses_is_not_taken_for_one_that_does_not_read() {
    // When its next request comes after each PING, and whether it is then told the last stream at once.
    for (pause, at_once) in [(0.0005, false), (0.005, true)] {
        let mut rig = Rig::http2();
        let round_trip = Duration::from_micros(50);
        rig.kernel = Some(Connection { round_trip, last_sent: Duration::ZERO, has_ended: false });
        rig.drain.lame_duck(secs(5.0));
        let (mut at, mut stream) = (1.0, 1);
        let end = loop {
            match rig.ask(at) {
                _ if rig.is_told() => break None,
                Close::Wait(_) => {}
                close => break Some(close),
            }
            let probed = rig.output() == frame(PING, 0, 0, b"handover");
            rig.stream(at + pause, stream);
            if probed {
                rig.receive(at + pause + 0.0004, &frame(PING, ACK, 0, b"handover"));
            }
            at += pause + 0.0005;
            rig.answer_stream(at, stream);
            stream += 2;
        };
        assert_eq!(end, at_once.then_some(Close::End), "a pause of {pause} s");
    }
}
