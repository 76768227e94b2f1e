//! The config file. Each value becomes the default of the flag with the same name, so a flag wins and its parser checks the
//! value. Only the tables in `tables` have no flag.
//!
//! An error names the file, the position and the key. The valid entries are applied nevertheless, so that the error is logged
//! where the file says that the log goes.

use std::any::TypeId;
use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::builder::OsStr;
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

mod tables;
pub(crate) use tables::Tables;

/// Flags that are not config keys: they concern the file itself or a single start.
const FLAGS_ONLY: [&str; 6] = ["config", "check", "verbose", "quiet", "help", "version"];
/// Largest config file in bytes; a larger one was named by mistake.
const LARGEST: u64 = 1 << 20;

/// The settings that only the file has, and the positions of the others in it.
#[derive(Debug, Default)]
pub(crate) struct Config {
    pub(crate) tables: Tables,
    /// `FILE:LINE:COLUMN: KEY` by key, only of values that no flag overrides.
    origins: HashMap<String, String>,
}

impl Config {
    /// Prefixes `problem` with the position of `key` in the file, if the value comes from there.
    pub(crate) fn blame(&self, key: &str, problem: String) -> String {
        match self.origins.get(key) {
            Some(origin) => format!("{origin}: {problem}"),
            None => problem,
        }
    }
}

/// Parses the command line and the config file that it names. Exits with status 2 on wrong usage.
pub(crate) fn parse<C: CommandFactory + FromArgMatches>() -> (C, Config, Result<(), String>) {
    let given = C::command().get_matches();
    let mut command = C::command();
    let mut config = Config::default();
    let read = match given.get_one::<PathBuf>("config") {
        Some(path) => read(path).and_then(|text| config.take(&mut command, path, &text)),
        None => Ok(()),
    };
    config.origins.retain(|key, _| {
        let id = argument(&command, key).map(|arg| arg.get_id().as_str().to_owned());
        id.is_some_and(|id| given.value_source(&id) != Some(ValueSource::CommandLine))
    });
    let cli = C::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    (cli, config, read)
}

fn read(path: &Path) -> Result<String, String> {
    let cannot = |why: String| {
        format!("cannot read the config {}: {why}; name a TOML file that this user may read", path.display())
    };
    let mut text = String::new();
    let file = File::open(path).map_err(|error| cannot(error.to_string()))?;
    let size = file.take(LARGEST + 1).read_to_string(&mut text).map_err(|error| cannot(error.to_string()))?;
    if size as u64 > LARGEST { Err(cannot(format!("it is larger than {LARGEST} bytes"))) } else { Ok(text) }
}

/// A config file and its text, to turn spans into positions.
#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Place<'_> {
    fn at(self, span: &Range<usize>) -> String {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let (line, column) = match before.rsplit_once('\n') {
            Some((above, left)) => (above.matches('\n').count() + 2, left.chars().count() + 1),
            None => (1, before.chars().count() + 1),
        };
        format!("{}:{line}:{column}", self.path.display())
    }
}

impl Config {
    /// Applies all valid entries and returns the first error.
    fn take(&mut self, command: &mut Command, path: &Path, text: &str) -> Result<(), String> {
        let place = Place { path, text };
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut result = errors.first().map_or(Ok(()), |error| Err(syntax(place, error)));
        // In the order of the file, so that the first error in the file is reported.
        let mut entries: Vec<_> = table.get_ref().iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let taken = match key.get_ref().as_ref() {
                "headers" => self.tables.take_headers(value, place),
                "mime" => self.tables.take_mime(value, place),
                name => self.take_value(command, name, key, value, place),
            };
            result = result.and(taken);
        }
        result
    }

    fn take_value(
        &mut self,
        command: &mut Command,
        name: &str,
        key: &Spanned<impl Sized>,
        value: &Spanned<DeValue<'_>>,
        place: Place<'_>,
    ) -> Result<(), String> {
        let Some(arg) = argument(command, name) else {
            let at = place.at(&key.span());
            return Err(format!("{at}: unknown key {name:?}; there are {}", known(command)));
        };
        let origin = format!("{}: {name}", place.at(&value.span()));
        let values = values(arg, value.get_ref()).map_err(|why| format!("{origin}: {why}"))?;
        for value in &values {
            check(command, arg, value)
                .map_err(|why| format!("{origin}: cannot use {value:?}: {why}; {}", expected(arg)))?;
        }
        let id = arg.get_id().clone();
        *command = std::mem::take(command)
            .mut_arg(id, |arg| arg.default_values(values.into_iter().map(OsStr::from)));
        self.origins.insert(name.to_owned(), origin);
        Ok(())
    }
}

