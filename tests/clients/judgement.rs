//! What may fail: nothing, but for a short list of what only the client can mend. Such a failure must be the one that is
//! listed, must not come to a client that pauses for longer than a second, and must not be more frequent than with nginx,
//! reloaded at the same moments.

use crate::species::Species;
use crate::table::{Row, sum};

/// In milliseconds: above this, a client has been told long before it asks again.
const LONG: u64 = 1000;
/// Every client must live through so many.
const HANDOVERS: u64 = 5;

struct Explained {
    client: &'static str,
    protocol: &'static str,
    /// What the text of the failure contains.
    failure: &'static str,
    /// The shortest and longest pause at which it may happen, in milliseconds.
    shortest: u64,
    longest: u64,
}

const fn goaway(client: &'static str, failure: &'static str) -> Explained {
    Explained { client, protocol: "HTTP/2, TLS", failure, shortest: 0, longest: LONG }
}

/// Only where the pause is longer than the idle grace.
const fn idle(client: &'static str, protocol: &'static str, failure: &'static str) -> Explained {
    Explained { client, protocol, failure, shortest: 3000, longest: u64::MAX }
}

/// GOAWAY is how a server ends a connection in order (RFC 9113, section 6.8): it still answers what was sent.
const EXPLAINED: &[Explained] = &[
    // h2/connection.py, H2ConnectionStateMachine: RECV_GOAWAY leads to CLOSED, where every frame is an error, also those of
    // the answers that are still to come.
    goaway("httpx", "in state ConnectionState.CLOSED"),
    // httpcore/_async/http2.py, _receive_events: raises for the streams that the server will answer.
    goaway("httpx", "ConnectionTerminated"),
    // lib/dispatcher/client-h2.js, onHttp2SessionGoAway: fails the request at the head, whatever its stream.
    goaway("undici, allowH2", "\"GOAWAY\" frame received with code 0"),
    // http2-wrapper/source/agent.js: asks on a session that has had its GOAWAY, and Node says so.
    goaway("got, http2", "ERR_HTTP2_GOAWAY_SESSION"),
    // nghttp2_session.c, session_close_stream_on_goaway: closes what was still to be sent, and got takes no second try.
    goaway("got, http2", "NGHTTP2_REFUSED_STREAM"),
    // http2-wrapper/source/client-request.js: what it makes of a stream that such a session closes.
    goaway("got, http2", "The server aborted the HTTP/2 stream"),
    // jdk.internal.net.http.Http2Connection, handleGoAway: shuts the connection down with all that is under way (JDK-8335181,
    // until Java 24).
    goaway("java.net.http", "GOAWAY received"),
    // The same class, createStream and shutdown: a stream that is made while the connection shuts down is never completed, so
    // its request ends with the timeout of the client (JDK-8335181 too).
    goaway("java.net.http", "HttpTimeoutException: request timed out"),
    // nghttp2_session.c, session_predicate_for_request_send: refuses what waits to be sent, behind the answer to a PING, when
    // GOAWAY comes. h2load has counted it as started.
    goaway("h2load", "sent and not answered"),
    // http/client.py, HTTPConnection.send: writes to its connection without a look whether the server has closed it. Its last
    // answer was before the handover, and could not tell it.
    idle("http.client", "HTTP/1.1", "RemoteDisconnected"),
    idle("http.client", "HTTP/1.1", "BrokenPipe"),
    idle("http.client", "HTTP/1.1", "ConnectionReset"),
    idle("http.client", "HTTP/1.0, keep-alive", "RemoteDisconnected"),
    idle("http.client", "HTTP/1.0, keep-alive", "BrokenPipe"),
    idle("http.client", "HTTP/1.0, keep-alive", "ConnectionReset"),
    // undici, lib/dispatcher/client-h1.js, onHttpSocketEnd: asks at the moment at which the idle connection is closed. Its fetch
    // takes no second try.
    idle("fetch", "HTTP/1.1", "UND_ERR_SOCKET fetch failed other side closed"),
];

/// Says what is wrong with a row, if anything.
pub(crate) fn judge(row: &Row) -> Option<String> {
    if row.skipped.is_some() {
        return None;
    }
    let mut wrong = vec![];
    for run in &row.runs {
        let pause = run.pause;
        if run.outcome.answered == 0 {
            wrong.push(format!("no answer with pauses of {pause} ms"));
        }
        if run.lived < HANDOVERS {
            wrong.push(format!("lived through {} handovers with pauses of {pause} ms", run.lived));
        }
        for (what, times) in &run.outcome.failures {
            if !explained(&row.species, what, pause) {
                wrong.push(format!("{times} x {what} with pauses of {pause} ms"));
            }
        }
    }
    let (ours, theirs) = (row.all().failed(), sum(&row.beside).failed());
    // Without a comparison nothing is explained.
    if ours > 0 && (row.beside.is_empty() || is_more(ours, theirs)) {
        wrong.push(format!("{ours} failed, and {theirs} with nginx"));
    }
    let Species { name, protocol, .. } = row.species;
    (!wrong.is_empty()).then(|| format!("{name}, {protocol}: {}", wrong.join("; ")))
}

fn explained(species: &Species, what: &str, pause: u64) -> bool {
    EXPLAINED.iter().any(|known| {
        let same = (known.client, known.protocol) == (species.name, species.protocol);
        same && what.contains(known.failure) && known.shortest <= pause && pause <= known.longest
    })
}

/// Whether one count of rare events is more than another by other than chance: two standard deviations of their difference.
/// Both come from the same clients, pauses and number of restarts.
fn is_more(ours: u64, theirs: u64) -> bool {
    let more = ours.saturating_sub(theirs);
    more * more > 4 * (ours + theirs)
}

#[test]
fn a_few_failures_more_than_nginx_are_chance_and_many_are_not() {
    let cases = [(0, 0, false), (4, 0, false), (5, 0, true), (12, 10, false), (39, 5, true), (3, 30, false)];
    for (ours, theirs, more) in cases {
        assert_eq!(is_more(ours, theirs), more, "{ours} and {theirs}");
    }
}
