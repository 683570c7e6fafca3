//! What the host says about itself: the JSON of the API, and what the command line reads of it.
//!
//! Hashes are hexadecimal in display order (as explorers show them), amounts are sat, times are unix seconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod mempool;
mod peers;
mod plugins;

pub use mempool::{Family, Mempool, PoolCoverage, PoolTransaction, Sighting};
pub use peers::{Ban, Peer, PeerBook, Peers};
pub use plugins::{BudgetUse, Plugin, PluginState, Reload, ReloadState};

/// `GET /api/v1/status`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `mainnet`, `testnet3`, `testnet4`, `signet` or `regtest`.
    pub network: String,
    /// Version of the host.
    pub version: String,
    /// Seconds since the host started.
    pub uptime_seconds: u64,
    /// The last block of the active branch that is stored and checked.
    pub tip: Tip,
    /// The best chain of headers.
    pub headers: Headers,
    /// Whether the tip is the end of the best chain, every running plugin has taken it, and queries answer for it.
    pub synced: bool,
    /// Why the host does not follow the chain, in the words of `GET /health`; none when it does.
    #[serde(default)]
    pub not_following: Option<String>,
    /// The peers that have finished their handshake.
    pub peers: Vec<Peer>,
    /// Unconfirmed transactions.
    pub mempool: Mempool,
    /// Every plugin of the configuration.
    pub plugins: Vec<Plugin>,
    /// Reorganisations since the start.
    #[serde(default)]
    pub reorgs: u64,
    /// The folder that blocks are read from, if there is one besides the peers.
    #[serde(default)]
    pub source: Option<Source>,
    /// What is wrong with the configuration file as it is now; the one before is in force.
    #[serde(default)]
    pub config_error: Option<String>,
    /// Keys that were changed in the configuration file and take a restart.
    #[serde(default)]
    pub needs_restart: Vec<String>,
}

/// A block's place. `GET /api/v1/tip`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tip {
    /// Distance from genesis.
    pub height: u32,
    /// The block's hash.
    pub hash: String,
    /// The header's time.
    pub time: u32,
}

/// The best chain of headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headers {
    /// Height of its end.
    pub height: u32,
}

/// A folder of Bitcoin Core's that blocks are read from in place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The folder.
    pub path: String,
    /// How many block files it has.
    pub files: u64,
    /// How many of them were looked through.
    pub files_read: u64,
    /// How many are missing before the first one, because Core has pruned them.
    pub files_missing: u32,
    /// Bytes of all files.
    pub bytes: u64,
    /// Whether all were looked through once; until then no block is asked of a peer.
    pub scanned: bool,
    /// Blocks found since the start.
    pub blocks: u64,
    /// Blocks that were checked and are read there, and not from a log of ours.
    pub blocks_taken: u64,
    /// Blocks that are not checked yet.
    pub blocks_waiting: u64,
    /// Blocks whose parents are neither there nor known from peers.
    pub blocks_unconnected: u64,
    /// Why the folder cannot be read at the moment.
    pub error: Option<String>,
}

/// `GET /health`: following the chain, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// At the tip, and every plugin with it.
    Following,
    /// At the tip with every plugin but those that are quarantined, by name with the reason.
    Degraded(BTreeMap<String, String>),
    /// The reason, for people.
    NotFollowing(String),
}

/// `GET /api/v1/blocks/{height or hash}`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockInfo {
    /// Distance from genesis.
    pub height: u32,
    /// The block's hash.
    pub hash: String,
    /// Hash of the parent; zeros for genesis.
    pub previous: String,
    /// Hash of the block after it on the active branch, if there is one.
    pub next: Option<String>,
    /// Whether it is on the active branch.
    pub active: bool,
    /// Blocks from this one to the tip, this one included; 0 when it is not on the active branch.
    pub confirmations: u32,
    /// Header version.
    pub version: i32,
    /// Root of the tree of txids.
    pub merkle_root: String,
    /// The header's time.
    pub time: u32,
    /// Median time of this block and the ten before.
    pub median_time: u32,
    /// Compact target, eight hexadecimal digits.
    pub bits: String,
    /// The header's nonce.
    pub nonce: u32,
    /// Number of transactions; none when the block itself is not kept.
    pub txs: Option<u32>,
    /// Serialized size in bytes; none when the block itself is not kept.
    pub size: Option<u32>,
    /// Weight units (BIP141); none when the block itself is not kept.
    pub weight: Option<u32>,
}

/// Numbers that a plugin shows. `GET /api/v1/plugins/{name}/values`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Values {
    /// What was set last, by name.
    pub gauges: BTreeMap<String, f64>,
    /// The last points, oldest first, by name.
    pub series: BTreeMap<String, Vec<Point>>,
}

/// A number of a series, at the block that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The block's height.
    pub height: u32,
    /// The time in the block's header.
    pub time: u32,
    /// The number.
    pub value: f64,
}

/// The set of unspent outputs. `GET /api/v1/txoutset`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxOutSet {
    /// Height of the block after which the set was taken.
    pub height: u32,
    /// Hash of that block.
    pub bestblock: String,
    /// Number of unspent outputs.
    pub txouts: u64,
    /// Their sum.
    pub total_sats: u64,
    /// Bitcoin Core's `muhash`, as `gettxoutsetinfo` shows it.
    pub muhash: String,
    /// Bitcoin Core's `hash_serialized_3`, as `gettxoutsetinfo` shows it.
    pub hash_serialized_3: String,
}

