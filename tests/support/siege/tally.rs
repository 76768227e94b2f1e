//! The outcome of a siege, and the promises that it broke.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::attackers::Waged;
use super::honest::{Answers, Asked};

/// The highest p99 allowed in a siege, as a multiple of the steady one.
const RATIO: f64 = 10.0;
/// The highest memory of a generation under any attack.
const MEMORY_MIB: f64 = 300.0;

#[derive(Debug, Serialize)]
pub struct Tally {
    pub(super) seconds: u64,
    pub(super) handovers: u64,
    /// Why handovers failed.
    pub(super) not_handed_over: Vec<String>,
    /// By kind of client, without attacks.
    pub(super) steady: BTreeMap<&'static str, Answers>,
    pub(super) besieged: BTreeMap<&'static str, Answers>,
    /// The besieged p99 over the steady one, for all kinds of clients together.
    pub(super) p99_ratio: f64,
    pub(super) asked: BTreeMap<&'static str, Asked>,
    /// The memory of the serving generation.
    pub(super) rss_mib: Course,
    pub(super) descriptors: Course,
    pub(super) attacks: Vec<Waged>,
}

/// The course of a quantity over time.
#[derive(Debug, Default, Serialize)]
pub struct Course {
    /// Before the attacks.
    pub(super) before: f64,
    pub(super) first: f64,
    pub(super) highest: f64,
    pub(super) last: f64,
    /// The highest value in the first third of the time, and in the last third.
    pub(super) thirds: [f64; 2],
    /// Some seconds after the attackers have left.
    pub(super) after: f64,
}

impl Course {
    pub(super) fn of(before: f64, during: &[f64], after: f64) -> Course {
        let highest = |part: &[f64]| part.iter().copied().fold(0.0, f64::max);
        let third = during.len() / 3;
        Course {
            before,
            first: during.first().copied().unwrap_or(f64::NAN),
            highest: highest(during),
            last: during.last().copied().unwrap_or(f64::NAN),
            thirds: [highest(&during[..third]), highest(&during[during.len() - third..])],
            after,
        }
    }

    /// Returns whether the value did not grow, apart from the differences between generations.
    fn is_flat(&self, slack: f64) -> bool {
        let [first, last] = self.thirds;
        last <= 1.3 * first + slack
    }
}

impl Tally {
    /// The number of unanswered requests of honest clients and operators.
    pub fn failed(&self) -> u64 {
        let asked = self.asked.values().flat_map(|asked| asked.failures.values());
        self.of(&self.steady).failed + self.of(&self.besieged).failed + asked.sum::<u64>()
    }

    fn of<'a>(&self, answers: &'a BTreeMap<&'static str, Answers>) -> &'a Answers {
        &answers["all"]
    }

    /// The broken promises. A steady p99 below `floor_ms` counts as `floor_ms`.
    pub fn broken(&self, floor_ms: f64) -> Vec<String> {
        let mut broken = self.not_handed_over.clone();
        if self.failed() > 0 {
            broken.push(format!("{} honest requests failed", self.failed()));
        }
        let (steady, besieged) = (self.of(&self.steady).p99_ms, self.of(&self.besieged).p99_ms);
        let most = RATIO * steady.max(floor_ms);
        // A p99 of NaN breaks the promise too.
        if besieged.partial_cmp(&most).is_none_or(std::cmp::Ordering::is_gt) {
            broken.push(format!("p99 is {besieged:.1} ms, and {steady:.1} ms without the siege"));
        }
        for (name, course, slack) in
            [("memory", &self.rss_mib, 16.0), ("descriptors", &self.descriptors, 64.0)]
        {
            if !course.is_flat(slack) {
                broken.push(format!("{name} grew: {course:?}"));
            }
        }
        if self.rss_mib.highest > MEMORY_MIB {
            broken.push(format!("the server used {:.0} MiB of memory", self.rss_mib.highest));
        }
        broken
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  {} handovers in {} s, failed: {:?}",
            self.handovers, self.seconds, self.not_handed_over
        )?;
        writeln!(f, "  honest clients       requests  failed      p50      p99  slowest   (ms)")?;
        for (when, answers) in [("steady", &self.steady), ("besieged", &self.besieged)] {
            for (kind, a) in answers {
                let (p50, p99, slowest) = (a.p50_ms, a.p99_ms, a.slowest_ms);
                let who = format!("{when}, {kind}");
                writeln!(
                    f,
                    "  {who:<20}{:>9} {:>7} {p50:>8.2} {p99:>8.2} {slowest:>8.1}",
                    a.requests, a.failed
                )?;
                for (kind, n) in &a.failures {
                    writeln!(f, "    {n} x {kind}")?;
                }
            }
        }
        writeln!(f, "  p99 besieged / steady: {:.1}", self.p99_ratio)?;
        for (question, asked) in &self.asked {
            let Asked { asked: n, failures, slowest_ms } = asked;
            writeln!(f, "  {question:<20}{n:>9} asked, slowest {slowest_ms:.0} ms, failures: {failures:?}")?;
        }
        for (name, c) in [("RSS, MiB", &self.rss_mib), ("descriptors", &self.descriptors)] {
            writeln!(
                f,
                "  {name:<20}before {:.0}, first {:.0}, highest {:.0}, last {:.0}, afterwards {:.0}",
                c.before, c.first, c.highest, c.last, c.after
            )?;
        }
        writeln!(
            f,
            "  attack                                 at a time  opened  closed  streams ended  refused  longest, s"
        )?;
        for w in &self.attacks {
            writeln!(
                f,
                "  {:<38}{:>10} {:>7} {:>7} {:>14} {:>8} {:>11.1}",
                w.attack,
                w.connections,
                w.opened,
                w.closed_by_server,
                w.ended_streams,
                w.refused,
                w.longest_s
            )?;
        }
        Ok(())
    }
}
