//! `--check` reports whether a server would start, and changes nothing.

use support::process::command;

use super::{Bed, finish};
use crate::HANDOVER;

#[test]
fn a_check_says_what_would_be_served_and_neither_binds_nor_creates_anything() {
    let bed = Bed::make();
    let server = bed.start("", &[]);
    let addr = server.address().to_string();
    let text = |name: &str| bed.path(name).to_str().expect("UTF-8").to_owned();
    let (log, access, root) = (text("log"), text("access"), text("root"));
    let flags =
        ["--check", "--listen", &addr, "--log-file", &log, "--access-log=json", "--access-log-file", &access];
    let (code, stdout, stderr) = finish(&mut bed.command(&flags));
    assert_eq!((code, &*stderr), (Some(0), ""));
    assert_eq!(
        stdout,
        format!("ok: would serve the files of {root} on {addr}, as {} says\n", text("handover.toml"))
    );
    assert!(!bed.path("log").exists() && !bed.path("access").exists());
    // An existing log stays as it is.
    bed.file("log", "as it was");
    assert_eq!(finish(&mut bed.command(&flags)).0, Some(0));
    assert_eq!(bed.read("log"), "as it was");
}

#[test]
fn a_check_fails_with_the_error_of_a_start_and_with_2_on_wrong_usage() {
    for (flags, status, words) in [
        (&["/no/such/place"][..], 1, &["cannot serve /no/such/place", "No such file"][..]),
        (&["--log-file", "/no/such/place/log"], 1, &["log file", "/no/such/place/log"]),
        (
            &["--access-log", "json", "--access-log-file", "/dev/null/log"],
            1,
            &["access log", "Not a directory"],
        ),
        (&["--standby", "5"], 2, &["--standby"]),
        (&["--unheard-of"], 2, &["--unheard-of"]),
    ] {
        let (code, stdout, stderr) = finish(command(HANDOVER).arg("--check").args(flags));
        assert_eq!((code, &*stdout), (Some(status), ""), "{stderr}");
        assert!(words.iter().all(|word| stderr.contains(word)), "{words:?}: {stderr}");
        assert!(status == 2 || stderr.lines().count() == 1, "{stderr}");
    }
}

#[test]
fn a_log_file_that_is_a_fifo_without_a_reader_is_refused_at_once() {
    let bed = Bed::make();
    let fifo = bed.path("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo is part of coreutils");
    for flags in [&["--listen", "127.0.0.1:0"][..], &["--check"]] {
        // An open that waits for a reader would hang the program and this test, hence `timeout`.
        let (code, _, stderr) =
            finish(command("timeout").args(["20", HANDOVER]).args(flags).arg("--log-file").arg(&fifo));
        assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{stderr}");
        assert!(stderr.contains("cannot open the log file"), "{stderr}");
    }
}

#[test]
fn a_check_finds_a_pid_file_or_control_directory_that_a_start_would_refuse() {
    let bed = Bed::make();
    bed.file("file", "");
    let open = bed.path("open");
    std::fs::create_dir(&open).expect("writable");
    std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("we own it");
    let long = bed.path(&"x".repeat(100));
    for (flag, path, why) in [
        ("--pid-file", bed.path("missing/pid"), "pid file"),
        ("--pid-file", bed.path("file/pid"), "pid file"),
        ("--pid-file", open.clone(), "pid file"),
        ("--control", open, "others may enter it"),
        ("--control", bed.path("file"), "not a directory"),
        ("--control", bed.path("file/below"), "ot a directory"),
        ("--control", long, "107"),
    ] {
        let complaint = |more: &[&str]| {
            let mut asked = command("timeout");
            asked.args(["20", HANDOVER, "--listen", "127.0.0.1:0", flag]).arg(&path).args(more);
            let (code, _, stderr) = finish(&mut asked);
            assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{flag} {path:?}: {stderr}");
            assert!(stderr.contains(why), "{flag} {path:?}: {stderr}");
        };
        complaint(&["--check"]);
        complaint(&[]);
        assert!(!bed.path("missing").exists());
    }
}
