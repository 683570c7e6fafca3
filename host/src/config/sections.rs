//! The sections of the configuration, with their defaults.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::units::{self, size};
use crate::chain::sync::TransportPreference;
use crate::plugin::Limits;

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// What is written: a level, or a filter such as `warn,blockmill::chain=debug`. `BLOCKMILL_LOG` and `RUST_LOG` go before it.
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
    /// As `connect`, beside the peers that are chosen: at most 8.
    pub add: Vec<String>,
    /// How many peers are kept when `connect` is empty.
    pub max_outbound: u16,
    /// `auto`, `prefer-v2`, `v2` (insist on it) or `v1`.
    pub transport: TransportPreference,
    /// How many more are kept for blocks alone.
    pub max_block_only: u16,
    /// Whether the network's DNS seeds are asked while too few peers are known.
    pub dns_seeds: bool,
    /// Mean time between two connections that test whether somebody is at an address.
    #[serde(with = "units::span")]
    pub feeler_interval: Duration,
    /// How long all who ask us for addresses are told the same.
    #[serde(with = "units::span")]
    pub address_answer_life: Duration,
    /// While there are fewer peers than wanted: how long after a question for addresses a peer is asked again.
    #[serde(with = "units::span")]
    pub addresses_again: Duration,
    /// How often the peer book is written.
    #[serde(with = "units::span")]
    pub save_interval: Duration,
    /// `ip:port` where others may connect to us. Empty: nowhere. See [`Config::peer_listen`].
    pub listen: String,
    /// The most connections that others make, and of one address.
    pub max_incoming: u16,
    /// See `max_incoming`.
    pub max_incoming_per_address: u16,
    /// Bytes a second that each of them may send unasked.
    #[serde(with = "size")]
    pub incoming_rate: u64,
    /// How long who misbehaves is banned for the first time. The third time it is for good.
    #[serde(with = "units::span")]
    pub ban_first: Duration,
    /// The second time.
    #[serde(with = "units::span")]
    pub ban_second: Duration,
    /// How long a TCP connection may take to come about.
    #[serde(with = "units::span")]
    pub connect_timeout: Duration,
    /// SOCKS5 proxy that all connections go through, such as Tor's. Names are then looked up by it alone.
    #[serde(with = "units::maybe_address")]
    pub proxy: Option<SocketAddr>,
    /// How long a connection through the proxy may take to come about.
    #[serde(with = "units::span")]
    pub proxy_timeout: Duration,
    /// How long version and verack may take.
    #[serde(with = "units::span")]
    pub handshake_timeout: Duration,
    /// How often a peer is asked whether it is there.
    #[serde(with = "units::span")]
    pub ping_interval: Duration,
    /// A peer that was not heard for so long is dropped.
    #[serde(with = "units::span")]
    pub silence_timeout: Duration,
    /// A peer that says it has more headers and does not send them for so long is dropped.
    #[serde(with = "units::span")]
    pub headers_timeout: Duration,
    /// How long all headers of the first sync may take, a millisecond for each that is expected aside.
    #[serde(with = "units::span")]
    pub headers_sync_timeout: Duration,
    /// How long a peer that was chosen may show less work than our chain has.
    #[serde(with = "units::span")]
    pub lag_timeout: Duration,
    /// Whether a new block is asked for as the short ids of its transactions (BIP152).
    pub compact_blocks: bool,
    /// A peer that sends none of the blocks it was asked for is dropped after so long.
    #[serde(with = "units::span")]
    pub block_timeout: Duration,
    /// A peer that holds up the download window for so long is dropped. Doubles with each staller, up to `stall_timeout_max`.
    #[serde(with = "units::span")]
    pub stall_timeout: Duration,
    /// The most that `stall_timeout` grows to.
    #[serde(with = "units::span")]
    pub stall_timeout_max: Duration,
    /// No new block for so long: another peer is asked.
    #[serde(with = "units::span")]
    pub stale_tip_timeout: Duration,
    /// Bytes a second: a block that comes in pieces and slower than this is asked of another peer that has it.
    #[serde(with = "size")]
    pub stream_floor: u64,
    /// How long it may be slower.
    #[serde(with = "units::span")]
    pub stream_patience: Duration,
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

/// `[source]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// Where blocks come from.
    pub kind: SourceKind,
    /// Bitcoin Core's block folder, for `blocks-dir`. See [`Config::source_path`].
    pub path: PathBuf,
}

/// Where blocks come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// From peers alone.
    #[default]
    Peers,
    /// From Bitcoin Core's block folder, and what is not there from peers.
    BlocksDir,
}