/// The body of every answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// An error, for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// One word, which stays the same: `not_found`, `bad_request`, …
    pub code: String,
    /// A sentence.
    pub message: String,
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    /// A status in which everything is set.
    pub(crate) fn example() -> Status {
        Status {
            network: "regtest".to_owned(),
            version: "0.1.0".to_owned(),
            uptime_seconds: 93_784,
            tip: Tip {
                height: 132,
                hash: "2d".repeat(32),
                time: 1_700_000_000,
            },
            headers: Headers { height: 140 },
            synced: false,
            not_following: Some(
                "block 133 cannot be taken: a transaction of 5 bytes is longer than what is held; set \
                 chain.longest_transaction higher and restart"
                    .to_owned(),
            ),
            peers: vec![Peer {
                addr: "127.0.0.1:18444".to_owned(),
                user_agent: "/Satoshi:31.0.0/".to_owned(),
                services: vec!["NETWORK".to_owned(), "WITNESS".to_owned()],
                height: 140,
                start_height: 139,
                since: 1_700_000_001,
                transport: "v2".to_owned(),
                session_id: Some("ab".repeat(32)),
                version: 70016,
                bytes_in: 12_345_678,
                bytes_out: 4_321,
                ping_ms: Some(3),
                id: 4,
                direction: "outbound".to_owned(),
                kind: "full".to_owned(),
                blocks: 130,
                in_flight: 2,
                misbehaviour: 1,
            }],
            mempool: Mempool {
                txs: 60,
                vbytes: 12_000,
                fees_sats: 60_000,
                min_fee_rate: 100,
                ..Mempool::default()
            },
            plugins: vec![
                Plugin {
                    name: "utxo-tracker".to_owned(),
                    version: "0.1.0".to_owned(),
                    sha256: "ab".repeat(32),
                    state: PluginState::Following,
                    height: Some(132),
                    hash: Some("2d".repeat(32)),
                    lag: 0,
                    waiting_for: None,
                    last_error: None,
                    previous_sha256: None,
                    reload: None,
                    budgets: BTreeMap::from([(
                        "memory_limit".to_owned(),
                        BudgetUse {
                            last: 1,
                            max: 2,
                            limit: 3,
                            unit: "bytes".to_owned(),
                        },
                    )]),
                    attempts: 0,
                    capsule: None,
                },
                Plugin {
                    name: "tx-writer".to_owned(),
                    version: "0.1.0".to_owned(),
                    sha256: "cd".repeat(32),
                    state: PluginState::Retrying,
                    height: None,
                    hash: None,
                    lag: 133,
                    waiting_for: None,
                    last_error: Some("trap: unreachable".to_owned()),
                    previous_sha256: None,
                    reload: None,
                    budgets: BTreeMap::new(),
                    attempts: 2,
                    capsule: Some("/data/capsules/one.capsule".to_owned()),
                },
            ],
            reorgs: 2,
            source: None,
            config_error: None,
            needs_restart: Vec::new(),
        }
    }

    /// Peers in which everything is set.
    pub(crate) fn example_peers() -> Peers {
        Peers {
            peers: example().peers,
            bans: vec![
                Ban {
                    subnet: "192.0.2.0/24".to_owned(),
                    since: 1_700_000_000,
                    until: Some(1_700_000_600),
                    offences: 0,
                    by: "operator".to_owned(),
                    reason: "noise".to_owned(),
                },
                Ban {
                    subnet: "2001:db8:0:1::/64".to_owned(),
                    since: 1_700_000_000,
                    until: None,
                    offences: 3,
                    by: "host".to_owned(),
                    reason: "malformed block".to_owned(),
                },
            ],
            book: PeerBook { new: 7, tried: 2 },
        }
    }

    #[test]
    fn the_json_of_status_has_the_keys_that_are_promised() {
        let json = serde_json::to_value(example()).unwrap();
        for pointer in [
            "/network",
            "/version",
            "/uptime_seconds",
            "/tip/height",
            "/tip/hash",
            "/tip/time",
            "/headers/height",
            "/synced",
            "/peers/0/addr",
            "/peers/0/user_agent",
            "/peers/0/services",
            "/peers/0/height",
            "/peers/0/since",
            "/mempool/txs",
            "/mempool/vbytes",
            "/mempool/fees_sats",
            "/mempool/suspicious",
            "/mempool/listening_seconds",
            "/mempool/coverage/seen_weight",
            "/plugins/0/name",
            "/plugins/0/version",
            "/plugins/0/sha256",
            "/plugins/0/state",
            "/plugins/0/height",
            "/plugins/0/hash",
            "/plugins/0/lag",
            "/plugins/0/budgets/memory_limit/max",
            "/plugins/1/last_error",
            "/plugins/1/attempts",
            "/plugins/1/capsule",
        ] {
            assert!(json.pointer(pointer).is_some(), "{pointer} is missing");
        }
        assert!(json.pointer("/plugins/1/height").unwrap().is_null());
        assert_eq!(json.pointer("/plugins/1/state").unwrap(), "retrying");
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), example());
    }
}
