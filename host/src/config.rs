//! The configuration: a TOML file, the environment (`BLOCKMILL_SECTION__KEY`) and flags, each overriding the one before.
//!
//! `config/blockmill.toml` shows every key with its default. A key that is not known, a value of the wrong kind or out of its
//! range is one [`ConfigError`] that names who said it, the key and what would be right.

mod check;
mod error;
mod layer;
mod sections;
pub mod units;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use figment::Figment;
use serde::{Deserialize, Serialize};

use self::layer::Origins;
pub use self::{
    error::{ConfigError, Origin},
    layer::{ENVIRONMENT_PREFIX, Overrides},
    sections::{
        Api, Chain, CheckStart, Database, KeepBlocks, KeepSpent, Log, LogFormat, Mempool,
        MinimumWork, Peers, Plugin, Plugins, Source, SourceKind, Wasi,
    },
};
pub use crate::network::Network;
use crate::plugin::Limits;

/// Name of the file that is read from the data folder when no other is named.
pub const FILE_NAME: &str = "blockmill.toml";

/// The whole configuration. Fields hold what was written; the methods give paths with `~` and placeholders resolved.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The chain to follow.
    pub network: Network,
    /// Where everything is kept, each network in a folder of its own. See [`Config::network_dir`].
    pub data_dir: PathBuf,
    /// What is written to the log.
    pub log: Log,
    /// The peer-to-peer network.
    pub peers: Peers,
    /// Where blocks come from besides peers.
    pub source: Source,
    /// Headers, blocks and the block log.
    pub chain: Chain,
    /// State and rows.
    pub database: Database,
    /// Unconfirmed transactions.
    pub mempool: Mempool,
    /// The HTTP interface.
    pub api: Api,
    /// What holds for all plugins.
    pub plugins: Plugins,
    /// The single plugins, by name: the tables `[plugins.NAME]`.
    pub plugin: BTreeMap<String, Plugin>,
    /// The file that was read, if there was one.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    #[serde(skip)]
    origins: Origins,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            network: Network::Mainnet,
            data_dir: "~/.blockmill".into(),
            log: Log::default(),
            peers: Peers::default(),
            source: Source::default(),
            chain: Chain::default(),
            database: Database::default(),
            mempool: Mempool::default(),
            api: Api::default(),
            plugins: Plugins::default(),
            plugin: BTreeMap::new(),
            file: None,
            origins: Origins::default(),
        }
    }
}

