//! The man page and the shell completions that a package installs beside the program.

use std::io::Write;
use std::process::Stdio;

use support::harness::skip;
use support::process::command;

use crate::HANDOVER;

fn print(args: &[&str]) -> String {
    let output = command(HANDOVER).args(args).stdout(Stdio::piped()).output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The long flags that `--help` names.
fn flags() -> Vec<String> {
    let help = print(&["--help"]);
    let words = help.split(|c: char| c.is_whitespace() || "[=,<`".contains(c));
    let named = words.filter(|word| word.starts_with("--")).map(|word| word.trim_end_matches('.'));
    let mut flags: Vec<_> = named.map(str::to_owned).collect();
    flags.sort();
    flags.dedup();
    assert!(flags.len() > 20, "{flags:?}");
    flags
}

#[test]
fn the_man_page_names_every_flag_and_subcommand_and_man_can_read_it() {
    let page = print(&["man"]);
    let plain = page.replace("\\-", "-");
    for flag in flags() {
        assert!(plain.contains(&flag), "{flag} is missing");
    }
    for subcommand in ["reload", "status", "stop", "reopen", "upgrade", "completions"] {
        assert!(plain.contains(&format!(".SH \"handover {subcommand}\"")), "{subcommand} is missing");
    }
    let mut groff = command("groff");
    groff.args(["-man", "-Tutf8", "-ww"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut reading) = groff.spawn() else { return skip("no groff here, so the man page is not checked") };
    reading.stdin.take().expect("a pipe").write_all(page.as_bytes()).expect("groff reads");
    let output = reading.wait_with_output().expect("groff exits");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn every_shell_gets_completions_and_bash_completes_a_flag() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(print(&["completions", shell]).contains("wait-drained"), "{shell}");
    }
    let script = "source /dev/stdin; COMP_WORDS=(handover reload --wait); COMP_CWORD=2; \
                  _handover handover --wait reload; echo \"${COMPREPLY[*]}\"";
    let mut bash = command("bash");
    bash.args(["--norc", "-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut completing) = bash.spawn() else { return skip("no bash here to complete a flag") };
    let mut input = completing.stdin.take().expect("a pipe");
    input.write_all(print(&["completions", "bash"]).as_bytes()).expect("bash reads");
    drop(input);
    let output = completing.wait_with_output().expect("bash exits");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "--wait-drained");
}
