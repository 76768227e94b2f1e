//! Files that a package installs beside the program, generated from the flags: shell completions and the man page.

use std::io::{self, Write};

use clap_complete::Shell;

use super::{CommandError, failed};

pub(super) fn completions(shell: Shell, mut program: clap::Command) -> Result<(), CommandError> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut program, "handover", &mut text);
    print(&text)
}

/// Prints the man page of the program, with one section for each subcommand.
pub(super) fn man(program: &clap::Command) -> Result<(), CommandError> {
    let mut text = Vec::new();
    let mut rendered = clap_mangen::Man::new(program.clone()).render(&mut text);
    for subcommand in program.get_subcommands().filter(|one| !one.is_hide_set()) {
        let name = subcommand.get_name();
        let page = clap_mangen::Man::new(subcommand.clone());
        rendered = rendered
            .and_then(|()| writeln!(text, ".SH \"handover {name}\""))
            .and_then(|()| page.render_description_section(&mut text))
            .and_then(|()| page.render_options_section(&mut text));
    }
    rendered.map_err(|error| failed(error.to_string()))?;
    print(&text)
}

fn print(text: &[u8]) -> Result<(), CommandError> {
    io::stdout().write_all(text).map_err(|error| failed(format!("cannot write to stdout: {error}")))
}