impl Config {
    /// Reads the configuration: `file` (or `blockmill.toml` in the data folder, if it is there), the environment of this
    /// process, and flags.
    ///
    /// # Errors
    /// The first thing that is wrong. Nothing was touched then.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        Self::from_sources(file, std::env::vars_os(), overrides)
    }

    /// As [`Config::load`], with another environment.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn from_sources(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let defaults = template();
        let plugin_keys = keys_of(&defaults, "plugins");
        let mut origins = Origins::default();

        let environment: Vec<_> = environment.into_iter().collect();
        let file = file
            .map(Path::to_owned)
            .or_else(|| default_file(&environment, overrides));

        let mut figment = Figment::new();
        if let Some(file) = &file {
            figment = figment.merge(layer::file(file, &plugin_keys, &mut origins)?);
        }
        let environment = layer::environment(environment, &defaults, &plugin_keys, &mut origins)?;
        figment = figment
            .merge(environment)
            .merge(overrides.layer(&plugin_keys, &mut origins));

        let mut config: Self = figment.extract().map_err(|error| {
            let (key, problem, hint) = error::explain(&error, |key| default_text(&defaults, key));
            let key = shown(&key);
            ConfigError {
                origin: origins.nearest(&key),
                key: Some(key),
                problem,
                hint,
            }
        })?;
        config.origins = origins;
        config.file = file;
        check::values(&config)?;
        Ok(config)
    }

    /// An error about the value of a key, naming who said it or who said anything in its section.
    pub fn error(
        &self,
        key: &str,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) -> ConfigError {
        ConfigError {
            origin: self.origins.nearest(key),
            key: Some(key.to_owned()),
            problem: problem.into(),
            hint: Some(hint.into()).filter(|hint: &String| !hint.is_empty()),
        }
    }

    /// Who said the value of a key.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.of(key)
    }

    /// Keys outside of the single plugins whose values differ from those of `other`.
    pub fn changed_keys(&self, other: &Self) -> Vec<String> {
        let value = |config: &Self| serde_json::to_value(config).unwrap_or_default();
        let mut changed = Vec::new();
        differing("", &value(self), &value(other), &mut changed);
        let plugin = format!("{}.", layer::PLUGIN);
        changed.retain(|key| !key.starts_with(&plugin));
        changed
    }

    /// Whether each enabled plugin's file is there and can be read.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check_plugin_files(&self) -> Result<(), ConfigError> {
        check::plugin_files(self)
    }

    /// The data folder, for all networks.
    pub fn data_dir(&self) -> PathBuf {
        expand_home(&self.data_dir)
    }

    /// The folder of the network that is followed: `DATA_DIR/NETWORK`.
    pub fn network_dir(&self) -> PathBuf {
        self.data_dir().join(self.network.name())
    }

    /// Where rows go, as sqlx wants it.
    pub fn database_url(&self) -> String {
        // in a URL these characters of a path would begin something else
        let data_dir = self
            .data_dir()
            .to_string_lossy()
            .replace('%', "%25")
            .replace('?', "%3F")
            .replace('#', "%23");
        self.database
            .url
            .replace("{data_dir}", &data_dir)
            .replace("{network}", self.network.name())
    }

    /// The folder of the plugin files.
    pub fn plugins_dir(&self) -> PathBuf {
        self.resolve(&self.plugins.dir)
    }

    /// The file of a plugin.
    pub fn plugin_file(&self, name: &str) -> PathBuf {
        let file = self
            .plugin
            .get(name)
            .and_then(|plugin| plugin.file.as_deref());
        match file {
            Some(file) => self.plugins_dir().join(self.resolve(file)),
            None => self.plugins_dir().join(format!("{name}.wasm")),
        }
    }

    /// The CSV file of peer and message events, if there is to be one.
    pub fn event_log(&self) -> Option<PathBuf> {
        (!self.peers.event_log.as_os_str().is_empty()).then(|| self.resolve(&self.peers.event_log))
    }

    /// Bitcoin Core's block folder, if blocks come from there.
    pub fn source_path(&self) -> Option<PathBuf> {
        match self.source.kind {
            SourceKind::Peers => None,
            SourceKind::BlocksDir => Some(self.resolve(&self.source.path)),
        }
    }

    /// `peers.connect` as (host, port), the network's own port where none is given.
    pub fn peer_addresses(&self) -> Vec<(String, u16)> {
        let default = self.network.params().default_port;
        self.peers
            .connect
            .iter()
            .filter_map(|text| check::address(text, default).ok())
            .collect()
    }

    /// `peers.add`, as [`Config::peer_addresses`].
    pub fn added_peers(&self) -> Vec<(String, u16)> {
        let default = self.network.params().default_port;
        let named = self.peers.add.iter();
        named
            .filter_map(|text| check::address(text, default).ok())
            .collect()
    }

    /// Where others may connect to us.
    pub fn peer_listen(&self) -> Option<SocketAddr> {
        self.peers.listen.parse().ok()
    }

    /// A peer that somebody wrote, as (host, port), the network's own port where none is given.
    ///
    /// # Errors
    /// When it is no address of a peer.
    pub fn peer_address(&self, text: &str) -> Result<(String, u16), String> {
        check::address(text, self.network.params().default_port)
    }

    /// The plugins that are switched on, by name, with all limits filled in.
    pub fn enabled_plugins(&self) -> Vec<EnabledPlugin> {
        self.plugin
            .iter()
            .filter(|(_, plugin)| plugin.enabled)
            .map(|(name, plugin)| EnabledPlugin {
                name: name.clone(),
                file: self.plugin_file(name),
                sha256: plugin.sha256.clone(),
                wasi: plugin.wasi,
                require_identical: plugin
                    .require_identical
                    .unwrap_or(self.plugins.require_identical),
                limits: plugin.limits(&self.plugins),
                settings: serde_json::Value::Object(plugin.settings.clone()).to_string(),
            })
            .collect()
    }

    fn resolve(&self, path: &Path) -> PathBuf {
        let text = path.to_string_lossy();
        if !text.contains('{') {
            return expand_home(path);
        }
        let data_dir = self.data_dir();
        PathBuf::from(
            text.replace("{data_dir}", &data_dir.to_string_lossy())
                .replace("{network}", self.network.name()),
        )
    }
}