/// `[chain]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Chain {
    /// Headers with less total work than this are not followed: `default` (the network's own) or a hexadecimal number.
    pub minimum_work: MinimumWork,
    /// How many bytes of blocks are kept.
    pub keep_blocks: KeepBlocks,
    /// Whether what blocks spend is kept longer than they are.
    pub keep_spent: KeepSpent,
    /// What is checked of the block log at start.
    pub check_start: CheckStart,
    /// How many blocks back the state can be rewound at least.
    pub undo_depth: u32,
    /// How many blocks past the first missing one are asked for.
    pub download_window: u32,
    /// How many blocks one peer is asked for at once.
    pub blocks_per_peer: u16,
    /// A block of more bytes is never held as a whole: it is checked, kept and given to plugins in pieces.
    #[serde(with = "units::size")]
    pub large_block: u64,
    /// Bytes of the longest transaction of such a block.
    #[serde(with = "units::size")]
    pub longest_transaction: u64,
    /// The largest block that a plugin is given whole.
    #[serde(with = "units::size")]
    pub whole_block_limit: u64,
    /// Bytes of state and rows that all parts of a large block may leave in memory, per plugin.
    #[serde(with = "units::size")]
    pub large_block_changes: u64,
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

/// How long what a block spends is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeepSpent {
    /// As long as the block.
    WithBlocks,
    /// For good: a plugin that asks for it can be switched on whenever, and only blocks come from peers again.
    All,
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
    /// Above so many bytes of memory, as estimated, the worst paying transactions leave: several times what they are serialized.
    #[serde(with = "size")]
    pub max_size: u64,
    /// A transaction that waited for so long leaves.
    #[serde(with = "units::span")]
    pub expiry: Duration,
    /// Whether the pool is saved and offered again at start.
    pub persist: bool,
    /// Lowest fee rate taken, in sat/kvB.
    pub min_relay_fee: u64,
    /// What pays less than this, in sat/kvB, is a class of its own; 0 for none.
    pub mining_floor: u64,
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
    /// The most entries of all tables of one instance.
    pub table_limit: u64,
    /// The most core instances of one plugin, and memories, and tables.
    pub instance_limit: u64,
    /// The most time for one call with a block or with changes of the pool.
    #[serde(with = "units::span")]
    pub block_time_limit: Duration,
    /// The most state keys that such a call may write.
    pub block_keys_limit: u64,
    /// The most bytes of keys and values that such a call may write.
    #[serde(with = "size")]
    pub block_state_limit: u64,
    /// The most rows that such a call may write.
    pub block_rows_limit: u64,
    /// The most bytes of rows that such a call may write.
    #[serde(with = "size")]
    pub block_row_bytes_limit: u64,
    /// The most log lines of any call; what is over is dropped.
    pub block_log_limit: u64,
    /// The most time for one query.
    #[serde(with = "units::span")]
    pub query_time_limit: Duration,
    /// The most memory in bytes of an instance that answers a query.
    #[serde(with = "size")]
    pub query_memory_limit: u64,
    /// The most bytes of an answer.
    #[serde(with = "size")]
    pub query_answer_limit: u64,
    /// A plugin that failed for the same cause on the same block so often is quarantined.
    pub quarantine_after: u32,
    /// How many capsules of failures are kept of each plugin; the oldest go. 0: none are written.
    pub capsules: u32,
    /// The most bytes of a capsule.
    #[serde(with = "size")]
    pub capsule_size_limit: u64,
    /// Pause before a failed block is tried again. Doubles with each failure, up to `retry_pause_max`.
    #[serde(with = "units::span")]
    pub retry_pause: Duration,
    /// The most that `retry_pause` grows to.
    #[serde(with = "units::span")]
    pub retry_pause_max: Duration,
    /// How many of the last blocks a new component is tried on, on a fork of the state, before it takes over.
    pub rehearse_blocks: u32,
    /// Whether a new component of the same state version must leave the same behind there as the old one.
    pub require_identical: bool,
}

/// `[plugins.NAME]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plugin {
    /// Whether it runs.
    pub enabled: bool,
    /// Its file, from the plugins' folder; `NAME.wasm` when not given. See [`Config::plugin_file`].
    pub file: Option<PathBuf>,
    /// Hash of the only file that may run, hexadecimal. Any when not given.
    pub sha256: Option<String>,
    /// What of WASI it may import.
    pub wasi: Wasi,
    /// Instead of [`Plugins::require_identical`].
    pub require_identical: Option<bool>,
    /// Instead of [`Plugins::memory_limit`].
    #[serde(with = "units::maybe_size")]
    pub memory_limit: Option<u64>,
    /// Instead of [`Plugins::table_limit`].
    pub table_limit: Option<u64>,
    /// Instead of [`Plugins::instance_limit`].
    pub instance_limit: Option<u64>,
    /// Instead of [`Plugins::block_time_limit`].
    #[serde(with = "units::maybe_span")]
    pub block_time_limit: Option<Duration>,
    /// Instead of [`Plugins::block_keys_limit`].
    pub block_keys_limit: Option<u64>,
    /// Instead of [`Plugins::block_state_limit`].
    #[serde(with = "units::maybe_size")]
    pub block_state_limit: Option<u64>,
    /// Instead of [`Plugins::block_rows_limit`].
    pub block_rows_limit: Option<u64>,
    /// Instead of [`Plugins::block_row_bytes_limit`].
    #[serde(with = "units::maybe_size")]
    pub block_row_bytes_limit: Option<u64>,
    /// Instead of [`Plugins::block_log_limit`].
    pub block_log_limit: Option<u64>,
    /// Instead of [`Plugins::query_time_limit`].
    #[serde(with = "units::maybe_span")]
    pub query_time_limit: Option<Duration>,
    /// Instead of [`Plugins::query_memory_limit`].
    #[serde(with = "units::maybe_size")]
    pub query_memory_limit: Option<u64>,
    /// Instead of [`Plugins::query_answer_limit`].
    #[serde(with = "units::maybe_size")]
    pub query_answer_limit: Option<u64>,
    /// What the plugin itself is told, as it is.
    pub settings: serde_json::Map<String, serde_json::Value>,
}

