//! Judges the reports of a machine, by the same rules on every kernel.

use serde_json::Value;

use crate::HANDOVERS;
use crate::machine::Heard;

/// Asserts that the reports are as they must be, and returns one line with the result.
pub(crate) fn judge(series: &str, heard: &Heard) -> String {
    let Heard { reports, took, .. } = heard;
    let all =
        || format!("{}\n{}", reports.iter().map(|r| format!("{r}\n")).collect::<String>(), heard.console);
    assert!(!heard.is_overdue, "after {took:.0?} the machine was not done:\n{}", all());
    let first = reports.first().unwrap_or_else(|| panic!("the machine said nothing:\n{}", all()));
    let kernel = first["kernel"].as_str().unwrap_or_default();
    assert!(kernel.starts_with(&format!("{series}.")), "{}", all());
    let mut line = format!("Linux {kernel}: booted in {} s", first["seconds_to_boot"]);
    for sock_diag in [false, true] {
        let mut seconds = 0.0;
        let mut came = |scenario: &str| {
            let is_it = |r: &&Value| r["scenario"] == scenario && r["sock_diag"] == sock_diag;
            let report = reports.iter().find(is_it);
            let report = report.unwrap_or_else(|| panic!("nothing of {scenario:?}, {sock_diag}:\n{}", all()));
            seconds += report["seconds"].as_f64().unwrap_or_default();
            assert_eq!(report["is_loaded"], sock_diag, "{report}");
            let panicked = report["came"]["panic"].as_str();
            assert_eq!(
                panicked,
                None,
                "{scenario:?}, sock_diag {sock_diag}: {}",
                panicked.unwrap_or_default()
            );
            &report["came"]
        };
        let requests = lossless(came("handovers"));
        healed(came("crash"));
        refused_by_name(came("second server"), sock_diag);
        warned(came("refused"));
        let with = if sock_diag { "with" } else { "without" };
        line += &format!(
            "; {with} sock_diag {HANDOVERS} handovers, {requests} requests, 0 failed, all scenarios in {seconds:.0} s"
        );
    }
    format!("{line}; {took:.0?} in all")
}

/// Asserts that every generation answered both kinds of clients and nothing failed; returns the number of requests.
fn lossless(came: &Value) -> u64 {
    let lines = || came["log"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let history = || lines().map(|line| format!("{line}\n")).collect::<String>();
    let generations: Value = (1..=HANDOVERS + 1).collect();
    ["fresh", "kept"]
        .map(|kind| {
            let kind = &came[kind];
            assert_eq!(kind["failed"], 0, "{kind}\n{}", history());
            assert_eq!(kind["generations"], generations, "{kind}\n{}", history());
            kind["answered"].as_u64().unwrap_or_default()
        })
        .iter()
        .sum()
}

fn healed(came: &Value) {
    let by = |who: &str, generation| {
        let who = came[who].as_str().unwrap_or_default();
        assert!(who.starts_with(&format!("generation={generation} ")), "{who:?}: {came}");
    };
    by("healed", 1);
    by("kept", 1);
    by("next", 2);
}

/// Asserts that the second server was refused, and that the error names the holder of the address if sock_diag is available.
fn refused_by_name(came: &Value, sock_diag: bool) {
    let said = came["said"].as_str().unwrap_or_default();
    assert_eq!(came["status"], 1, "{came}");
    assert!(said.contains("in use"), "{came}");
    let named = said.contains(&format!("pid {}", came["holder"]));
    assert_eq!(named, sock_diag, "{came}");
    assert!(came["after"].as_str().is_some_and(|who| who.starts_with("generation=1 ")), "{came}");
}

fn warned(came: &Value) {
    assert_eq!(came["warnings"], Value::from(vec![1, 1]), "{came}");
    assert!(came["after"].as_str().is_some_and(|who| who.starts_with("generation=2 ")), "{came}");
}
