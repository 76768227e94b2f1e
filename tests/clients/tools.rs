//! curl, ab, wrk and h2load: the command line of each for GET and POST with pauses, and the parser of its summary.

use std::fmt::Write;
use std::process::Output;
use std::time::{Duration, Instant};

use support::process::command;

use crate::beside;
use crate::outcome::Outcome;
use crate::program::{Visit, finish, last_words, text};

/// Runs one process per worker, which requests a long list of URLs over one connection.
pub(crate) fn curl(flags: &[&str], visit: &Visit) -> Result<Outcome, String> {
    let mut all = Outcome::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..visit.workers).map(|worker| scope.spawn(move || one_curl(flags, visit, worker))).collect();
        for worker in workers {
            all.add(&worker.join().expect("a worker does not panic")?);
        }
        Ok(all)
    })
}

/// The separator between one response and the next.
const MARK: &str = "@@curl";

fn one_curl(flags: &[&str], visit: &Visit, worker: u64) -> Result<Outcome, String> {
    let requests = visit.length.as_millis() as u64 / visit.pause + 1;
    let body = |n: u64| format!("{worker}-{n} ").repeat(200);
    let mut config = String::new();
    for n in 0..requests {
        // `next` resets all options.
        let next = if n > 0 { "next\n" } else { "" };
        let (path, data) =
            if n % 2 == 0 { ("/", String::new()) } else { ("/echo", format!("data = \"{}\"\n", body(n))) };
        let flags: String = flags.iter().map(|flag| format!("{flag}\n")).collect();
        let keep_alive = if flags.contains("http1.0") { "header = \"connection: keep-alive\"\n" } else { "" };
        write!(
            config,
            "{next}url = \"{}{path}\"\n{data}{flags}{keep_alive}insecure\nsilent\nshow-error\nverbose\nmax-time = 15\n\
             write-out = \"\\n{MARK} %{{http_code}} %{{exitcode}} %{{errormsg}}|%header{{generation}}\\n\"\n",
            visit.url
        )
        .expect("a string");
    }
    let file = visit.dir.join(format!("{}-{}-{worker}", flags.concat(), visit.pause));
    std::fs::write(&file, config).map_err(|error| error.to_string())?;
    let mut curl = command("curl");
    let rate = if visit.pause < 1000 { 1000 / visit.pause } else { 60_000 / visit.pause };
    let unit = if visit.pause < 1000 { "s" } else { "m" };
    curl.args(["--rate", &format!("{rate}/{unit}"), "--config"]).arg(file);
    let output = finish(curl, visit.length * 2)?;

    let said = text(&output.stdout);
    let mut outcome = Outcome { version: version("curl", "--version", "curl "), ..Outcome::default() };
    let pieces: Vec<&str> = said.split(MARK).collect();
    for (n, piece) in pieces.windows(2).enumerate() {
        // The rest of the line after the mark is the summary of the previous response.
        let got = if n == 0 { piece[0] } else { piece[0].split_once('\n').unwrap_or_default().1 };
        let got = got.trim_end_matches('\n');
        let summary = piece[1].lines().next().unwrap_or_default().trim();
        let generation =
            got.strip_prefix("generation=").and_then(|rest| rest.split(' ').next()?.parse().ok());
        let right = if n % 2 == 0 { generation.is_some() } else { got == body(n as u64) };
        match (summary.starts_with("200 0"), right) {
            (true, true) => outcome.answered += 1,
            (true, false) => outcome.fail("a wrong body", 1),
            (false, _) => outcome.fail(summary, 1),
        }
        generation.into_iter().for_each(|generation| outcome.saw(generation));
    }
    outcome.fail("never asked", requests.saturating_sub(outcome.answered + outcome.failed()));
    let retried = text(&output.stderr).matches("retrying a fresh connect").count();
    outcome.note("times retried by itself", retried as u64);
    Ok(outcome)
}

/// Runs ab at full speed: it has no option for a pause.
pub(crate) fn ab(flags: &[&str], visit: &Visit) -> Result<Outcome, String> {
    let body = visit.dir.join(format!("ab-{}", flags.concat()));
    std::fs::write(&body, "ab ".repeat(700)).map_err(|error| error.to_string())?;
    let mut ab = command("ab");
    // More requests than ab can make: the time limit ends the run.
    ab.args(["-q", "-r", "-c", "4", "-t", &visit.length.as_secs().to_string(), "-n", "3000000"]);
    for flag in flags {
        ab.arg(flag);
        if *flag == "-p" {
            ab.arg(&body);
        }
    }
    let path = if flags.contains(&"-p") { "/echo" } else { "/bytes?n=1000" };
    ab.arg(format!("{}{path}", visit.url));
    let output = finish(ab, visit.length)?;
    let said = text(&output.stdout);
    let number = |name: &str| {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(name));
        line.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok())
    };
    let complete =
        number("Complete requests:").ok_or_else(|| format!("no summary: {}", last_words(&output)))?;
    let failed = number("Failed requests:").unwrap_or(0);
    let mut outcome = Outcome { version: version("ab", "-V", "Version "), ..Outcome::default() };
    outcome.answered = complete.saturating_sub(failed);
    let how = said.lines().map(str::trim).find(|line| line.starts_with("(Connect:")).unwrap_or("failed");
    outcome.fail(how, failed);
    outcome.fail("write errors", number("Write errors:").unwrap_or(0));
    outcome.fail("non-2xx responses", number("Non-2xx responses:").unwrap_or(0));
    Ok(outcome)
}

