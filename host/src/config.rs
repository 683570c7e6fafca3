//! The configuration: a TOML file, the environment (`BLOCKMILL_SECTION__KEY`) and flags, each overriding the one before.
//!
//! `config/blockmill.toml` shows every key with its default. A key that is not known, a value of the wrong kind or out of its
//! range is one [`ConfigError`] that names who said it, the key and what would be right.

mod check;
mod error;
mod layer;
mod network;
pub mod units;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use figment::Figment;
use serde::{Deserialize, Serialize};

pub use self::{
    error::{ConfigError, Origin},
    layer::{ENVIRONMENT_PREFIX, Overrides},
    network::Network,
};
use self::{layer::Origins, units::size};

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
    #[serde(skip)]
    origins: Origins,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// What is written: a level, or a filter such as `info,blockmill::chain=debug`. `BLOCKMILL_LOG` and `RUST_LOG` go before it.
    pub level: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// `[peers]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Peers {
    /// `host:port`, `host` or `[ipv6]:port`. When given, only these are connected to. See [`Config::peer_addresses`].
    pub connect: Vec<String>,
    /// How many peers are kept when `connect` is empty.
    pub max_outbound: u16,
    /// How long a TCP connection may take to come about.
    #[serde(with = "units::span")]
    pub connect_timeout: Duration,
    /// How long version and verack may take.
    #[serde(with = "units::span")]
    pub handshake_timeout: Duration,
    /// How often a peer is asked whether it is there.
    #[serde(with = "units::span")]
    pub ping_interval: Duration,
    /// A peer that was not heard for so long is dropped.
    #[serde(with = "units::span")]
    pub silence_timeout: Duration,
    /// A peer that holds up the download window for so long is dropped. Doubles with each staller, up to `stall_timeout_max`.
    #[serde(with = "units::span")]
    pub stall_timeout: Duration,
    /// The most that `stall_timeout` grows to.
    #[serde(with = "units::span")]
    pub stall_timeout_max: Duration,
    /// No new block for so long: another peer is asked.
    #[serde(with = "units::span")]
    pub stale_tip_timeout: Duration,
    /// A tick that comes so much too late means that the machine slept: all peers are stale.
    #[serde(with = "units::span")]
    pub late_tick: Duration,
    /// Pause before a lost peer is tried again. Doubles with each failure, up to `reconnect_pause_max`.
    #[serde(with = "units::span")]
    pub reconnect_pause: Duration,
    /// The most that `reconnect_pause` grows to.
    #[serde(with = "units::span")]
    pub reconnect_pause_max: Duration,
    /// Added to our user agent in parentheses (BIP14). Empty: nothing.
    pub user_agent_comment: String,
    /// CSV file that peer and message events are added to. Empty: none. See [`Config::event_log`].
    pub event_log: PathBuf,
}

/// `[chain]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Chain {
    /// Headers with less total work than this are not followed: `default` (the network's own) or a hexadecimal number.
    pub minimum_work: MinimumWork,
    /// How many bytes of blocks are kept.
    pub keep_blocks: KeepBlocks,
    /// What is checked of the block log at start.
    pub check_start: CheckStart,
    /// How many blocks back the state can be rewound at least.
    pub undo_depth: u32,
    /// How many blocks past the first missing one are asked for.
    pub download_window: u32,
    /// How many blocks one peer is asked for at once.
    pub blocks_per_peer: u16,
}

/// The total work below which a chain of headers is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinimumWork {
    /// What is built in for the network.
    Default,
    /// This, big-endian.
    Work([u8; 32]),
}

/// How much of the chain's blocks is kept on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepBlocks {
    /// Every block.
    All,
    /// The last so many bytes, never less than a running lane still needs.
    Bytes(u64),
}

/// How the block log is checked at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStart {
    /// Only what cannot be left out: a torn tail is cut.
    None,
    /// The last 288 blocks are read and hashed.
    Quick,
    /// Every block that is kept is read and hashed.
    Full,
}

impl CheckStart {
    /// How many of the last blocks are read and hashed at start.
    pub fn depth(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Quick => 288,
            Self::Full => u32::MAX,
        }
    }
}

/// `[database]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// Where rows go. See [`Config::database_url`].
    pub url: String,
    /// Memory in bytes for changes that wait for the disk while syncing, all plugins together.
    #[serde(with = "size")]
    pub state_cache: u64,
    /// Memory in bytes for what was read from the state's files.
    #[serde(with = "size")]
    pub block_cache: u64,
    /// While syncing, changes reach the disk at least so often.
    #[serde(with = "units::span")]
    pub flush_interval: Duration,
}

/// `[mempool]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mempool {
    /// Whether unconfirmed transactions are kept at all.
    pub enabled: bool,
    /// Above so many bytes of serialized transactions the worst paying ones leave.
    #[serde(with = "size")]
    pub max_size: u64,
    /// A transaction that waited for so long leaves.
    #[serde(with = "units::span")]
    pub expiry: Duration,
    /// Whether the pool is saved at the end and offered again at start.
    pub persist: bool,
}

/// `[api]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Whether the interface is served at all.
    pub enabled: bool,
    /// Where it is served, and where `blockmill status` and the like ask.
    pub listen: SocketAddr,
    /// How many plugin queries run at once; others wait.
    pub max_queries: u16,
}

