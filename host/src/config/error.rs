//! What is wrong with a configuration, and where it was said.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use figment::error::{Actual, Kind};

use super::layer::PLUGIN;

/// Who said a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A configuration file.
    File(PathBuf),
    /// An environment variable, by its name.
    Environment(String),
    /// A flag of the command line, with its dashes.
    Flag(String),
    /// Nobody: the value is the built-in one.
    Default,
}

/// One thing that is wrong with the configuration, for a person to read. The program ends with exit code 2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file, variable or flag that said it.
    pub origin: Origin,
    /// The full path of the key, such as `peers.ping_interval`; none when the file as a whole is meant.
    pub key: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub hint: Option<String>,
}

impl ConfigError {
    /// A problem with a file as a whole.
    pub fn file(path: &Path, problem: impl Into<String>, hint: Option<&str>) -> Self {
        Self {
            origin: Origin::File(path.to_owned()),
            key: None,
            problem: problem.into(),
            hint: hint.map(str::to_owned),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File(path) => write!(f, "{}: ", path.display())?,
            Origin::Environment(name) => write!(f, "environment variable {name}: ")?,
            Origin::Flag(name) => write!(f, "flag {name}: ")?,
            Origin::Default => {}
        }
        if let Some(key) = &self.key {
            write!(f, "key `{key}`: ")?;
        }
        f.write_str(&self.problem)?;
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

/// What figment says about one key, in our words: the key (that of the stranger, when a key is unknown), the problem, and
/// what would be right.
pub(super) fn explain(
    error: &figment::Error,
    default_of: impl Fn(&str) -> Option<String>,
) -> (String, String, Option<String>) {
    let path = error.path.join(".");
    let example =
        |key: &str| default_of(key).map(|value| format!("the default is {} = {value}", leaf(key)));
    match &error.kind {
        Kind::UnknownField(name, known) => {
            // figment's path ends with the stranger itself
            let key = if path.is_empty() { name.clone() } else { path };
            // the keys of single plugins are not shown as a section of their own
            let known: Vec<_> = known
                .iter()
                .copied()
                .filter(|name| *name != PLUGIN)
                .collect();
            (
                key,
                "there is no such key".to_owned(),
                Some(suggest(name, &known)),
            )
        }
        Kind::UnknownVariant(name, known) => {
            let list: Vec<_> = known.iter().map(|name| format!("\"{name}\"")).collect();
            let mut problem = format!("\"{name}\" is not possible here");
            if let Some(near) = nearest(name, known) {
                problem.push_str(&format!(" (did you mean \"{near}\"?)"));
            }
            (
                path,
                problem,
                Some(format!("it is one of {}", list.join(", "))),
            )
        }
        Kind::InvalidType(found, wanted) | Kind::InvalidValue(found, wanted) => {
            let hint = example(&path);
            (
                path,
                format!(
                    "found {}, but it must be {}",
                    describe(found),
                    plain(wanted)
                ),
                hint,
            )
        }
        Kind::Message(text) => {
            let hint = example(&path);
            (path, text.clone(), hint)
        }
        other => {
            let hint = example(&path);
            (path, other.to_string(), hint)
        }
    }
}

fn leaf(key: &str) -> &str {
    key.rsplit_once('.').map_or(key, |(_, leaf)| leaf)
}

fn describe(found: &Actual) -> String {
    match found {
        Actual::Bool(value) => format!("the boolean {value}"),
        Actual::Unsigned(value) => format!("the number {value}"),
        Actual::Signed(value) => format!("the number {value}"),
        Actual::Float(value) => format!("the number {value}"),
        Actual::Str(value) => format!("the text \"{value}\""),
        Actual::Seq => "a list".to_owned(),
        Actual::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

/// serde names types for programmers; a person who edits a file wants other words.
fn plain(wanted: &str) -> String {
    match wanted {
        "a string" | "path string" => "text in quotes".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list, such as [\"…\", \"…\"]".to_owned(),
        "a map" => "a table".to_owned(),
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" => "a whole number from 0 to 4294967295".to_owned(),
        "u64" | "usize" => "a whole number".to_owned(),
        other => match other.strip_prefix("struct ") {
            Some(_) => "a table".to_owned(),
            None => other.to_owned(),
        },
    }
}

/// The known name that was most likely meant: one that differs by little, or that the name only adds to.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let similar = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate);
    let longer = || {
        known
            .iter()
            .copied()
            .filter(|candidate| name.starts_with(candidate))
    };
    similar.or_else(|| longer().max_by_key(|candidate| candidate.len()))
}

/// "did you mean" for a name that is near a known one, else all the known ones.
pub(super) fn suggest(name: &str, known: &[&str]) -> String {
    match nearest(&name.to_lowercase(), known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the keys here are: {}", known.join(", ")),
    }
}
