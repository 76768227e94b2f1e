//! The throughput of serving files beside other file servers, measured with wrk.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::contenders::Contender;
use super::site::{FILES, File, SMALL, Site};
use super::wrk::{self, Counts};
use crate::measure::median;
use crate::progress::Progress;

const ALL: [Contender; 3] = [Contender::Handover, Contender::Nginx, Contender::StaticWebServer];

/// The outcome of a comparison.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    rounds: u32,
    wrk: String,
    /// The version of each server, or why it is missing.
    versions: BTreeMap<Contender, Result<String, String>>,
    cells: Vec<Cell>,
}

/// The measurements of one file, plain or with TLS.
#[derive(Debug, Serialize)]
struct Cell {
    #[serde(rename = "size", serialize_with = "size")]
    file: File,
    tls: bool,
    servers: BTreeMap<Contender, Runs>,
}

/// The measurements of one server in a cell.
#[derive(Debug, Default, Serialize)]
struct Runs {
    /// The requests per second in each round; 0 if the run failed.
    per_second: Vec<f64>,
    median: f64,
    /// handover's requests per second divided by these: the median of the ratios of all rounds.
    ratio: f64,
    socket_errors: u64,
    other_statuses: u64,
}

fn size<S: Serializer>(file: &File, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(file.size)
}

/// Measures each server in each round once for each cell, each time in a new process, in an order that rotates from round to
/// round. Returns why the comparison cannot run here.
pub(crate) fn compare(quick: bool) -> Result<Comparison, String> {
    let wrk = wrk::version().map_err(|why| format!("wrk: {why}"))?;
    let (rounds, seconds) = if quick { (2, 1) } else { (7, 2) };
    println!("\nfiles beside other servers: {wrk}, 64 connections, {seconds} s each, {rounds} rounds");
    let versions: BTreeMap<_, _> = ALL.into_iter().map(|one| (one, one.version())).collect();
    for (contender, version) in &versions {
        match version {
            Ok(version) => println!("  {version}"),
            Err(why) => println!("  {} skipped: {why}", contender.name()),
        }
    }
    let present: Vec<_> = ALL.into_iter().filter(|one| versions[one].is_ok()).collect();
    let site = Site::new();
    let mut cells: Vec<Cell> =
        [false, true].into_iter().flat_map(|tls| FILES.map(|file| Cell::new(file, tls))).collect();
    let progress = Progress::of(rounds);
    for round in 1..=rounds {
        progress.show(round.into(), 0);
        cells.iter_mut().for_each(|cell| cell.measure(&site, &present, round, seconds));
    }
    drop(progress);
    cells.iter_mut().for_each(Cell::evaluate);
    let comparison = Comparison { rounds, wrk, versions, cells };
    comparison.print(&present);
    Ok(comparison)
}

impl Comparison {
    /// The failed requests of handover.
    pub(crate) fn failed(&self) -> u64 {
        let ours = [Contender::Handover, Contender::HandoverLogging];
        let runs = self.cells.iter().flat_map(|cell| ours.iter().filter_map(|one| cell.servers.get(one)));
        runs.map(Runs::errors).sum()
    }

    fn print(&self, present: &[Contender]) {
        let others = &present[1..];
        print!("\n  requests/s    ");
        present.iter().for_each(|one| print!("  {:>10}", one.name()));
        others.iter().for_each(|one| print!("  handover/{}", one.name()));
        println!();
        for cell in &self.cells {
            print!("  {:>6} {:<7}", cell.file.size, if cell.tls { "TLS" } else { "plain" });
            for one in present {
                print!("  {:>1$.1}", cell.servers[one].median, one.name().len().max(10));
            }
            for one in others {
                print!("  {:>1$.3}", cell.servers[one].ratio, one.name().len() + "handover/".len());
            }
            println!();
        }
        self.cells.iter().for_each(Cell::print_access_log);
        self.cells.iter().for_each(Cell::print_errors);
    }
}

impl Cell {
    fn new(file: File, tls: bool) -> Cell {
        Cell { file, tls, servers: BTreeMap::new() }
    }

    /// The servers that are measured: in the first cell also handover with an access log.
    fn contenders(&self, present: &[Contender]) -> Vec<Contender> {
        let has_log = self.file.bytes == SMALL.bytes && !self.tls;
        present.iter().copied().chain(has_log.then_some(Contender::HandoverLogging)).collect()
    }

    fn measure(&mut self, site: &Site, present: &[Contender], round: u32, seconds: u32) {
        let mut contenders = self.contenders(present);
        let first = round as usize % contenders.len();
        contenders.rotate_left(first);
        for contender in contenders {
            let counts = contender
                .start(site, self.tls)
                .and_then(|running| wrk::run(running.address, self.tls, self.file, seconds));
            let runs = self.servers.entry(contender).or_default();
            match counts {
                Ok(counts) => runs.add(&counts, self.file),
                Err(why) => {
                    println!("  {}, {}: {why}", contender.name(), self.file.size);
                    runs.per_second.push(0.0);
                }
            }
        }
    }

    fn evaluate(&mut self) {
        let ours = self.servers[&Contender::Handover].per_second.clone();
        for runs in self.servers.values_mut() {
            let ratios: Vec<f64> = ours.iter().zip(&runs.per_second).map(|(ours, its)| ours / its).collect();
            (runs.median, runs.ratio) = (median(&runs.per_second), median(&ratios));
        }
    }

    fn print_access_log(&self) {
        if let Some(Runs { median, ratio, .. }) = self.servers.get(&Contender::HandoverLogging) {
            let (size, without) = (self.file.size, 1.0 / ratio);
            println!("  {size} plain with --access-log common: {median:.1}/s, {without:.3} of that without");
        }
    }

    fn print_errors(&self) {
        let tls = if self.tls { " with TLS" } else { "" };
        for (contender, runs) in self.servers.iter().filter(|(_, runs)| runs.errors() > 0) {
            println!(
                "  {}, {}{tls}: {} socket errors, {} answers with a status other than 2xx",
                contender.name(),
                self.file.size,
                runs.socket_errors,
                runs.other_statuses
            );
        }
    }
}

impl Runs {
    fn add(&mut self, counts: &Counts, file: File) {
        self.per_second.push(counts.per_second(file));
        self.socket_errors += counts.socket_errors;
        self.other_statuses += counts.other_statuses;
    }

    fn errors(&self) -> u64 {
        self.socket_errors + self.other_statuses
    }
}