/// `[plugins]`, but for the tables of single plugins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plugins {
    /// Where plugin files lie. See [`Config::plugins_dir`].
    pub dir: PathBuf,
    /// The most memory in bytes of one instance.
    #[serde(with = "size")]
    pub memory_limit: u64,
    /// The most time for one call with a block or with changes of the pool.
    #[serde(with = "units::span")]
    pub block_time_limit: Duration,
    /// The most time for one query.
    #[serde(with = "units::span")]
    pub query_time_limit: Duration,
    /// Pause before a failed block is tried again. Doubles with each failure, up to `retry_pause_max`.
    #[serde(with = "units::span")]
    pub retry_pause: Duration,
    /// The most that `retry_pause` grows to.
    #[serde(with = "units::span")]
    pub retry_pause_max: Duration,
}

/// `[plugins.NAME]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plugin {
    /// Whether it runs.
    pub enabled: bool,
    /// Its file, from the plugins' folder; `NAME.wasm` when not given. See [`Config::plugin_file`].
    pub file: Option<PathBuf>,
    /// Instead of [`Plugins::memory_limit`].
    #[serde(with = "units::maybe_size")]
    pub memory_limit: Option<u64>,
    /// Instead of [`Plugins::block_time_limit`].
    #[serde(with = "units::maybe_span")]
    pub block_time_limit: Option<Duration>,
    /// Instead of [`Plugins::query_time_limit`].
    #[serde(with = "units::maybe_span")]
    pub query_time_limit: Option<Duration>,
    /// What the plugin itself is told, as it is.
    pub settings: serde_json::Map<String, serde_json::Value>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            network: Network::Mainnet,
            data_dir: "~/.blockmill".into(),
            log: Log::default(),
            peers: Peers::default(),
            chain: Chain::default(),
            database: Database::default(),
            mempool: Mempool::default(),
            api: Api::default(),
            plugins: Plugins::default(),
            plugin: BTreeMap::new(),
            origins: Origins::default(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Human,
            level: "info".to_owned(),
        }
    }
}

impl Default for Peers {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect: Vec::new(),
            max_outbound: 8,
            connect_timeout: seconds(10),
            handshake_timeout: seconds(60),
            ping_interval: seconds(2 * 60),
            silence_timeout: seconds(20 * 60),
            stall_timeout: seconds(2),
            stall_timeout_max: seconds(64),
            stale_tip_timeout: seconds(30 * 60),
            late_tick: seconds(30),
            reconnect_pause: seconds(1),
            reconnect_pause_max: seconds(5 * 60),
            user_agent_comment: String::new(),
            event_log: PathBuf::new(),
        }
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            minimum_work: MinimumWork::Default,
            keep_blocks: KeepBlocks::All,
            check_start: CheckStart::Quick,
            undo_depth: 100,
            download_window: 1024,
            blocks_per_peer: 16,
        }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: "sqlite:{data_dir}/{network}/blockmill.sqlite".to_owned(),
            state_cache: 256_000_000,
            block_cache: 64_000_000,
            flush_interval: Duration::from_secs(60),
        }
    }
}

impl Default for Mempool {
    fn default() -> Self {
        Self {
            enabled: true,
            max_size: 300_000_000,
            expiry: Duration::from_secs(336 * 60 * 60),
            persist: true,
        }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 3080)),
            max_queries: 8,
        }
    }
}

impl Default for Plugins {
    fn default() -> Self {
        Self {
            dir: "{data_dir}/plugins".into(),
            memory_limit: 512_000_000,
            block_time_limit: Duration::from_secs(30),
            query_time_limit: Duration::from_secs(10),
            retry_pause: Duration::from_secs(1),
            retry_pause_max: Duration::from_secs(5 * 60),
        }
    }
}

impl Default for Plugin {
    fn default() -> Self {
        Self {
            enabled: true,
            file: None,
            memory_limit: None,
            block_time_limit: None,
            query_time_limit: None,
            settings: serde_json::Map::new(),
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
                origin: origins.of(&key),
                key: Some(key),
                problem,
                hint,
            }
        })?;
        config.origins = origins;
        check::values(&config)?;
        Ok(config)
    }

    /// An error about the value of a key, naming who said it.
    pub fn error(
        &self,
        key: &str,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) -> ConfigError {
        ConfigError {
            origin: self.origins.of(key),
            key: Some(key.to_owned()),
            problem: problem.into(),
            hint: Some(hint.into()).filter(|hint: &String| !hint.is_empty()),
        }
    }

    /// Who said the value of a key.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.of(key)
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

    /// `peers.connect` as (host, port), the network's own port where none is given.
    pub fn peer_addresses(&self) -> Vec<(String, u16)> {
        let default = self.network.default_port();
        self.peers
            .connect
            .iter()
            .filter_map(|text| check::address(text, default).ok())
            .collect()
    }

    /// The plugins that are switched on, by name, with all limits filled in.
    pub fn enabled_plugins(&self) -> Vec<EnabledPlugin> {
        self.plugin
            .iter()
            .filter(|(_, plugin)| plugin.enabled)
            .map(|(name, plugin)| EnabledPlugin {
                name: name.clone(),
                file: self.plugin_file(name),
                memory_limit: plugin.memory_limit.unwrap_or(self.plugins.memory_limit),
                block_time_limit: plugin
                    .block_time_limit
                    .unwrap_or(self.plugins.block_time_limit),
                query_time_limit: plugin
                    .query_time_limit
                    .unwrap_or(self.plugins.query_time_limit),
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

/// A plugin that is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnabledPlugin {
    /// The name of its table.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// The most memory in bytes of one instance.
    pub memory_limit: u64,
    /// The most time for one call with a block or with changes of the pool.
    pub block_time_limit: Duration,
    /// The most time for one query.
    pub query_time_limit: Duration,
    /// The settings as a JSON object.
    pub settings: String,
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
    let value = key
        .split('.')
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
