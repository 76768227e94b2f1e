//! Background jobs that only one generation does at a time.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use support::harness::{hand_over, wait_until};
use support::process::{Server, signal};

use super::{assert_lossless, load, start};

/// One line of the record: the job, what happened to it, and the generation.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    job: PathBuf,
    verb: String,
    generation: u64,
}

fn steps(dir: &Path) -> Vec<Step> {
    let record = fs::read_to_string(dir.join(".done")).unwrap_or_default();
    let step = |line: &str| {
        let mut words = line.split(' ');
        let (job, verb) = (words.next()?.into(), words.next()?.to_owned());
        Some(Step { job, verb, generation: words.nth(1)?.parse().ok()? })
    };
    record.lines().map(|line| step(line).expect("a whole line")).collect()
}

fn start_with_jobs(dir: &Path) -> (Server, BTreeSet<PathBuf>) {
    let jobs: BTreeSet<_> = (0..500).map(|n| dir.join(format!("{n:03}"))).collect();
    jobs.iter().for_each(|job| drop(File::create(job).expect("writable")));
    (start("graceful_worker", &["127.0.0.1:0", dir.to_str().expect("UTF-8")]), jobs)
}

fn done_by(dir: &Path, generation: u64) -> usize {
    steps(dir).iter().filter(|step| step.verb == "done" && step.generation == generation).count()
}

/// Stops `pid`, waits until all generations have exited, and returns the record.
fn stop(server: &Server, pid: u32, dir: &Path) -> Vec<Step> {
    signal(pid, Signal::SIGTERM);
    wait_until("all generations have exited", server, || server.alive().is_empty());
    steps(dir)
}

#[test]
fn graceful_worker_hands_its_queue_over_job_by_job() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, jobs) = start_with_jobs(dir.path());
    let traffic = load(&server, server.address());
    wait_until("the first generation works", &server, || done_by(dir.path(), 1) >= 5);
    let second = hand_over(&server, 1, server.first_pid());
    assert!(done_by(dir.path(), 2) >= 5, "the second generation did not work before the end of standby");
    assert_lossless(traffic, 2, &server);
    let steps = stop(&server, second, dir.path());

    for pair in steps.chunks(2) {
        let [begun, done] = pair else { panic!("a job was left in the middle: {pair:?}") };
        assert_eq!((&*begun.verb, &*done.verb), ("begun", "done"), "two worked at once: {pair:?}");
        assert_eq!((&begun.job, begun.generation), (&done.job, done.generation));
    }
    assert!(
        steps.is_sorted_by_key(|step| step.generation),
        "the first generation went on: {steps:?}\n{}",
        server.log().history()
    );
    let done: Vec<_> = steps.iter().filter(|s| s.verb == "done").map(|s| s.job.clone()).collect();
    let (once, left) = (BTreeSet::from_iter(done.clone()), left(&jobs));
    assert_eq!(once.len(), done.len(), "a job was done twice");
    assert!(once.is_disjoint(&left) && &once | &left == jobs, "a job was lost");
}

#[test]
fn graceful_worker_goes_on_when_its_successor_is_killed() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, jobs) = start_with_jobs(dir.path());
    signal(server.first_pid(), Signal::SIGHUP);
    let second = server.wait_serving(2);
    wait_until("the second one works", &server, || done_by(dir.path(), 2) >= 2);
    signal(second, Signal::SIGKILL);
    let before = done_by(dir.path(), 1);
    wait_until("the first one works again", &server, || done_by(dir.path(), 1) >= before + 5);
    let steps = stop(&server, server.first_pid(), dir.path());

    let done: BTreeSet<_> = steps.iter().filter(|s| s.verb == "done").map(|s| s.job.clone()).collect();
    assert_eq!(&done | &left(&jobs), jobs, "a job was lost");
    let begun_twice = steps.iter().filter(|s| s.verb == "begun").count() - done.len();
    assert!(begun_twice <= 1, "only the current job may be begun twice");
}

fn left(jobs: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    jobs.iter().filter(|job| job.exists()).cloned().collect()
}
