//! A headless Chromium with the page `programs/page.html`, which requests images, responses, events and messages, and reports
//! to the small server in this file that served it. All its host names resolve to this machine: there is one name per pause,
//! because a browser shares its connections among all requests to one host.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::process::command;

use crate::outcome::Outcome;
use crate::program::Visit;
use crate::species::PAUSES;
use crate::tools::version;

const IMAGES: usize = 50;

/// Makes a folder with the images.
pub(crate) fn site(dir: &Path) -> PathBuf {
    let site = dir.join("site");
    std::fs::create_dir_all(&site).expect("writable");
    for n in 0..IMAGES {
        let image =
            format!("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"9\" height=\"9\"><!-- {n} --></svg>");
        std::fs::write(site.join(format!("{n}.svg")), image).expect("writable");
    }
    site
}

/// The part of the page's query that names the servers.
pub(crate) fn url(scheme: &str, files: SocketAddr, everything: SocketAddr) -> String {
    format!("scheme={scheme}&files={}&everything={}", files.port(), everything.port())
}

/// Runs the browser and returns the outcome of each row of the page. A browser that does not report has failed.
pub(crate) fn chromium(visit: &Visit) -> Vec<(u64, Outcome)> {
    let version = version("chromium", "--version", "Chromium ");
    let said = browse(visit).and_then(|report| {
        let rows: Value = serde_json::from_str(&report).map_err(|error| error.to_string())?;
        let rows = rows.as_array().into_iter().flatten();
        rows.map(|row| Some((row["pause"].as_u64()?, Outcome::from_json(row)?)))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| format!("a report without its numbers: {report}"))
    });
    let mut rows = said.unwrap_or_else(|why| {
        let mut outcome = Outcome::default();
        outcome.fail(why, 1);
        vec![(visit.pause, outcome)]
    });
    rows.iter_mut().for_each(|(_, outcome)| outcome.version.clone_from(&version));
    rows
}

fn browse(visit: &Visit) -> Result<String, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let home = listener.local_addr().map_err(|error| error.to_string())?;
    let pauses = PAUSES.map(|pause| pause.to_string()).join(",");
    let page = format!(
        "http://{home}/?{}&pauses={pauses}&seconds={}&report=http://{home}/report",
        visit.url,
        visit.length.as_secs()
    );
    let profile = tempfile::tempdir_in(&visit.dir).map_err(|error| error.to_string())?;
    let mut chromium = command("chromium");
    chromium
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--disable-dev-shm-usage", "--ignore-certificate-errors"])
        // The page comes from another origin than the files that it requests.
        .args(["--disable-web-security", "--host-resolver-rules=MAP *.test 127.0.0.1"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(page)
        .stderr(Stdio::null());
    let mut chromium = chromium.spawn().map_err(|error| format!("chromium: {error}"))?;
    let report = collect(&listener, &mut chromium, Instant::now() + visit.length + Duration::from_secs(45));
    // A kill loses nothing: the profile is temporary, and Chromium's children exit with it.
    let _ = chromium.kill();
    let _ = chromium.wait();
    report
}

/// Serves the page until the report has come.
fn collect(listener: &TcpListener, browser: &mut Child, deadline: Instant) -> Result<String, String> {
    listener.set_nonblocking(true).map_err(|error| error.to_string())?;
    loop {
        if let Ok((stream, _)) = listener.accept() {
            match exchange(stream) {
                Ok(Some(report)) => return Ok(report),
                // A browser opens connections in advance, and may send no request on them.
                Ok(None) | Err(_) => continue,
            }
        }
        if let Ok(Some(status)) = browser.try_wait() {
            return Err(format!("chromium left without a report: {status}"));
        }
        if Instant::now() > deadline {
            return Err("chromium did not report".to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Answers one request; returns the body if it is the report.
fn exchange(mut stream: TcpStream) -> std::io::Result<Option<String>> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let page: &[u8] = if first.starts_with("GET /?") { include_bytes!("programs/page.html") } else { b"" };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        page.len()
    )?;
    stream.write_all(page)?;
    Ok(first.starts_with("POST /report").then(|| String::from_utf8_lossy(&body).into_owned()))
}
