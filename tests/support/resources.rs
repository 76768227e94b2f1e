//! The resources that a process uses, from proc_pid_status(5) and proc_pid_stat(5).

use std::fs;

/// The resident memory of a process; NaN when the process is gone.
pub fn rss_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(f64::NAN) / 1024.0
}

/// The proportional memory of a process; 0 when it is gone. Processes that share memory count a part of it each, so that a sum
/// counts it once.
pub fn pss_mib(pid: u32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
}

/// The number of open descriptors of a process; NaN when it is gone. A float holds it exactly.
pub fn descriptors(pid: u32) -> f64 {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(f64::NAN, |all| all.count() as f64)
}

/// The user and system time of a process so far, with a resolution of 10 ms.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks = after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse().unwrap_or(f64::NAN));
    ticks.sum::<f64>() / 100.0
}