fn differing(
    path: &str,
    one: &serde_json::Value,
    other: &serde_json::Value,
    changed: &mut Vec<String>,
) {
    match (one, other) {
        (serde_json::Value::Object(one), serde_json::Value::Object(other)) => {
            for key in one
                .keys()
                .chain(other.keys().filter(|key| !one.contains_key(*key)))
            {
                let path = match path {
                    "" => key.clone(),
                    path => format!("{path}.{key}"),
                };
                let null = &serde_json::Value::Null;
                differing(
                    &path,
                    one.get(key).unwrap_or(null),
                    other.get(key).unwrap_or(null),
                    changed,
                );
            }
        }
        _ if one == other => {}
        _ => changed.push(path.to_owned()),
    }
}

/// A plugin that is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnabledPlugin {
    /// The name of its table.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// The only file that may run, by its hash.
    pub sha256: Option<String>,
    /// What of WASI it may import.
    pub wasi: Wasi,
    /// A new component must leave the same behind as the old one.
    pub require_identical: bool,
    /// What it may use.
    pub limits: Limits,
    /// The settings as a JSON object.
    pub settings: String,
}

impl EnabledPlugin {
    /// Whether a component with this hash may run.
    ///
    /// # Errors
    /// When another one is pinned: what is wrong, for people.
    pub fn check_pin(&self, sha256: &str) -> Result<(), String> {
        match &self.sha256 {
            Some(pinned) if pinned != sha256 => Err(format!(
                "its hash is {sha256}, and plugins.{}.sha256 pins {pinned}",
                self.name
            )),
            _ => Ok(()),
        }
    }
}

/// Every key with its default, and one plugin as an example of all.
fn template() -> serde_json::Value {
    let config = Config {
        plugin: BTreeMap::from([("NAME".to_owned(), Plugin::default())]),
        ..Config::default()
    };
    serde_json::to_value(config).unwrap_or_default()
}

fn keys_of<'a>(defaults: &'a serde_json::Value, section: &str) -> Vec<&'a str> {
    let keys = defaults.get(section).and_then(serde_json::Value::as_object);
    keys.map(|keys| keys.keys().map(String::as_str).collect())
        .unwrap_or_default()
}

/// The default of a key as it is written in a file.
fn default_text(defaults: &serde_json::Value, key: &str) -> Option<String> {
    let mut parts: Vec<&str> = key.split('.').collect();
    if let [layer::PLUGIN, name, ..] = parts.as_mut_slice() {
        // any plugin is like any other
        *name = "NAME";
    }
    let value = parts
        .into_iter()
        .try_fold(defaults, |value, part| value.get(part))?;
    match value {
        serde_json::Value::Object(_) | serde_json::Value::Null => None,
        value => Some(value.to_string()),
    }
}

/// The path of a key as a person writes it.
fn shown(key: &str) -> String {
    match key.strip_prefix(layer::PLUGIN) {
        Some(rest) if rest.starts_with('.') => format!("plugins{rest}"),
        _ => key.to_owned(),
    }
}

/// `blockmill.toml` in the data folder that flags, the environment or the default name, if it is there.
fn default_file(environment: &[(OsString, OsString)], overrides: &Overrides) -> Option<PathBuf> {
    let named = || {
        let name = format!("{ENVIRONMENT_PREFIX}DATA_DIR");
        environment
            .iter()
            .find(|(key, _)| key.to_str() == Some(&name))
            .map(|(_, value)| PathBuf::from(value))
    };
    let folder = overrides
        .text("data_dir")
        .map(PathBuf::from)
        .or_else(named)
        .unwrap_or(Config::default().data_dir);
    let file = expand_home(&folder).join(FILE_NAME);
    file.is_file().then_some(file)
}

fn expand_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests;
