//! The layers that a configuration is made of: a file, the environment, flags. Each later one overrides the one before.
//!
//! Inside, the tables `[plugins.NAME]` are kept apart from the keys of `[plugins]`, under [`PLUGIN`], so that an unknown key
//! beside them is still noticed. No path that a person sees has that name in it.

use std::{collections::BTreeMap, ffi::OsString, path::Path};

use figment::{
    Metadata, Profile, Provider,
    value::{Dict, Map, Value},
};

use super::{ConfigError, Origin};

/// Where the tables of single plugins are kept while layers are merged.
pub(super) const PLUGIN: &str = "plugin";

/// What an environment variable of ours begins with.
pub const ENVIRONMENT_PREFIX: &str = "BLOCKMILL_";

/// Variables with our prefix that are no configuration keys: the log filter, where the SDK is (`plugin new`), and what tests and
/// build tools read.
const NOT_KEYS: [&str; 4] = ["LOG", "SDK", "TEST_", "XTASK_"];

/// Values from one source.
pub(super) struct Layer {
    name: &'static str,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

/// Who said the value of each key: the last layer that did.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins {
    values: BTreeMap<String, Origin>,
    /// The first layer that named a table.
    tables: BTreeMap<String, Origin>,
}

impl Origins {
    /// Who said the value of a key, or of the list that it is part of.
    pub fn of(&self, key: &str) -> Origin {
        around(key)
            .find_map(|key| self.values.get(key))
            .cloned()
            .unwrap_or(Origin::Default)
    }

    /// Where a person should look to set a key: where it was said, or else where the table around it is.
    pub fn nearest(&self, key: &str) -> Origin {
        match self.of(key) {
            Origin::Default => around(key)
                .find_map(|key| self.tables.get(key))
                .cloned()
                .unwrap_or(Origin::Default),
            said => said,
        }
    }

    fn record(&mut self, prefix: &str, values: &Dict, origin: &Origin) {
        for (name, value) in values {
            let key = if prefix.is_empty() {
                name.clone()
            } else {
                format!("{prefix}.{name}")
            };
            match value {
                Value::Dict(_, inner) => {
                    self.record(&key, inner, origin);
                    self.tables.entry(key).or_insert_with(|| origin.clone());
                }
                _ => {
                    self.values.insert(key, origin.clone());
                }
            }
        }
    }
}

/// A key and what it is part of, from the inside.
fn around(key: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(key), |key| {
        key.rsplit_once('.').map(|(outer, _)| outer)
    })
}

/// Values of flags, by key.
#[derive(Clone, Debug, Default)]
pub struct Overrides(Vec<(String, String, Value)>);

impl Overrides {
    /// No flags.
    pub fn new() -> Self {
        Self::default()
    }

    /// A flag (`--network`) that sets a key (`network`).
    #[must_use]
    pub fn set(mut self, flag: &str, key: &str, value: impl Into<Value>) -> Self {
        self.0.push((flag.to_owned(), key.to_owned(), value.into()));
        self
    }

    /// The text that a flag gives for a key, if any.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        let (_, _, value) = self.0.iter().rev().find(|(_, name, _)| name == key)?;
        value.as_str()
    }

    pub(super) fn layer(&self, plugin_keys: &[&str], origins: &mut Origins) -> Layer {
        let mut values = Dict::new();
        for (flag, key, value) in &self.0 {
            let mut one = Dict::new();
            insert(&mut one, key, value.clone());
            origins.record("", &one, &Origin::Flag(flag.clone()));
            insert(&mut values, key, value.clone());
        }
        split_plugins(&mut values, plugin_keys);
        Layer {
            name: "flags",
            values,
        }
    }
}

/// The layer of a file.
///
/// # Errors
/// When the file cannot be read or is no TOML.
pub(super) fn file(
    path: &Path,
    plugin_keys: &[&str],
    origins: &mut Origins,
) -> Result<Layer, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|why| match why.kind() {
        std::io::ErrorKind::NotFound => ConfigError::file(
            path,
            "there is no such file",
            Some("give an existing one to --config"),
        ),
        _ => ConfigError::file(path, format!("cannot read the file: {why}"), None),
    })?;
    let table: toml::Table = toml::from_str(&text).map_err(|why| {
        let line = why.span().map_or(1, |span| {
            1 + text
                .bytes()
                .take(span.start)
                .filter(|byte| *byte == b'\n')
                .count()
        });
        let why = why.message().trim().replace('\n', ", ");
        ConfigError::file(path, format!("line {line} is not TOML: {why}"), None)
    })?;
    let mut values = Value::serialize(&table)
        .ok()
        .and_then(Value::into_dict)
        .ok_or_else(|| ConfigError::file(path, "the file is no table of keys", None))?;
    let origin = Origin::File(path.to_owned());
    if values.contains_key(PLUGIN) {
        return Err(no_plugin_section(origin));
    }
    origins.record("", &values, &origin);
    split_plugins(&mut values, plugin_keys);
    Ok(Layer {
        name: "file",
        values,
    })
}

