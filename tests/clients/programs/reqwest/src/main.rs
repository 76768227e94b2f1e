//! A client of reqwest. Usage: reqwest-client KIND URL PAUSE_MS WORKERS SECONDS, where KIND is http1, http2, or http2-once:
//! without reqwest's default retry of requests that the server says it has not processed.
//!
//! Each worker sends GET and POST in turn, with pauses; this program never retries. At the end, one line of JSON has the number
//! of answered requests, the failures by text, and the first and last generation that answered. A wrong response is a failure.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Debug, Default)]
struct Tally {
    answered: u64,
    failures: BTreeMap<String, u64>,
    generations: Option<(u64, u64)>,
}

impl Tally {
    fn add(&mut self, result: Result<Option<u64>, Failure>) {
        match result {
            Ok(generation) => {
                self.answered += 1;
                if let Some(seen) = generation {
                    let (first, last) = self.generations.unwrap_or((seen, seen));
                    self.generations = Some((first.min(seen), last.max(seen)));
                }
            }
            Err(failure) => *self.failures.entry(text(&*failure)).or_default() += 1,
        }
    }
}

/// The text of an error and its causes.
fn text(failure: &(dyn Error + 'static)) -> String {
    let mut text = failure.to_string();
    let mut cause = failure.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text.chars().take(160).collect()
}

/// The version of reqwest in the lock file.
fn version() -> String {
    let lock = include_str!("../Cargo.lock");
    let (_, version) = lock.split_once("name = \"reqwest\"\nversion = \"").expect("we depend on it");
    format!("reqwest {}", version.split('"').next().unwrap_or_default())
}

/// Sends one request and returns the generation if the body names it.
async fn ask(client: &Client, url: &str, sent: Option<String>) -> Result<Option<u64>, Failure> {
    let request = match &sent {
        None => client.get(format!("{url}/")),
        Some(body) => client.post(format!("{url}/echo")).body(body.clone()),
    };
    // Without the URL, so that failures at different ports count as the same failure.
    let answer = request.send().await.map_err(reqwest::Error::without_url)?;
    let status = answer.status();
    let body = answer.text().await.map_err(reqwest::Error::without_url)?;
    if status != 200 {
        return Err(format!("status {status}").into());
    }
    if let Some(sent) = sent {
        return if body == sent { Ok(None) } else { Err("a wrong body of POST".into()) };
    }
    let generation = body.strip_prefix("generation=").and_then(|rest| rest.split(' ').next()?.parse().ok());
    generation.map(Some).ok_or_else(|| "a wrong body of GET".into())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [kind, url, pause, workers, seconds] = &words[..] else { return Err("five words".into()) };
    let (pause, workers) = (Duration::from_millis(pause.parse()?), workers.parse::<u32>()?);
    let end = Instant::now() + Duration::from_secs_f64(seconds.parse()?);
    rustls::crypto::ring::default_provider().install_default().map_err(|_| "a second provider")?;
    let client = Client::builder().tls_danger_accept_invalid_certs(true).timeout(Duration::from_secs(15));
    let client = match &**kind {
        "http1" => client.http1_only().retry(reqwest::retry::never()),
        "http2-once" => client.retry(reqwest::retry::never()),
        _ => client,
    };
    let client = client.build()?;

    let tally = Arc::new(Mutex::new(Tally::default()));
    let mut all = JoinSet::new();
    for worker in 0..workers {
        let (client, url, tally) = (client.clone(), url.clone(), Arc::clone(&tally));
        all.spawn(async move {
            sleep(pause * worker / workers).await;
            for n in 0.. {
                if Instant::now() >= end {
                    break;
                }
                let sent = (n % 2 == 1).then(|| format!("{worker}-{n} ").repeat(300));
                let result = ask(&client, &url, sent).await;
                tally.lock().expect("no holder of the lock panics").add(result);
                sleep(pause).await;
            }
        });
    }
    while let Some(worker) = all.join_next().await {
        worker?;
    }
    let tally = tally.lock().expect("no holder of the lock panics");
    let (first, last) = tally.generations.unwrap_or_default();
    let failed: u64 = tally.failures.values().sum();
    let report = json!({
        "version": version(),
        "answered": tally.answered,
        "failed": failed,
        "failures": tally.failures,
        "first": first,
        "last": last,
    });
    println!("{report}");
    Ok(())
}
