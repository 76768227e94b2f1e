//! The outcome of one run of one client: how many of its requests were answered, and how the others failed.

use std::collections::BTreeMap;

use serde_json::Value;

#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) version: String,
    pub(crate) answered: u64,
    /// The number of failures of each kind.
    pub(crate) failures: BTreeMap<String, u64>,
    /// The first and last generation that answered, where the client can tell.
    pub(crate) generations: Option<(u64, u64)>,
    /// Events that are worth a remark but are no failures.
    pub(crate) notes: BTreeMap<String, u64>,
}

impl Outcome {
    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Adds a failure that was seen `times` times, which may be 0.
    pub(crate) fn fail(&mut self, what: impl Into<String>, times: u64) {
        if times > 0 {
            *self.failures.entry(what.into()).or_default() += times;
        }
    }

    pub(crate) fn note(&mut self, what: impl Into<String>, times: u64) {
        if times > 0 {
            *self.notes.entry(what.into()).or_default() += times;
        }
    }

    pub(crate) fn saw(&mut self, generation: u64) {
        let (first, last) = self.generations.unwrap_or((generation, generation));
        self.generations = Some((first.min(generation), last.max(generation)));
    }

    /// Parses the last line of a client program, which is JSON.
    pub(crate) fn read(line: &str) -> Option<Outcome> {
        let json: Value = serde_json::from_str(line).ok()?;
        Outcome::from_json(&json)
    }

    pub(crate) fn from_json(json: &Value) -> Option<Outcome> {
        let mut outcome = Outcome {
            version: json["version"].as_str().unwrap_or_default().to_owned(),
            answered: json["answered"].as_u64()?,
            ..Outcome::default()
        };
        for (what, times) in json["failures"].as_object()? {
            outcome.fail(what, times.as_u64()?);
        }
        for (what, times) in json["counts"].as_object().into_iter().flatten() {
            outcome.note(what, times.as_u64()?);
        }
        for end in ["first", "last"] {
            if let Some(generation) = json[end].as_u64().filter(|generation| *generation > 0) {
                outcome.saw(generation);
            }
        }
        Some(outcome)
    }

    /// Adds the outcome of another worker or run of the same client.
    pub(crate) fn add(&mut self, other: &Outcome) {
        if self.version.is_empty() {
            self.version.clone_from(&other.version);
        }
        self.answered += other.answered;
        other.failures.iter().for_each(|(what, times)| self.fail(what, *times));
        other.notes.iter().for_each(|(what, times)| self.note(what, *times));
        for generation in other.generations.iter().flat_map(|(first, last)| [first, last]) {
            self.saw(*generation);
        }
    }
}