pub(crate) fn wrk(visit: &Visit) -> Result<Outcome, String> {
    // The script stops sending at `visit.length`, and the last requests have three seconds to be answered.
    let length = visit.length + Duration::from_secs(3);
    let mut wrk = command("wrk");
    wrk.args([
        "-t1",
        "-c",
        &visit.workers.to_string(),
        "-d",
        &format!("{}s", length.as_secs()),
        "--timeout",
        "15s",
    ]);
    wrk.arg("-s").arg(beside("programs/wrk.lua")).arg(&visit.url).arg("--");
    wrk.args([visit.pause.to_string(), visit.length.as_secs().to_string()]);
    let output = finish(wrk, length)?;
    let said = text(&output.stdout);
    let line = said.lines().next_back().unwrap_or_default();
    let json: serde_json::Value =
        serde_json::from_str(line).map_err(|_| format!("no report: {}", last_words(&output)))?;
    let number = |name: &str| json[name].as_u64().unwrap_or(0);
    let mut outcome = Outcome { version: version("wrk", "-v", "wrk debian/"), ..Outcome::default() };
    outcome.answered = number("answered");
    outcome.fail("not answered", number("sent").saturating_sub(number("answered") + number("wrong")));
    outcome.fail("a wrong answer", number("wrong"));
    for error in ["connect", "write", "status", "timeout"] {
        outcome.fail(format!("{error} errors"), number(error));
    }
    // Not a failed request: `socket_readable` of wrk.c counts the end of every connection, also of an idle one, as a read
    // error.
    outcome.note("idle connections closed, read errors to wrk", number("read"));
    [number("first"), number("last")].into_iter().filter(|seen| *seen > 0).for_each(|seen| outcome.saw(seen));
    Ok(outcome)
}

/// Runs h2load repeatedly, because it does not reconnect when the server ends a connection: `Client::process_request_failure`
/// of h2load.cc fails all requests that have not been sent. Only requests that were sent and not answered are lost.
pub(crate) fn h2load(flags: &[&str], visit: &Visit) -> Result<Outcome, String> {
    let end = Instant::now() + visit.length;
    let mut outcome = Outcome { version: version("h2load", "--version", "nghttp2/"), ..Outcome::default() };
    let (mut runs, mut post) = (0, false);
    let body = visit.dir.join(format!("h2load{}-{}", flags.concat(), visit.pause));
    let script = body.with_extension("times");
    std::fs::write(&body, "h2load ".repeat(300)).map_err(|error| error.to_string())?;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        // At least twice: GET, and then POST.
        let each = left.min(visit.length / 2).as_millis() as u64 / visit.pause;
        if each == 0 {
            break;
        }
        let workers = visit.workers;
        let mut h2load = command("h2load");
        h2load.args(flags).args(["-c", &workers.to_string()]);
        let path = if post { "/echo" } else { "/bytes?n=1000" };
        if flags.contains(&"--h1") {
            // With --rps, h2load 1.52 waits for ever once a server has said `Connection: close`: `rps_req_inflight` stays at 1.
            let times = (0..each).map(|n| format!("{}\t{path}\n", n * visit.pause));
            std::fs::write(&script, times.collect::<String>()).map_err(|error| error.to_string())?;
            h2load.args(["-n", &each.to_string(), "-B", &visit.url, "--timing-script-file"]).arg(&script);
        } else {
            h2load.args(["-n", &(each * workers).to_string()]);
            h2load.args(["--rps", &format!("{:.3}", 1000.0 / visit.pause as f64)]);
            h2load.arg(format!("{}{path}", visit.url));
        }
        if post {
            h2load.arg("-d").arg(&body);
        }
        let output = finish(h2load, left)?;
        let (started, succeeded) =
            requests(&output).ok_or_else(|| format!("no summary: {}", last_words(&output)))?;
        outcome.answered += succeeded;
        outcome.fail("sent and not answered", started - succeeded);
        (runs, post) = (runs + 1, !post);
    }
    outcome.note("runs", runs);
    Ok(outcome)
}

/// Returns how many requests h2load has sent, and how many of these were answered.
fn requests(output: &Output) -> Option<(u64, u64)> {
    let said = text(&output.stdout);
    let line = said.lines().find_map(|line| line.strip_prefix("requests: "))?;
    let number = |name: &str| line.split(", ").find_map(|part| part.strip_suffix(name)?.trim().parse().ok());
    Some((number("started")?, number("succeeded")?))
}

/// Returns the name and the word that follows `before` in the program's version text.
pub(crate) fn version(name: &str, flag: &str, before: &str) -> String {
    let mut asked = command(name);
    asked.arg(flag);
    let said = finish(asked, Duration::ZERO).map(|output| text(&[output.stdout, output.stderr].concat()));
    let said = said.unwrap_or_default();
    let version = said.lines().find_map(|line| line.split_once(before)?.1.split_whitespace().next());
    let version = version.unwrap_or_default();
    format!("{name} {version}")
}
