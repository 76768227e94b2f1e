//! What may fail: nothing, but for a short list of what only the client can mend. Such a failure must be the one that is
//! listed, must not come to a client that pauses for longer than a second, and must not be more frequent than with nginx,
//! reloaded at the same moments.

use crate::species::Species;
use crate::table::{Row, sum};

/// In milliseconds: above this, a client has been told long before it asks again.
const LONG: u64 = 1000;
/// Every client must live through so many.
const HANDOVERS: u64 = 5;

struct Explained {
    client: &'static str,
    protocol: &'static str,
    /// What the text of the failure contains.
    failure: &'static str,
}

/// Each with the line of its source that takes a GOAWAY, which the protocol has for an orderly end, for an error.
const EXPLAINED: &[Explained] = &[];

/// Says what is wrong with a row, if anything.
pub(crate) fn judge(row: &Row) -> Option<String> {
    if row.skipped.is_some() {
        return None;
    }
    let mut wrong = vec![];
    for run in &row.runs {
        let pause = run.pause;
        if run.outcome.answered == 0 {
            wrong.push(format!("no answer with pauses of {pause} ms"));
        }
        if run.lived < HANDOVERS {
            wrong.push(format!("lived through {} handovers with pauses of {pause} ms", run.lived));
        }
        for (what, times) in &run.outcome.failures {
            if !explained(&row.species, what) || pause > LONG {
                wrong.push(format!("{times} x {what} with pauses of {pause} ms"));
            }
        }
    }
    let (ours, theirs) = (row.all().failed(), sum(&row.beside).failed());
    if is_more(ours, theirs) {
        wrong.push(format!("{ours} failed, and {theirs} with nginx"));
    }
    let Species { name, protocol, .. } = row.species;
    (!wrong.is_empty()).then(|| format!("{name}, {protocol}: {}", wrong.join("; ")))
}

fn explained(species: &Species, what: &str) -> bool {
    EXPLAINED.iter().any(|known| {
        (known.client, known.protocol) == (species.name, species.protocol) && what.contains(known.failure)
    })
}

/// Whether one count of rare events is more than another by other than chance: two standard deviations of their difference.
/// Both come from the same clients, pauses and number of restarts.
fn is_more(ours: u64, theirs: u64) -> bool {
    let more = ours.saturating_sub(theirs);
    more * more > 4 * (ours + theirs)
}

#[test]
fn a_few_failures_more_than_nginx_are_chance_and_many_are_not() {
    let cases = [(0, 0, false), (4, 0, false), (5, 0, true), (12, 10, false), (39, 5, true), (3, 30, false)];
    for (ours, theirs, more) in cases {
        assert_eq!(is_more(ours, theirs), more, "{ours} and {theirs}");
    }
}
