//! `--check`: tells whether a server would start, as far as possible without binding or creating anything.

use std::io::{self, Write};
use std::path::Path;

use handover::control::listening;

use super::config::Config;
use super::flags::Cli;
use super::log::{cannot_open, one_line};
use super::log_file;
use super::serve::{check_root, configured};

/// Prints what the server would serve, or returns the error that a start would return.
pub(super) fn check(
    cli: &Cli,
    log_file: Option<&Path>,
    config: &Config,
) -> Result<(), Box<dyn std::error::Error>> {
    let appendable = |key, what, path: Option<&Path>| match path.map(|path| (path, could_append(path))) {
        Some((path, Err(error))) => Err(config.blame(key, cannot_open(what, path, &error))),
        _ => Ok(()),
    };
    appendable("log-file", "log file", log_file)?;
    if let Some(root) = &cli.root {
        check_root(root).map_err(|problem| config.blame("root", problem))?;
    }
    let (_, _, has_tls) = configured(cli, config)?;
    let tls = if has_tls { " with TLS" } else { "" };
    if let Some(dir) = &cli.control.control {
        listening::check(dir)?;
    }
    appendable("access-log-file", "access log", cli.access.file())?;

    let served = match &cli.root {
        Some(root) => format!("the files of {}", root.display()),
        None => "a page that names the answering generation".into(),
    };
    let listen: Vec<_> = cli.server.listen()?.iter().map(ToString::to_string).collect();
    let said = cli.config.as_deref().map(|path| format!(", as {} says", path.display())).unwrap_or_default();
    let ok = format!("ok: would serve {served} on {}{tls}{said}", listen.join(" and "));
    io::stdout().write_all(&[one_line(ok.as_bytes()), b"\n".to_vec()].concat())?;
    Ok(())
}

/// Opens a file that exists; for a missing file only checks its directory. Creating the file is no option: the user who runs
/// the check may not be the user who serves, and would own the log.
fn could_append(path: &Path) -> io::Result<()> {
    match log_file::append(path, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if std::fs::metadata(dir)?.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
        }
        opened => opened.map(drop),
    }
}
