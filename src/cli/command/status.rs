//! `handover status`: every generation that is alive.

use serde_json::{Value, json};

use super::find::{Generation, look};
use super::table::Table;
use super::{Trouble, Which, say};

pub(super) fn run(which: &Which, as_json: bool) -> Result<(), Trouble> {
    let generations = look(&which.find()?);
    if generations.is_empty() {
        return Err(Trouble::NotRunning("no server is running any more".into()));
    }
    if as_json {
        let silent = |pid| json!({ "pid": pid, "error": "does not answer" });
        let all: Vec<_> =
            generations.into_iter().map(|g| g.status.unwrap_or_else(|| silent(g.pid))).collect();
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
    let seconds = |name: &str| status[name].as_f64().map_or_else(|| "-".into(), age);
    let phase = match one.is_stopping() {
        true if one.phase() != "draining" => format!("{}, stopping", one.phase()),
        true => "stopping".into(),
        false => one.phase().to_owned(),
    };
    let (connections, requests) = (&status["connections"], &status["requests"]);
    vec![
        status["generation"].to_string(),
        one.pid.to_string(),
        phase,
        seconds("phase_s"),
        seconds("deadline_s"),
        connections["open"].to_string(),
        connections["accepted"].to_string(),
        requests["total"].to_string(),
        requests["in_flight"].to_string(),
        status["version"].as_str().unwrap_or_default().into(),
    ]
}

/// Where the server listens, who else does, and how the last handovers ended.
fn details(generations: &[Generation]) {
    let statuses = || generations.iter().filter_map(|one| one.status.as_ref());
    let mut addresses: Vec<&str> = Vec::new();
    for address in statuses().flat_map(|s| s["listen"].as_array()).flatten().filter_map(Value::as_str) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    for address in addresses {
        // The generation that was asked last knows best.
        let knows = statuses().rfind(|s| s["listen"].as_array().is_some_and(|l| l.contains(&address.into())));
        let members = knows.and_then(|s| s["port_group"].as_array()).map(Vec::as_slice).unwrap_or_default();
        let of_address = members.iter().filter(|member| member["address"] == address);
        let who = of_address.map(|member| match &member["pid"] {
            Value::Null => format!("a process of uid {}", member["uid"]),
            pid if is_known(generations, pid) => format!("pid {pid}"),
            pid => format!("pid {pid} (none of this server's, and may get its connections)"),
        });
        say(format_args!("{address}: {}", or_nobody(&who.collect::<Vec<_>>().join(", "))));
    }
    for one in generations {
        let Some(last) = one.status.as_ref().map(|status| &status["last_handover"]).filter(|l| !l.is_null())
        else {
            continue;
        };
        let ago = age(last["ago_s"].as_f64().unwrap_or(0.0));
        let what = match last["outcome"].as_str().unwrap_or_default() {
            "took over" => format!("took over from pid {} {ago} ago", last["predecessor"]),
            "handed over" => format!("handed over to pid {} {ago} ago", last["successor"]),
            outcome => {
                format!("handover {outcome} {ago} ago: {}", last["reason"].as_str().unwrap_or_default())
            }
        };
        say(format_args!("generation {}: {what}", one.number()));
        for line in last["stderr"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            say(format_args!("  | {line}"));
        }
    }
}

/// A successor that starts has no socket yet.
fn is_known(generations: &[Generation], pid: &Value) -> bool {
    let is_successor =
        |one: &Generation| one.status.as_ref().is_some_and(|status| status["successor"] == *pid);
    generations.iter().any(|one| *pid == one.pid || is_successor(one))
}

fn or_nobody(who: &str) -> &str {
    if who.is_empty() { "no listener" } else { who }
}

/// In two digits or so: `4.2s`, `17s`, `3m`, `5h`, `12d`.
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
