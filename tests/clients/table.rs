//! The table for the documentation: one row per client.

use std::fmt::{self, Display, Formatter};

use crate::outcome::Outcome;
use crate::species::Species;

/// A run of one client with one pause.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) pause: u64,
    pub(crate) outcome: Outcome,
    /// The number of handovers between its first and its last response.
    pub(crate) lived: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) species: Species,
    /// The reason if the client did not run.
    pub(crate) skipped: Option<String>,
    pub(crate) runs: Vec<Run>,
    /// The runs against nginx.
    pub(crate) beside: Vec<Run>,
}

impl Row {
    pub(crate) fn new(species: Species) -> Row {
        Row { species, skipped: None, runs: vec![], beside: vec![] }
    }

    pub(crate) fn all(&self) -> Outcome {
        sum(&self.runs)
    }
}

pub(crate) fn sum(runs: &[Run]) -> Outcome {
    let mut all = Outcome::default();
    runs.iter().for_each(|run| all.add(&run.outcome));
    all
}

#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    pub(crate) fn extend(&mut self, rows: Vec<Row>) {
        self.0.extend(rows);
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.0
    }
}

/// The number of failures, and the pauses at which they happened.
fn failures(runs: &[Run]) -> String {
    let all = sum(runs).failed();
    let by_pause: Vec<String> = runs
        .iter()
        .filter(|run| run.outcome.failed() > 0)
        .map(|run| format!("{} at {} ms", run.outcome.failed(), run.pause))
        .collect();
    if all == 0 { "0".to_owned() } else { format!("{all} ({})", by_pause.join(", ")) }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "| client | version | protocol | answered | failed | failed with nginx | remark |")?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        for row in &self.0 {
            let Species { name, protocol, remark, .. } = row.species;
            if let Some(why) = &row.skipped {
                writeln!(f, "| {name} | | {protocol} | skipped | | | {why} |")?;
                continue;
            }
            let Outcome { version, answered, notes, .. } = row.all();
            let failed = failures(&row.runs);
            let asked = sum(&row.beside);
            let asked = asked.answered + asked.failed();
            let beside =
                if asked == 0 { String::new() } else { format!("{} of {asked}", failures(&row.beside)) };
            let notes = notes.iter().map(|(what, times)| format!("{times} {what}"));
            let remarks = (!remark.is_empty()).then(|| remark.to_owned()).into_iter().chain(notes);
            let remarks = remarks.collect::<Vec<_>>().join("; ");
            writeln!(
                f,
                "| {name} | {version} | {protocol} | {answered} | {failed} | {beside} | {remarks} |"
            )?;
        }
        self.summary(f)
    }
}

impl Table {
    /// Writes the totals, and the text of every failure.
    fn summary(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (ran, skipped): (Vec<&Row>, Vec<&Row>) = self.0.iter().partition(|row| row.skipped.is_none());
        let answered: u64 = ran.iter().map(|row| row.all().answered).sum();
        let failed: u64 = ran.iter().map(|row| row.all().failed()).sum();
        let (clients, skipped) = (ran.len(), skipped.len());
        writeln!(f, "\nclients: {clients}; answered: {answered}; failed: {failed}; skipped: {skipped}")?;
        for row in ran {
            let Species { name, protocol, .. } = row.species;
            for (server, runs) in [("handover", &row.runs), ("nginx", &row.beside)] {
                for (what, times) in sum(runs).failures {
                    writeln!(f, "{server}: {name}, {protocol}: {times} x {what}")?;
                }
            }
        }
        Ok(())
    }
}
