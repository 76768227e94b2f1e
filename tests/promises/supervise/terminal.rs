//! The supervisor in a terminal: a shell with job control, a command typed into it, and Ctrl-C.

use std::fs::File;
use std::io::Write;
use std::process::Stdio;
use std::time::Instant;

use nix::pty::openpty;
use nix::sys::signal::Signal;
use support::harness::{Client, QUICK, example, get, skip, wait_until};
use support::process::{PATIENCE, Server, command, signal};

use super::wait_in_front;

const PROMPT: &str = "READY FOR A COMMAND";
const CTRL_C: &[u8] = b"\x03";

struct Terminal {
    server: Server,
    keyboard: File,
}

impl Terminal {
    /// Starts a shell and types the command of the playground with these flags.
    fn start(args: &[&str]) -> Option<Terminal> {
        let pty = openpty(None, None).expect("a pseudo-terminal");
        let screen = || Stdio::from(pty.slave.try_clone().expect("a descriptor"));
        let mut shell = command("setsid");
        shell.args(["--ctty", "bash", "--noprofile", "--norc", "--noediting", "-i"]);
        shell.env("PS1", format!("{PROMPT}\n")).stdin(screen()).stdout(screen());
        let there = command("setsid").args(["--wait", "bash", "-c", "true"]).status();
        if !there.is_ok_and(|status| status.success()) {
            skip("no bash and setsid here, so no terminal to type in");
            return None;
        }
        let server = Server::launch(shell);
        server.log().wait_for(PROMPT);
        let mut keyboard = File::from(pty.master);
        let program = example("playground");
        let typed = format!("{} {} {} --supervise\n", program.display(), QUICK.join(" "), args.join(" "));
        keyboard.write_all(typed.as_bytes()).expect("the terminal is open");
        wait_in_front(&server);
        server.wait_serving(1);
        Some(Terminal { server, keyboard })
    }

    fn press_ctrl_c(&mut self) {
        self.keyboard.write_all(CTRL_C).expect("the terminal is open");
    }

    fn front(&self) -> u32 {
        self.server.log().wait_for("supervising the generations").pid()
    }

    /// Returns the positions of the log lines with the shell's prompt.
    fn prompts(&self) -> Vec<usize> {
        let lines = self.server.log().lines();
        (0..lines.len()).filter(|at| lines[*at].text.contains(PROMPT)).collect()
    }

    /// Waits for the prompt, and asserts that the server prints nothing after it.
    fn assert_prompt_at_the_end(&self) {
        wait_until("the prompt comes back", &self.server, || self.prompts().len() >= 2);
        let lines = self.server.log().lines();
        let last = (0..lines.len()).rfind(|at| lines[*at].pid() != 0).expect("the server has said something");
        assert!(self.prompts()[1] > last, "{}", self.server.log().history());
    }

    /// Sends a request that takes this long, and waits until it has arrived.
    fn ask(&self, ms: u32, generation: u64) -> Client {
        let address = self.server.address();
        let mut client = Client::connect(address);
        client.send(&format!("/slow?ms={ms}"));
        let arrived = || get(address, "/").contains(&format!("generation={generation} "));
        wait_until("the request has arrived", &self.server, arrived);
        client
    }
}

#[test]
fn ctrl_c_after_a_handover_stops_all_and_the_prompt_comes_back_at_the_end() {
    let flags = ["--standby", "300ms", "--stop-idle-grace", "100ms"];
    let Some(mut terminal) = Terminal::start(&flags) else { return };
    let mut old = terminal.ask(1500, 1);
    signal(terminal.front(), Signal::SIGHUP);
    terminal.server.wait_serving(2);
    terminal.server.wait_state(1, "draining");
    let mut new = terminal.ask(1500, 2);
    terminal.press_ctrl_c();
    terminal.server.wait_state(2, "draining");
    assert_eq!(terminal.prompts().len(), 1, "{}", terminal.server.log().history());
    assert!(old.answer().contains("generation=1 "), "the request of the old generation was cut");
    assert!(new.answer().contains("generation=2 "), "the request of the new generation was cut");
    terminal.assert_prompt_at_the_end();
    terminal.server.log().wait_for("the service has ended");
}

#[test]
fn a_second_ctrl_c_ends_at_once() {
    let Some(mut terminal) = Terminal::start(&["--stop-timeout", "1h"]) else { return };
    signal(terminal.front(), Signal::SIGHUP);
    terminal.server.wait_serving(2);
    terminal.server.wait_state(1, "draining");
    let _client = terminal.ask(600_000, 2);
    terminal.press_ctrl_c();
    terminal.server.wait_state(2, "draining");
    let again = Instant::now();
    terminal.press_ctrl_c();
    terminal.assert_prompt_at_the_end();
    assert!(again.elapsed() < PATIENCE / 4, "it took {:?}", again.elapsed());
}
