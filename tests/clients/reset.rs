//! reqwest with HTTP/2 over TLS, in several processes with many workers each, over twenty handovers: nothing is lost, and no
//! connection sees a reset from the server. A reset destroys data that the client has not read yet, also the GOAWAY that tells
//! it to reconnect. tcpdump counts the resets, and must also see the one that the test provokes at the end.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::harness::skip;
use support::process::{PATIENCE, signal};

use crate::keeper::Bed;
use crate::outcome::Outcome;
use crate::program::{self, Visit, text};
use crate::species::{Program, Species, Target};
use crate::{alone, build_examples, say};

const PROCESSES: usize = 6;
const WORKERS: u64 = 32;
const HANDOVERS: u32 = 20;
/// The time from one handover to the next, which is longer than the standby.
const EVERY: Duration = Duration::from_millis(1800);

const REQWEST: Species = Species {
    name: "reqwest",
    protocol: "HTTP/2, TLS",
    program: Program::Reqwest("http2"),
    target: Target::Tls,
    pauses: &[50],
    beside: false,
    remark: "",
};

#[test]
fn reqwest_sees_no_reset_and_loses_nothing_over_twenty_handovers() {
    let _turn = alone();
    if let Some(why) = program::missing(&REQWEST) {
        return skip(&format!("the resets that reqwest sees: {why}"));
    }
    build_examples();
    let bed = Bed::start(&[REQWEST]);
    let url = bed.url(Target::Tls, 0);
    let port = url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let capture = match Capture::start(port) {
        Ok(capture) => capture,
        Err(why) => return skip(&format!("the resets that reqwest sees: {why}")),
    };
    let began = Instant::now();
    let length = EVERY * (HANDOVERS + 1);
    let mut all = Outcome::default();
    let visit = Visit {
        species: REQWEST,
        url,
        pause: REQWEST.pauses[0],
        workers: WORKERS,
        length,
        dir: bed.dir().to_owned(),
    };
    std::thread::scope(|scope| {
        let moments: Vec<_> = (1..=HANDOVERS).map(|n| began + EVERY * n).collect();
        let clients: Vec<_> = (0..PROCESSES).map(|_| scope.spawn(|| program::run(&visit))).collect();
        bed.replace_all(&moments);
        clients.into_iter().for_each(|client| all.add(&client.join().expect("a run does not panic")));
    });
    let reset = capture.stop();
    say(&format!(
        "reqwest, {PROCESSES} processes with {WORKERS} workers, {HANDOVERS} handovers: {} answered, {} failed {:?}, \
         {} connections with a reset",
        all.answered,
        all.failed(),
        all.failures,
        reset.len()
    ));
    let history = bed.history();
    let lived = all.generations.map_or(0, |(first, last)| last - first);
    assert!(lived >= u64::from(HANDOVERS) - 1, "{lived} handovers\n{history}");
    assert!(all.answered > 10_000, "only {} answered\n{history}", all.answered);
    assert_eq!((all.failed(), reset.len()), (0, 0), "{:?} {reset:?}\n{history}", all.failures);
}

/// A tcpdump that sees every reset from the server's port, and from a port without a listener.
struct Capture {
    tcpdump: Child,
    server: u16,
    nobody: u16,
}

impl Capture {
    fn start(server: u16) -> Result<Capture, String> {
        let nobody = TcpListener::bind("127.0.0.1:0").and_then(|closed| closed.local_addr());
        let nobody = nobody.map_err(|error| error.to_string())?.port();
        let filter = format!("tcp[tcpflags] & tcp-rst != 0 and (src port {server} or src port {nobody})");
        let mut tcpdump = Command::new("tcpdump")
            .args(["-i", "lo", "-n", "-l", "--immediate-mode", "-t", &filter])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("tcpdump: {error}"))?;
        let mut said = BufReader::new(tcpdump.stderr.as_mut().expect("it is a pipe"));
        let mut last = String::new();
        loop {
            let mut line = String::new();
            if said.read_line(&mut line).unwrap_or(0) == 0 {
                let _ = tcpdump.wait();
                return Err(format!("tcpdump cannot capture: {}", last.trim()));
            }
            if line.starts_with("listening on") {
                return Ok(Capture { tcpdump, server, nobody });
            }
            last = line;
        }
    }

    /// Returns the connections that were reset, by the addresses of the clients.
    fn stop(mut self) -> BTreeSet<String> {
        let _ = TcpStream::connect(("127.0.0.1", self.nobody)).expect_err("the port has no listener");
        let mut seen = BTreeSet::new();
        let mut packets = BufReader::new(self.tcpdump.stdout.take().expect("it is a pipe"));
        let mut all = String::new();
        // Lines are `IP 127.0.0.1.PORT > 127.0.0.1.CLIENT: Flags [R.], ...`, and the provoked reset comes last.
        loop {
            let mut line = String::new();
            let more = packets.read_line(&mut line).unwrap_or(0) > 0;
            assert!(more, "tcpdump has not seen the last reset: {all}");
            let mut words = line.split(' ');
            let (from, to) = (words.nth(1).unwrap_or_default(), words.nth(1).unwrap_or_default());
            if from.ends_with(&format!(".{}", self.nobody)) {
                break;
            }
            if from.ends_with(&format!(".{}", self.server)) {
                seen.insert(to.trim_end_matches(':').to_owned());
            }
            all.push_str(&line);
        }
        seen
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        signal(self.tcpdump.id(), Signal::SIGTERM);
        let until = Instant::now() + PATIENCE;
        while self.tcpdump.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut said = Vec::new();
        if let Some(stderr) = &mut self.tcpdump.stderr {
            let _ = stderr.read_to_end(&mut said);
        }
        assert!(
            !text(&said).contains("dropped by kernel") || text(&said).contains("0 packets dropped by kernel")
        );
    }
}
