//! The table that stands in the documentation: one row for each client.

use std::fmt::{self, Display, Formatter};

use crate::outcome::Outcome;
use crate::species::Species;

/// One client with one pause.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) pause: u64,
    pub(crate) outcome: Outcome,
    /// How many handovers happened between its first and its last answer.
    pub(crate) lived: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) species: Species,
    /// Why it did not run.
    pub(crate) skipped: Option<String>,
    pub(crate) runs: Vec<Run>,
    /// The same against nginx.
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

/// How many, and with which pauses where there are any.
fn failed(runs: &[Run]) -> String {
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
        writeln!(f, "| client | protocol | answered | failed | nginx: answered | failed | remark |")?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        for row in &self.0 {
            let Species { name, protocol, remark, .. } = row.species;
            if let Some(why) = &row.skipped {
                writeln!(f, "| {name} | {protocol} | skipped | | | | {why} |")?;
                continue;
            }
            let all = row.all();
            let (beside, beside_failed) = if row.beside.is_empty() {
                (String::new(), String::new())
            } else {
                (sum(&row.beside).answered.to_string(), failed(&row.beside))
            };
            let notes = all.notes.iter().map(|(what, times)| format!("{times} {what}"));
            let remarks: Vec<String> = Some(remark.to_owned())
                .into_iter()
                .filter(|remark| !remark.is_empty())
                .chain(notes)
                .collect();
            let name =
                if all.version.starts_with(name) { all.version } else { format!("{name} ({})", all.version) };
            let (answered, failed) = (all.answered, failed(&row.runs));
            let remarks = remarks.join("; ");
            writeln!(
                f,
                "| {name} | {protocol} | {answered} | {failed} | {beside} | {beside_failed} | {remarks} |"
            )?;
        }
        let skipped = self.0.iter().filter(|row| row.skipped.is_some()).count();
        let (ran, failed): (Vec<&Row>, u64) = (
            self.0.iter().filter(|row| row.skipped.is_none()).collect(),
            self.0.iter().map(|r| r.all().failed()).sum(),
        );
        let answered: u64 = ran.iter().map(|row| row.all().answered).sum();
        writeln!(f, "\n{} clients, {answered} answered, {failed} failed; {skipped} skipped", ran.len())?;
        for row in ran {
            for (server, runs) in [("handover", &row.runs), ("nginx", &row.beside)] {
                for (what, times) in sum(runs).failures {
                    let Species { name, protocol, .. } = row.species;
                    writeln!(f, "{server}: {name}, {protocol}: {times} x {what}")?;
                }
            }
        }
        Ok(())
    }
}