/// The layer of the environment: `BLOCKMILL_NETWORK`, `BLOCKMILL_SECTION__KEY`, and for plugins
/// `BLOCKMILL_PLUGINS__UTXO_TRACKER__SETTINGS__KEY`, where `_` in the plugin's name stands for `-`.
///
/// `defaults` says which keys are text, so that text that looks like a number stays text.
///
/// # Errors
/// When a name or value is not UTF-8.
pub(super) fn environment(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    defaults: &serde_json::Value,
    plugin_keys: &[&str],
    origins: &mut Origins,
) -> Result<Layer, ConfigError> {
    let mut values = Dict::new();
    let mut variables: Vec<_> = variables
        .into_iter()
        .filter(|(name, _)| {
            name.as_encoded_bytes()
                .starts_with(ENVIRONMENT_PREFIX.as_bytes())
        })
        .collect();
    variables.sort();
    for (name, value) in variables {
        let shown = name.to_string_lossy().into_owned();
        let origin = Origin::Environment(shown.clone());
        let (Some(_), Some(value)) = (name.to_str(), value.to_str()) else {
            return Err(ConfigError {
                origin,
                key: None,
                problem: "it is not UTF-8".to_owned(),
                hint: None,
            });
        };
        let rest = shown.strip_prefix(ENVIRONMENT_PREFIX).unwrap_or_default();
        if NOT_KEYS
            .iter()
            .any(|other| rest == *other || (other.ends_with('_') && rest.starts_with(other)))
        {
            continue;
        }
        let key = environment_key(rest);
        if key == PLUGIN || key.starts_with("plugin.") {
            return Err(no_plugin_section(origin));
        }
        let mut one = Dict::new();
        insert(&mut one, &key, Value::from(0));
        origins.record("", &one, &origin);
        insert(&mut values, &key, typed(value, kind_of(&key, defaults)));
    }
    split_plugins(&mut values, plugin_keys);
    Ok(Layer {
        name: "environment",
        values,
    })
}

/// [`PLUGIN`] is ours alone.
fn no_plugin_section(origin: Origin) -> ConfigError {
    ConfigError {
        origin,
        key: Some(PLUGIN.to_owned()),
        problem: "there is no such key".to_owned(),
        hint: Some("did you mean `plugins`?".to_owned()),
    }
}

fn environment_key(name: &str) -> String {
    let mut parts: Vec<String> = name.split("__").map(str::to_lowercase).collect();
    if let [section, plugin, _, ..] = parts.as_mut_slice()
        && section == "plugins"
    {
        *plugin = plugin.replace('_', "-");
    }
    parts.join(".")
}

/// The default of a key, by which the kind of its text in the environment is told.
fn kind_of<'a>(key: &str, defaults: &'a serde_json::Value) -> Option<&'a serde_json::Value> {
    let mut parts: Vec<&str> = key.split('.').collect();
    if let [section, name, _, ..] = parts.as_mut_slice()
        && *section == "plugins"
    {
        // any plugin is like any other
        *section = PLUGIN;
        *name = "NAME";
    }
    parts
        .into_iter()
        .try_fold(defaults, |value, part| value.get(part))
}

fn typed(text: &str, like: Option<&serde_json::Value>) -> Value {
    use serde_json::Value as Json;
    match like {
        Some(Json::String(_) | Json::Null) => Value::from(text),
        Some(Json::Array(_)) if !text.trim_start().starts_with('[') => {
            let items: Vec<&str> = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .collect();
            Value::from(items)
        }
        Some(Json::Number(_)) => text
            .parse::<i64>()
            .map_or_else(|_| Value::from(text), Value::from),
        // figment's parser does not fail: what it does not know is text
        _ => text.parse().unwrap_or_else(|_| Value::from(text)),
    }
}

/// Puts a value under a dotted key, making the tables on the way. A value that stands where a table is needed gives way, as
/// a later layer would make it.
fn insert(values: &mut Dict, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            values.insert(key.to_owned(), value);
        }
        Some((table, rest)) => {
            let slot = values
                .entry(table.to_owned())
                .or_insert_with(|| Value::from(Dict::new()));
            if !matches!(slot, Value::Dict(..)) {
                *slot = Value::from(Dict::new());
            }
            if let Value::Dict(_, inner) = slot {
                insert(inner, rest, value);
            }
        }
    }
}

/// Moves the tables in `plugins` that are no keys of its own to [`PLUGIN`].
fn split_plugins(values: &mut Dict, plugin_keys: &[&str]) {
    let Some(Value::Dict(_, plugins)) = values.get_mut("plugins") else {
        return;
    };
    let (single, own): (Dict, Dict) =
        std::mem::take(plugins)
            .into_iter()
            .partition(|(name, value)| {
                matches!(value, Value::Dict(..)) && !plugin_keys.contains(&name.as_str())
            });
    *plugins = own;
    values.insert(PLUGIN.to_owned(), Value::from(single));
}