fn syntax(place: Place<'_>, error: &toml::de::Error) -> String {
    let span = error.span().unwrap_or_default();
    // The text before the equals sign of the line is the key, unless the line is not TOML at all.
    let above = place.text.get(..span.start).unwrap_or_default();
    let line = place.text.get(above.rfind('\n').map_or(0, |end| end + 1)..).unwrap_or_default();
    let key = line.lines().next().unwrap_or_default().split('=').next().unwrap_or_default().trim();
    let advice = match error.message() {
        "duplicate key" => "say it once",
        _ => "expected TOML, such as standby = \"5s\"",
    };
    format!("{}: {key}: {}; {advice}", place.at(&span), error.message())
}

/// Returns the config key of an argument: the name of the flag without dashes.
fn key_of(arg: &Arg) -> &str {
    arg.get_long().unwrap_or(arg.get_id().as_str())
}

fn argument<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| key_of(arg) == key && !FLAGS_ONLY.contains(&key))
}

fn known(command: &Command) -> String {
    let keys = command.get_arguments().map(key_of).filter(|key| !FLAGS_ONLY.contains(key));
    keys.chain(["[headers]", "[mime]"]).collect::<Vec<_>>().join(", ")
}

/// The TOML type of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Integer,
    Text,
    Texts,
}

impl Kind {
    fn of(arg: &Arg) -> Kind {
        let parsed = arg.get_value_parser().type_id();
        if parsed == TypeId::of::<bool>() {
            Kind::Bool
        } else if parsed == TypeId::of::<u32>() || parsed == TypeId::of::<usize>() {
            Kind::Integer
        } else if matches!(arg.get_action(), ArgAction::Append) {
            Kind::Texts
        } else {
            Kind::Text
        }
    }
}

/// Describes a valid value.
fn expected(arg: &Arg) -> String {
    let key = key_of(arg);
    let example = arg.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
    match (Kind::of(arg), example) {
        (Kind::Bool, _) => "expected true or false".into(),
        (Kind::Integer, None) => "expected a whole number".into(),
        (Kind::Integer, Some(example)) => format!("expected a whole number, such as {key} = {example}"),
        (Kind::Text, None) => "expected text in quotes".into(),
        (Kind::Text, Some(example)) => format!("expected text in quotes, such as {key} = {example:?}"),
        (Kind::Texts, example) => {
            let example = example.unwrap_or_default();
            format!("expected text in quotes or a list of it, such as {key} = [{example:?}]")
        }
    }
}

/// Converts a TOML value into the text values of a flag.
fn values(arg: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let wrong = |value: &DeValue<'_>| format!("{}, not {}", expected(arg), described(value));
    match (Kind::of(arg), value) {
        (Kind::Bool, DeValue::Boolean(value)) => Ok(vec![value.to_string()]),
        (Kind::Integer, DeValue::Integer(value)) if value.radix() == 10 => {
            Ok(vec![value.as_str().to_owned()])
        }
        (Kind::Text | Kind::Texts, DeValue::String(value)) => Ok(vec![value.to_string()]),
        (Kind::Texts, DeValue::Array(values)) if !values.is_empty() => {
            let one = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
                DeValue::String(value) => Ok(value.to_string()),
                other => Err(wrong(other)),
            };
            values.iter().map(one).collect()
        }
        _ => Err(wrong(value)),
    }
}

fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text {text:?}"),
        DeValue::Array(values) if values.is_empty() => "an empty list".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(value) => value.to_string(),
    }
}

/// Checks a value with the parser of its flag, and returns the objection.
fn check(command: &Command, arg: &Arg, value: &str) -> Result<(), String> {
    let words = match arg.get_long() {
        Some(long) => vec![String::new(), format!("--{long}={value}")],
        None => vec![String::new(), "--".into(), value.into()],
    };
    let Err(error) = command.clone().try_get_matches_from(words) else { return Ok(()) };
    Err(match (error.source(), error.get(ContextKind::ValidValue)) {
        (Some(source), _) => source.to_string(),
        (None, Some(ContextValue::Strings(values))) => format!("there are {}", values.join(", ")),
        _ => error.kind().to_string(),
    })
}
