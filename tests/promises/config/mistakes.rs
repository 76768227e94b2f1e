//! Each mistake in a config is one line that names the file, the position, the key and the correct form, for a start and
//! for `--check`.

use support::process::command;

use super::{Bed, finish};
use crate::HANDOVER;

/// Config files with one mistake each, its position, and the words that the error line must contain.
const MISTAKES: [(&str, &str, &[&str]); 26] = [
    ("standbyy = '5s'", "1:1", &["unknown key \"standbyy\"", " standby, "]),
    ("\n\n[server]\nlisten = ''", "3:2", &["unknown key \"server\""]),
    ("verbose = 2", "1:1", &["unknown key \"verbose\"", "log-level"]),
    ("config = 'x'", "1:1", &["unknown key \"config\""]),
    ("standby = 5", "1:11", &["standby", "not 5", "standby = \"5s\""]),
    ("standby = '5'", "1:11", &["standby", "\"5\"", "unit", "standby = \"5s\""]),
    ("# ö\nprobes = 'yes'", "2:10", &["probes", "true or false", "\"yes\""]),
    ("'probes' = '\u{f6}' # the same", "1:12", &["probes"]),
    ("backlog = -1", "1:11", &["backlog", "-1"]),
    ("max-connections = 1.5", "1:19", &["max-connections", "a whole number", "1.5"]),
    ("pid-file = ['a']", "1:12", &["pid-file", "text", "a list"]),
    ("pid-file.name = 'a'", "1:1", &["pid-file", "text", "a table"]),
    ("listen = 'localhost'", "1:10", &["listen", "\"localhost\"", "127.0.0.1:8080"]),
    ("listen = ['[::1]:80', 80]", "1:10", &["listen", "not 80"]),
    ("listen = []", "1:10", &["listen", "an empty list"]),
    ("access-log = 'xml'", "1:14", &["access-log", "off, common, json"]),
    ("standby = '5s'\nprobes = true\nstandby = '6s'", "3:1", &["standby", "duplicate key"]),
    ("standby = 5s", "1:11", &["standby", "expected"]),
    ("listen = ['127.0.0.1:80',\n\n", "1:26", &["listen", "array"]),
    ("root = '/no/such/place'", "1:8", &["root", "/no/such/place", "No such file"]),
    ("\nlog-file = '/no/such/place/log'", "2:12", &["log-file", "/no/such/place/log", "No such file"]),
    ("headers = 'x: y'", "1:11", &["headers", "a table", "[headers]"]),
    ("[headers]\n'x y' = '1'", "2:9", &["headers.x y", "name"]),
    ("[headers]\nx = \"1\\n2\"", "2:5", &["headers.x", "line breaks"]),
    ("[headers]\nContent-Length = '1'", "2:18", &["headers.Content-Length", "server sets"]),
    ("[mime]\nmd = 'markdown'", "2:6", &["mime.md", "text/markdown"]),
];

#[test]
fn each_mistake_is_one_line_with_its_position_its_key_and_the_correct_form() {
    let bed = Bed::make();
    for (text, place, words) in MISTAKES {
        bed.file("handover.toml", text);
        let complaint = |flags: &[&str]| {
            let (code, stdout, stderr) = finish(&mut bed.command(flags));
            assert_eq!((code, &*stdout, stderr.lines().count()), (Some(1), "", 1), "{text:?}: {stderr}");
            let line = stderr.split_once(" ERROR ").expect("an error").1.split(" generation=").next();
            line.expect("split gives one part").to_owned()
        };
        let line = complaint(&[]);
        let begin = format!("{}:{place}: ", bed.path("handover.toml").display());
        assert!(line.starts_with(&begin), "{text:?} should be wrong at {place}: {line}");
        for word in words {
            assert!(line.contains(word), "{text:?}: {word:?} is missing: {line}");
        }
        assert_eq!(complaint(&["--check"]), line);
    }
}

#[test]
fn a_mistake_is_also_written_to_the_log_file_that_the_broken_config_names() {
    let bed = Bed::make();
    let log = format!("log-file = {:?}\n", bed.path("log"));
    for broken in ["standby = 5\n", "standby = \n", "standby = '5s'\nstandby = '6s'\n"] {
        for text in [format!("{log}{broken}"), format!("{broken}{log}")] {
            bed.file("log", "what was there before\n");
            bed.file("handover.toml", &text);
            let (code, _, stderr) = finish(&mut bed.command(&[]));
            // The error is on stderr as well.
            let log = bed.read("log");
            let appended = log.strip_prefix("what was there before\n").expect("the old text is still there");
            for said in [&stderr, appended] {
                assert!(said.contains("standby") && said.lines().count() == 1, "{text:?}: {said:?}");
            }
            assert_eq!(code, Some(1));
        }
    }
}

#[test]
fn a_config_that_cannot_be_read_is_named() {
    let bed = Bed::make();
    bed.file("latin", b"\xe4 = 1");
    for (path, why) in [
        ("/no/such/place", "No such file"),
        ("/", "directory"),
        (bed.path("latin").to_str().expect("UTF-8"), "UTF-8"),
        // An endless file must not be read to its end.
        ("/dev/zero", "larger"),
    ] {
        let (code, _, stderr) = finish(command(HANDOVER).args(["--config", path]));
        assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{stderr}");
        assert!(
            stderr.contains(&format!("cannot read the config {path}")) && stderr.contains(why),
            "{stderr}"
        );
    }
}

#[test]
fn a_mistake_in_a_flag_is_not_blamed_on_the_file() {
    let bed = Bed::make();
    bed.file("handover.toml", "root = '/no/such/place'\n");
    let (code, _, stderr) = finish(&mut bed.command(&["--check", "/no/such/flag"]));
    assert!(code == Some(1) && !stderr.contains("handover.toml"), "{stderr}");
    let root = bed.path("root");
    let (code, stdout, _) = finish(&mut bed.command(&["--check", root.to_str().expect("UTF-8")]));
    assert!(code == Some(0) && stdout.contains(root.to_str().expect("UTF-8")), "{stdout}");
}
