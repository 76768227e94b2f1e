//! SIGHUP because the server's terminal closes is no request to restart.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::Signal;
use support::harness::{QUICK, example, get, is_alive, playground, skip, wait_until};
use support::process::{Server, command, signal};

use crate::faults::wait_is;

const PROMPT: &str = "READY FOR A COMMAND";
const GONE: &str = "the terminal is gone";

fn is_there(program: &str, args: &[&str]) -> bool {
    let tried = command(program).args(args).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

/// Starts a shell with job control in a new terminal; returns the shell and the keyboard of the terminal. The shell's stderr
/// is not the terminal, so it stays open when the terminal closes.
fn shell() -> Option<(Server, File)> {
    if !is_there("setsid", &["--wait", "bash", "-c", "true"]) {
        skip("no bash and setsid here, so no terminal to close");
        return None;
    }
    // Not with openpty(3): every process that is started meanwhile would inherit the master, and the terminal would not close.
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).expect("a pseudo-terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("writable");
    let slave = ptsname_r(&master).expect("a name");
    let slave = File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(slave)
        .expect("writable");
    let screen = || Stdio::from(slave.try_clone().expect("a descriptor"));
    let mut shell = command("setsid");
    shell.args(["--ctty", "bash", "--noprofile", "--norc", "--noediting", "-i"]);
    shell.env("PS1", format!("{PROMPT}\n")).stdin(screen()).stdout(screen());
    let server = Server::launch(shell);
    server.log().wait_for(PROMPT);
    Some((server, File::from(OwnedFd::from(master))))
}

fn typed(keyboard: &mut File, line: &str) {
    keyboard.write_all(format!("{line}\n").as_bytes()).expect("the terminal is open");
}

fn successors(server: &Server) -> usize {
    server.log().lines().iter().filter(|line| line.message() == "successor started").count()
}

/// Asserts that the server keeps serving, has started no successor, and obeys a SIGHUP from another process.
fn assert_goes_on(server: &Server, pid: u32) {
    server.log().wait_for(GONE);
    assert!(get(server.address(), "/").contains("generation=1 "));
    assert_eq!(successors(server), 0, "{}", server.log().history());
    signal(pid, Signal::SIGHUP);
    let second = server.wait_serving(2);
    server.wait_state(1, "draining");
    // The successor never had a terminal, so it obeys every sender.
    signal(second, Signal::SIGHUP);
    server.wait_serving(3);
}

#[test]
fn a_server_whose_terminal_closes_goes_on_and_starts_no_successor() {
    for in_the_background in ["", " &"] {
        let Some((mut server, mut keyboard)) = shell() else { return };
        let program = example("playground");
        typed(&mut keyboard, &format!("{} {}{in_the_background}", program.display(), QUICK.join(" ")));
        let pid = server.wait_serving(1);
        drop(keyboard);
        // By then the shell and the kernel have sent all their signals.
        server.first_exit();
        assert_goes_on(&server, pid);
    }
}

#[test]
fn a_supervisor_whose_terminal_closes_goes_on_and_restarts_nothing() {
    let Some((mut server, mut keyboard)) = shell() else { return };
    let program = example("playground");
    typed(&mut keyboard, &format!("{} {} --supervise", program.display(), QUICK.join(" ")));
    let front = server.log().wait_for("supervising the generations").pid();
    server.wait_serving(1);
    drop(keyboard);
    server.first_exit();
    assert!(get(server.address(), "/").contains("generation=1 "));
    signal(front, Signal::SIGHUP);
    server.wait_serving(2);
    server.wait_state(1, "draining");
    assert_eq!(successors(&server), 1, "{}", server.log().history());
    assert!(is_alive(front));
}

#[test]
fn the_shell_that_started_a_server_may_restart_it_while_its_terminal_is_there() {
    let Some((server, mut keyboard)) = shell() else { return };
    typed(&mut keyboard, &format!("{} {} &", example("playground").display(), QUICK.join(" ")));
    server.wait_serving(1);
    typed(&mut keyboard, "kill -HUP %1");
    server.wait_serving(2);
    server.wait_state(1, "draining");
}

/// Here the server itself is the session leader, so the kernel sends it SIGHUP.
#[test]
fn a_server_whose_tmux_is_killed_goes_on_and_starts_no_successor() {
    if !is_there("tmux", &["-V"]) {
        return skip("no tmux here");
    }
    let dir = tempfile::tempdir().expect("a directory");
    // A program in a pane has the terminal as its stderr unless it is redirected.
    let script = "mkfifo \"$1/stderr\" && tmux -f /dev/null -L test new-session -d \"exec $2 2>$1/stderr\" && \
                  exec cat \"$1/stderr\" >&2";
    let mut tmux = command("sh");
    let typed = format!("{} {}", example("playground").display(), QUICK.join(" "));
    tmux.args(["-c", script, "sh"]).arg(dir.path()).arg(typed);
    tmux.env("TMUX_TMPDIR", dir.path()).env("TERM", "xterm").env_remove("TMUX");
    let server = Server::launch(tmux);
    let pid = server.wait_serving(1);
    let mut kill = Command::new("tmux");
    kill.args(["-L", "test", "kill-server"]).env("TMUX_TMPDIR", dir.path()).env_remove("TMUX");
    assert!(kill.status().expect("tmux starts").success());
    assert_goes_on(&server, pid);
}

/// A script that never had a terminal may lead its session too.
#[test]
fn the_leader_of_a_session_without_terminal_may_restart_a_server() {
    if !is_there("setsid", &["--wait", "true"]) {
        return skip("no setsid here");
    }
    let mut script = command("setsid");
    script.args(["sh", "-c", "\"$@\" & read go; kill -HUP $!; wait", "sh"]);
    let playground = playground(&[]);
    script.arg(playground.get_program()).args(playground.get_args()).stdin(Stdio::piped());
    let server = Server::launch(script);
    let pid = server.wait_serving(1);
    let leader = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is alive");
    let leader = leader.rsplit_once(')').expect("proc_pid_stat(5)").1.split_whitespace().nth(3);
    assert_eq!(leader, Some(&*server.first_pid().to_string()));
    let mut stdin =
        File::options().write(true).open(format!("/proc/{}/fd/0", server.first_pid())).expect("a pipe");
    stdin.write_all(b"go\n").expect("sh reads");
    server.wait_serving(2);
    wait_is(&server, pid, "draining");
    wait_until("no line mentions a terminal", &server, || {
        !server.log().lines().iter().any(|line| line.message().starts_with(GONE))
    });
}