/// What of WASI a plugin may import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wasi {
    /// Nothing.
    #[default]
    None,
    /// WASI 0.2 with nothing behind it: no files, no network, the block's time, randomness from the block's hash.
    Inert,
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
            add: Vec::new(),
            max_outbound: 8,
            transport: TransportPreference::Auto,
            max_block_only: 2,
            dns_seeds: true,
            feeler_interval: seconds(2 * 60),
            address_answer_life: seconds(24 * 60 * 60),
            addresses_again: seconds(30 * 60),
            save_interval: seconds(15 * 60),
            listen: String::new(),
            max_incoming: 32,
            max_incoming_per_address: 3,
            incoming_rate: 256_000,
            ban_first: seconds(10 * 60),
            ban_second: seconds(24 * 60 * 60),
            connect_timeout: seconds(10),
            proxy: None,
            proxy_timeout: seconds(60),
            handshake_timeout: seconds(60),
            ping_interval: seconds(2 * 60),
            silence_timeout: seconds(20 * 60),
            headers_timeout: seconds(60),
            headers_sync_timeout: seconds(15 * 60),
            lag_timeout: seconds(20 * 60),
            compact_blocks: true,
            block_timeout: seconds(2 * 60),
            stall_timeout: seconds(2),
            stall_timeout_max: seconds(64),
            stale_tip_timeout: seconds(30 * 60),
            stream_floor: 100_000,
            stream_patience: seconds(30),
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
            keep_spent: KeepSpent::WithBlocks,
            check_start: CheckStart::Quick,
            undo_depth: 100,
            download_window: 1024,
            blocks_per_peer: 16,
            large_block: 32_000_000,
            longest_transaction: 128_000_000,
            whole_block_limit: 256_000_000,
            large_block_changes: 512_000_000,
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
            min_relay_fee: 100,
            mining_floor: 0,
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
        let limits = Limits::DEFAULT;
        Self {
            dir: "{data_dir}/plugins".into(),
            memory_limit: limits.memory as u64,
            table_limit: limits.tables as u64,
            instance_limit: limits.instances as u64,
            block_time_limit: limits.block_time,
            block_keys_limit: limits.block_keys,
            block_state_limit: limits.block_state,
            block_rows_limit: limits.block_rows,
            block_row_bytes_limit: limits.block_row_bytes,
            block_log_limit: limits.block_log,
            query_time_limit: limits.query_time,
            query_memory_limit: limits.query_memory as u64,
            query_answer_limit: limits.query_answer as u64,
            quarantine_after: 3,
            capsules: 20,
            capsule_size_limit: 64_000_000,
            retry_pause: Duration::from_secs(1),
            retry_pause_max: Duration::from_secs(5 * 60),
            rehearse_blocks: 6,
            require_identical: false,
        }
    }
}

impl Plugin {
    /// What an instance of the plugin may use: its own limits, and those of all plugins where it has none.
    pub fn limits(&self, all: &Plugins) -> Limits {
        let bytes =
            |own: Option<u64>, all: u64| usize::try_from(own.unwrap_or(all)).unwrap_or(usize::MAX);
        Limits {
            memory: bytes(self.memory_limit, all.memory_limit),
            tables: bytes(self.table_limit, all.table_limit),
            instances: bytes(self.instance_limit, all.instance_limit),
            block_time: self.block_time_limit.unwrap_or(all.block_time_limit),
            block_keys: self.block_keys_limit.unwrap_or(all.block_keys_limit),
            block_state: self.block_state_limit.unwrap_or(all.block_state_limit),
            block_rows: self.block_rows_limit.unwrap_or(all.block_rows_limit),
            block_row_bytes: self
                .block_row_bytes_limit
                .unwrap_or(all.block_row_bytes_limit),
            block_log: self.block_log_limit.unwrap_or(all.block_log_limit),
            query_time: self.query_time_limit.unwrap_or(all.query_time_limit),
            query_memory: bytes(self.query_memory_limit, all.query_memory_limit),
            query_answer: bytes(self.query_answer_limit, all.query_answer_limit),
        }
    }
}

impl Default for Plugin {
    fn default() -> Self {
        Self {
            enabled: true,
            file: None,
            sha256: None,
            wasi: Wasi::None,
            require_identical: None,
            memory_limit: None,
            table_limit: None,
            instance_limit: None,
            block_time_limit: None,
            block_keys_limit: None,
            block_state_limit: None,
            block_rows_limit: None,
            block_row_bytes_limit: None,
            block_log_limit: None,
            query_time_limit: None,
            query_memory_limit: None,
            query_answer_limit: None,
            settings: serde_json::Map::new(),
        }
    }
}
