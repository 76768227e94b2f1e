//! `handover status`: shows every generation that is alive.

use handover::control::protocol::Outcome;
use serde_json::{Value, json};

use super::discover::{Generation, find_generations};
use super::table::Table;
use super::{CommandError, ServerSelector, say};

pub(super) fn run(which: &ServerSelector, as_json: bool) -> Result<(), CommandError> {
    let generations = find_generations(&which.find()?);
    if generations.is_empty() {
        return Err(CommandError::NotRunning("no server is running any more".into()));
    }
    if as_json {
        let silent = |pid| json!({ "pid": pid, "error": "does not answer" });
        let all: Vec<_> = generations
            .into_iter()
            .map(|g| if g.status.is_some() { g.json } else { silent(g.pid) })
            .collect();
        say(format_args!("{:#}", Value::from(all)));
        return Ok(());
    }
    let heads = ["GEN", "PID", "PHASE", "SINCE", "LEFT", "OPEN", "CONNS", "REQUESTS", "ACTIVE", "VERSION"];
    let mut table = Table::new(&heads);
    generations.iter().for_each(|one| table.row(row(one)));
    say(table.to_string().trim_end());
    say("");
    details(&generations);
    Ok(())
}

fn row(one: &Generation) -> Vec<String> {
    let Some(status) = &one.status else {
        return vec!["?".into(), one.pid.to_string(), "does not answer".into()];
    };
    let phase = match one.is_stopping() {
        true if one.phase() != "draining" => format!("{}, stopping", one.phase()),
        true => "stopping".into(),
        false => one.phase().to_owned(),
    };
    vec![
        status.generation.to_string(),
        one.pid.to_string(),
        phase,
        age(status.phase_s),
        status.deadline_s.map_or_else(|| "-".into(), age),
        status.connections.open.to_string(),
        status.connections.accepted.to_string(),
        status.requests.total.to_string(),
        status.requests.in_flight.to_string(),
        status.version.clone(),
    ]
}

/// Prints the listeners on each address and how the last handovers ended.
fn details(generations: &[Generation]) {
    let statuses = || generations.iter().filter_map(|one| one.status.as_ref());
    let mut addresses: Vec<&String> = Vec::new();
    for address in statuses().flat_map(|status| &status.listen) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    for address in addresses {
        // The newest generation has the latest view of the port group.
        let knows = statuses().rfind(|status| status.listen.contains(address));
        let members = knows.iter().flat_map(|status| &status.port_group);
        let who = members.filter(|member| member.address == *address).map(|member| match member.pid {
            None => format!("a process of uid {}", member.uid),
            Some(pid) if is_known(generations, pid) => format!("pid {pid}"),
            Some(pid) => format!("pid {pid} (none of this server's, and may get its connections)"),
        });
        say(format_args!("{address}: {}", or_nobody(&who.collect::<Vec<_>>().join(", "))));
    }
    for one in generations {
        let Some(last) = one.status.as_ref().and_then(|status| status.last_handover.as_ref()) else {
            continue;
        };
        let (ago, failure) = (age(last.ago_s), &last.failure);
        let what = match last.outcome {
            Outcome::TookOver => {
                format!("took over from pid {} {ago} ago", last.predecessor.unwrap_or_default())
            }
            Outcome::HandedOver => {
                format!("handed over to pid {} {ago} ago", failure.successor.unwrap_or_default())
            }
            outcome => {
                format!("handover {outcome} {ago} ago: {}", failure.reason.as_deref().unwrap_or_default())
            }
        };
        say(format_args!("generation {}: {what}", one.number()));
        for line in failure.stderr.iter().flatten() {
            say(format_args!("  | {line}"));
        }
    }
}

/// Returns whether the pid belongs to this server. A successor that is starting has no control socket yet, but its
/// predecessor names it.
fn is_known(generations: &[Generation], pid: u32) -> bool {
    let is_successor =
        |one: &Generation| one.status.as_ref().is_some_and(|status| status.successor == Some(pid));
    generations.iter().any(|one| pid == one.pid || is_successor(one))
}

fn or_nobody(who: &str) -> &str {
    if who.is_empty() { "no listener" } else { who }
}

/// Formats a duration with two or three digits: `4.2s`, `17s`, `3m`, `5h`, `12d`.
fn age(seconds: f64) -> String {
    match seconds {
        ..9.95 => format!("{seconds:.1}s"),
        ..120.0 => format!("{seconds:.0}s"),
        ..7200.0 => format!("{:.0}m", seconds / 60.0),
        ..172_800.0 => format!("{:.0}h", seconds / 3600.0),
        _ => format!("{:.0}d", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_age_is_short() {
        for (seconds, text) in [(0.0, "0.0s"), (9.96, "10s"), (119.0, "119s"), (7199.0, "120m"), (1e6, "12d")]
        {
            assert_eq!(super::age(seconds), text);
        }
    }
}
