//! The time and the contents of GOAWAY. Many HTTP/2 clients take GOAWAY for an error of the requests in flight.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::frames::{ACK, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, PREFACE, SETTINGS, frame};
use support::harness::{Client, start};
use support::process::{PATIENCE, Server, signal};

/// The last stream id of a GOAWAY that covers every stream.
const ALL: u32 = (1 << 31) - 1;

/// The frame of a request `GET /`.
fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, b"\x82\x84\x86\x41\x01t")
}

fn connect(addr: SocketAddr) -> Client {
    let mut client = Client::connect(addr);
    client.write([PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
    client
}

/// Reads a frame, and acknowledges SETTINGS and PING.
fn read(stream: &mut TcpStream) -> Option<Frame> {
    let got = Frame::read(stream).expect("FIN, not RST")?;
    let answer = match got.kind {
        SETTINGS if got.flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[]),
        PING if got.flags & ACK == 0 => frame(PING, ACK, 0, &got.payload),
        _ => return Some(got),
    };
    // The write fails if the server has ended the connection, which the next read notices.
    let _ = stream.write_all(&answer);
    Some(got)
}

fn last_stream(goaway: &Frame) -> u32 {
    goaway.payload[..4].try_into().map(u32::from_be_bytes).expect("GOAWAY names a stream")
}

fn retire(server: &Server) -> Instant {
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_state(1, "standby");
    Instant::now()
}

#[test]
fn a_client_that_reads_only_while_it_waits_for_an_answer_never_gets_a_goaway_for_a_request_in_flight() {
    for pause in [20, 400, 1500].map(Duration::from_millis) {
        let server = start(&[]);
        let mut client = connect(server.address());
        let mut flip = None;
        'requests: for number in 0.. {
            let stream = 2 * number + 1;
            // The write fails if the server has ended the connection, as the next frame says.
            let _ = client.0.write_all(&get(stream));
            loop {
                let got = read(&mut client.0).expect("GOAWAY comes first");
                if got.kind == GOAWAY {
                    let last = last_stream(&got);
                    assert!(
                        last < stream,
                        "with pauses of {pause:?}: stream {stream} is under way, and the last is {last}"
                    );
                    assert_eq!(last, stream - 2, "GOAWAY names the last answered stream");
                    break 'requests;
                }
                if got.stream == stream && got.ends_stream() {
                    break;
                }
            }
            let told = *flip.get_or_insert_with(|| retire(&server));
            assert!(told.elapsed() < Duration::from_secs(8), "GOAWAY comes in time");
            std::thread::sleep(pause);
        }
        while Frame::read(&mut client.0).expect("FIN, not RST").is_some() {}
    }
}

#[test]
fn a_client_that_reads_all_the_time_has_every_request_answered_and_gets_a_goaway_within_the_delay() {
    let server = start(&["--goaway-delay", "3s"]);
    let mut client = connect(server.address());
    let mut writer = client.0.try_clone().expect("a descriptor");
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let requests = std::thread::spawn(move || {
        let mut sent = 0;
        while told.recv_timeout(Duration::from_millis(30)).is_err() {
            writer.write_all(&get(2 * sent + 1)).expect("the connection is open");
            sent += 1;
        }
        sent
    });
    let (mut answered, mut goaways, mut flip) = (0, Vec::new(), None);
    while let Some(got) = read(&mut client.0) {
        answered += u32::from(got.ends_stream());
        let flip = *flip.get_or_insert_with(|| retire(&server));
        if got.kind == GOAWAY {
            goaways.push((last_stream(&got), flip.elapsed()));
            let _ = tell.send(());
        }
    }
    let sent = requests.join().expect("the thread does not panic");
    assert_eq!(answered, sent, "{goaways:?}");
    let [(first, at), (last, _)] = goaways[..] else { panic!("expected two GOAWAYs: {goaways:?}") };
    assert_eq!((first, last), (ALL, 2 * sent - 1));
    assert!(at > Duration::from_secs(1) && at < Duration::from_secs(4), "{at:?}");
}

#[test]
fn a_connection_without_requests_gets_a_goaway_after_it_has_been_quiet_for_a_moment() {
    let server = start(&[]);
    let mut client = connect(server.address());
    // The server's first frame shows that it has recognised HTTP/2.
    read(&mut client.0).expect("SETTINGS");
    let flip = retire(&server);
    while read(&mut client.0).expect("GOAWAY comes first").kind != GOAWAY {}
    let after = flip.elapsed();
    assert!(after > Duration::from_millis(150) && after < PATIENCE / 4, "{after:?}");
}
