//! What the generations of a service have counted, so that a total survives each of them.
//!
//! Every generation knows its own counts and what others last told of theirs. Merging takes the greater of two reports about
//! the same generation, so it may happen often, late and in any order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The upper bounds of the handover times, in seconds.
pub(crate) const BOUNDS: [f64; 9] = [0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];
/// So many generations are known one by one; older ones are one sum.
const KNOWN: u64 = 64;

/// Everything here only ever grows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Counts {
    /// By status.
    pub(crate) requests: BTreeMap<u16, u64>,
    pub(crate) connections: u64,
    pub(crate) evicted: u64,
    /// By outcome.
    pub(crate) handovers: BTreeMap<String, u64>,
    /// How many took at most as long as each of the [`BOUNDS`] and longer than the one before; then longer ones.
    pub(crate) took: [u64; BOUNDS.len() + 1],
    pub(crate) took_seconds: f64,
    pub(crate) finished: u64,
    pub(crate) cut: u64,
    pub(crate) requests_cut: u64,
}

impl Counts {
    pub(crate) fn took(&mut self, seconds: f64) {
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.took[bucket] += 1;
        self.took_seconds += seconds;
    }

    fn combine(&mut self, other: &Counts, one: fn(u64, u64) -> u64, time: fn(f64, f64) -> f64) {
        for (status, n) in &other.requests {
            let mine = self.requests.entry(*status).or_default();
            *mine = one(*mine, *n);
        }
        for (outcome, n) in &other.handovers {
            let mine = self.handovers.entry(outcome.clone()).or_default();
            *mine = one(*mine, *n);
        }
        for (mine, n) in self.took.iter_mut().zip(other.took) {
            *mine = one(*mine, n);
        }
        self.took_seconds = time(self.took_seconds, other.took_seconds);
        self.connections = one(self.connections, other.connections);
        self.evicted = one(self.evicted, other.evicted);
        self.finished = one(self.finished, other.finished);
        self.cut = one(self.cut, other.cut);
        self.requests_cut = one(self.requests_cut, other.requests_cut);
    }

    fn add(&mut self, other: &Counts) {
        self.combine(other, |a, b| a + b, |a, b| a + b);
    }

    fn update(&mut self, other: &Counts) {
        self.combine(other, u64::max, f64::max);
    }
}

/// The counts of all generations, as far as they are known here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// What the generations of one server are known by.
    #[serde(default)]
    pub(crate) service: Option<String>,
    /// Up to this generation there is only the sum.
    summed_to: u64,
    sum: Counts,
    /// By `GENERATION.PID`: a generation that crashed is followed by one of the same number.
    known: BTreeMap<String, Counts>,
}

impl Ledger {
    pub(crate) fn learn(&mut self, generation: u64, pid: u32, counts: &Counts) {
        if generation > self.summed_to {
            self.known.entry(format!("{generation}.{pid}")).or_default().update(counts);
        }
    }

    pub(crate) fn merge(&mut self, other: Ledger) {
        if other.summed_to > self.summed_to {
            (self.summed_to, self.sum) = (other.summed_to, other.sum);
        }
        for (key, counts) in &other.known {
            self.known.entry(key.clone()).or_default().update(counts);
        }
        let summed_to = self.summed_to;
        self.known.retain(|key, _| number(key) > summed_to);
    }

    /// Sums up the generations of long ago. Only a generation that leaves does so, and what it says is then the truth.
    pub(crate) fn condense(&mut self, generation: u64) {
        let to = generation.saturating_sub(KNOWN);
        if to <= self.summed_to {
            return;
        }
        self.summed_to = to;
        let (old, known) =
            std::mem::take(&mut self.known).into_iter().partition(|(key, _)| number(key) <= to);
        self.known = known;
        let old: BTreeMap<String, Counts> = old;
        old.values().for_each(|counts| self.sum.add(counts));
    }

    #[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "nothing else needs the sum"))]
    pub(crate) fn total(&self) -> Counts {
        let mut total = self.sum.clone();
        self.known.values().for_each(|counts| total.add(counts));
        total
    }
}

fn number(key: &str) -> u64 {
    key.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(connections: u64) -> Counts {
        let mut counts = Counts { connections, ..Counts::default() };
        counts.took(0.02);
        counts
    }

    #[test]
    fn what_is_told_twice_or_late_counts_once() {
        let mut leader = Ledger::default();
        leader.learn(1, 100, &counts(5));
        leader.learn(2, 101, &counts(7));
        let early = leader.clone();
        leader.learn(1, 100, &counts(6));
        leader.merge(early.clone());
        leader.merge(early);
        assert_eq!(leader.total().connections, 13);
        assert_eq!(leader.total().took[1], 2);
    }

    #[test]
    fn a_generation_that_crashed_and_the_one_after_it_both_count() {
        let mut ledger = Ledger::default();
        ledger.learn(2, 101, &counts(1));
        ledger.learn(2, 102, &counts(2));
        assert_eq!(ledger.total().connections, 3);
    }

    #[test]
    fn a_thousand_generations_keep_their_sum_and_little_room() {
        let mut ledger = Ledger::default();
        for generation in 1..=1000 {
            ledger.learn(generation, 7, &counts(3));
            ledger.condense(generation);
            // Its successor begins with what it was told.
            let mut next = Ledger::default();
            next.learn(generation + 1, 7, &Counts::default());
            next.merge(ledger);
            ledger = next;
        }
        assert_eq!(ledger.total().connections, 3000);
        assert!(ledger.known.len() as u64 <= KNOWN + 1);
    }

    #[test]
    fn a_late_report_of_a_generation_that_is_summed_up_changes_nothing() {
        let mut ledger = Ledger::default();
        (1..=100).for_each(|generation| ledger.learn(generation, 7, &counts(1)));
        let before = ledger.clone();
        ledger.condense(100);
        ledger.merge(before);
        ledger.learn(3, 7, &counts(9));
        assert_eq!(ledger.total().connections, 100);
    }
}
