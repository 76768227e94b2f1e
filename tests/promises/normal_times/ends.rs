//! Every useless connection is closed at its timeout, and no earlier.

use std::time::Duration;

use support::frames::PREFACE;
use support::harness::start;
use support::resources::descriptors;
use support::siege::attacks::{Attack, CONTINUATIONS, IDLE, TAKING_NOTHING, WITHOUT_REQUEST, hello, quiet};
use support::siege::floods::request;

use super::{Row, Site, attack};

const HEADER: Duration = Duration::from_secs(3);
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const SEND: Duration = Duration::from_secs(3);
const BODY: Duration = Duration::from_secs(3);
const PING: Duration = Duration::from_secs(2);
/// How long a client may take to answer PING.
const PONG: Duration = Duration::from_secs(20);
/// How long the server waits for a client that acknowledges no GOAWAY.
const GOODBYE: Duration = Duration::from_secs(5);
/// The allowance for a busy machine.
const SLACK: Duration = Duration::from_secs(4);

const FLAGS: [&str; 5] = [
    "--header-timeout=3s",
    "--keep-alive-timeout=5s",
    "--send-timeout=3s",
    "--body-timeout=3s",
    "--http2-ping-interval=2s",
];

/// The server sees a connection a moment before its client does.
const EARLY: Duration = Duration::from_millis(100);

fn row(attack: Attack, from: Duration, until: Duration) -> Row {
    Row { attack, from: from - EARLY, until: until + SLACK }
}

/// Returns whether the attack uses HTTP/2. An HTTP/2 connection without a request meets the header timeout or the keep-alive
/// timeout, and in both cases its client gets GOAWAY.
fn is_http2(attack: &Attack) -> bool {
    (attack.opening)().starts_with(PREFACE)
}

fn without_request() -> Vec<Row> {
    let row =
        |attack: &Attack| row(*attack, HEADER, if is_http2(attack) { KEEP_ALIVE + GOODBYE } else { HEADER });
    WITHOUT_REQUEST.iter().map(row).collect()
}

fn idle() -> Vec<Row> {
    let row = |attack: &Attack| {
        if is_http2(attack) {
            // Without any request, the header timeout may apply.
            row(*attack, HEADER, KEEP_ALIVE + GOODBYE)
        } else {
            row(*attack, KEEP_ALIVE, KEEP_ALIVE)
        }
    };
    IDLE.iter().map(row).collect()
}

fn taking_nothing() -> Vec<Row> {
    TAKING_NOTHING.iter().map(|attack| row(*attack, SEND, SEND)).collect()
}

#[test]
fn a_connection_on_which_no_request_is_completed_is_closed_after_the_header_timeout() {
    let site = Site::start(&FLAGS);
    let wrong = attack(site.address(), &without_request());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_connection_without_another_request_is_closed_after_the_keep_alive_timeout() {
    let site = Site::start(&FLAGS);
    let wrong = attack(site.address(), &idle());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_response_that_is_not_read_is_ended_after_the_send_timeout_and_its_file_closed() {
    let site = Site::start(&FLAGS);
    let before = descriptors(site.server.first_pid());
    let wrong = attack(site.address(), &taking_nothing());
    assert!(wrong.is_empty(), "{wrong:#?}");
    support::harness::wait_until("the files of the stalled responses are closed", &site.server, || {
        descriptors(site.server.first_pid()) < before + 5.0
    });
}

#[test]
fn an_upload_that_stops_is_ended_after_the_body_timeout() {
    let server = start(&FLAGS);
    let stopped = quiet("half of an upload", 1, || {
        b"POST /count HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\nhalf".to_vec()
    });
    let chunked = quiet("half of a chunk", 1, || {
        b"POST /count HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n10\r\nhalf".to_vec()
    });
    let wrong = attack(server.address(), &[stopped, chunked].map(|attack| row(attack, BODY, BODY)));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_http2_client_with_a_request_under_way_that_answers_no_ping_is_left_after_20_s() {
    let server = start(&FLAGS);
    let gone = quiet("a long poll of a client that is gone", 1, || hello(&request(1, "/slow?ms=600000")));
    let wrong = attack(server.address(), &[row(gone, PING + PONG, PING + PONG + GOODBYE)]);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn without_limits_every_connection_stays() {
    let none = [
        "--header-timeout=0s",
        "--keep-alive-timeout=0s",
        "--send-timeout=0s",
        "--body-timeout=0s",
        "--http2-ping-interval=0s",
    ];
    let site = Site::start(&none);
    let mut all = [WITHOUT_REQUEST, IDLE, TAKING_NOTHING].concat();
    // h2 accepts only a limited number of CONTINUATION frames, whatever these timeouts are.
    all.retain(|attack| attack.name != CONTINUATIONS);
    let rows: Vec<_> = all.iter().map(|attack| row(*attack, KEEP_ALIVE, KEEP_ALIVE)).collect();
    let mut still: Vec<_> = attack(site.address(), &rows);
    still.retain(|line| line.contains("still there"));
    assert_eq!(still.len(), rows.len(), "{still:#?}");
}
