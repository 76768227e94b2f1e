//! The permitted failures: none, except for a short list of defects that only the client can fix. A failure must match an
//! entry of the list, must happen at a pause that the entry permits, and must not be more frequent than with nginx, reloaded
//! at the same moments.

use crate::species::Species;
use crate::table::{Row, sum};

/// In milliseconds: a client with a longer pause has seen the end of its connection long before its next request.
const LONG: u64 = 1000;
/// The number of handovers that every client must live through.
const HANDOVERS: u64 = 5;

struct Explained {
    client: &'static str,
    protocol: &'static str,
    /// A part of the text of the failure.
    failure: &'static str,
    /// The shortest and longest pause at which it may happen, in milliseconds.
    shortest: u64,
    longest: u64,
}

const fn goaway(client: &'static str, failure: &'static str) -> Explained {
    Explained { client, protocol: "HTTP/2, TLS", failure, shortest: 0, longest: LONG }
}

/// A failure that is permitted only where the pause is longer than the idle grace.
const fn idle(client: &'static str, protocol: &'static str, failure: &'static str) -> Explained {
    Explained { client, protocol, failure, shortest: 3000, longest: u64::MAX }
}

/// The permitted failures. GOAWAY ends a connection in an orderly way (RFC 9113, section 6.8): the server still answers the
/// requests that were sent before.
const EXPLAINED: &[Explained] = &[
    // h2/connection.py, H2ConnectionStateMachine: RECV_GOAWAY leads to CLOSED, where every frame is an error, also the frames
    // of outstanding responses.
    goaway("httpx", "in state ConnectionState.CLOSED"),
    // httpcore/_async/http2.py, _receive_events: raises for streams that the server will still answer.
    goaway("httpx", "ConnectionTerminated"),
    // lib/dispatcher/client-h2.js, onHttp2SessionGoAway: fails the request at the head, whatever its stream.
    goaway("undici, allowH2", "\"GOAWAY\" frame received with code 0"),
    // http2-wrapper/source/agent.js: sends a request on a session that has received GOAWAY, which Node refuses.
    goaway("got, http2", "ERR_HTTP2_GOAWAY_SESSION"),
    // nghttp2_session.c, session_close_stream_on_goaway: closes the streams that are not sent yet, and got does not retry.
    goaway("got, http2", "NGHTTP2_REFUSED_STREAM"),
    // http2-wrapper/source/client-request.js: reports this error for a stream that such a session closes.
    goaway("got, http2", "The server aborted the HTTP/2 stream"),
    // jdk.internal.net.http.Http2Connection, handleGoAway: shuts the connection down with all requests in flight (JDK-8335181,
    // until Java 24).
    goaway("java.net.http", "GOAWAY received"),
    // The same class, createStream and shutdown: a stream that is opened while the connection shuts down never completes, so
    // its request fails at the client's timeout (JDK-8335181 too).
    goaway("java.net.http", "HttpTimeoutException: request timed out"),
    // nghttp2_session.c, session_predicate_for_request_send: refuses requests that are queued behind the answer to a PING when
    // GOAWAY arrives. h2load has counted them as started.
    goaway("h2load", "sent and not answered"),
    // http/client.py, HTTPConnection.send: writes without checking whether the server has closed the connection. Its last
    // response came before the handover, so it could not carry `connection: close`.
    idle("http.client", "HTTP/1.1", "RemoteDisconnected"),
    idle("http.client", "HTTP/1.1", "BrokenPipe"),
    idle("http.client", "HTTP/1.1", "ConnectionReset"),
    idle("http.client", "HTTP/1.0, keep-alive", "RemoteDisconnected"),
    idle("http.client", "HTTP/1.0, keep-alive", "BrokenPipe"),
    idle("http.client", "HTTP/1.0, keep-alive", "ConnectionReset"),
    // undici, lib/dispatcher/client-h1.js, onHttpSocketEnd: sends a request at the moment at which the idle connection is closed.
    // Its fetch does not retry.
    idle("fetch", "HTTP/1.1", "UND_ERR_SOCKET fetch failed other side closed"),
];

/// Returns the faults of a row, if it has any.
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
    // Without a comparison no failure is excused.
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

/// Returns whether one count of rare events exceeds another by more than chance: two standard deviations of the difference.
/// Both counts come from the same clients, pauses and number of restarts.
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
