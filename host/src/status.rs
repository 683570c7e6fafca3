//! What the host says about itself: the JSON of the API, and what the command line reads of it.
//!
//! Hashes are hexadecimal in display order (as explorers show them), amounts are sat, times are unix seconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
    /// Whether the tip is the end of the best chain and every running plugin follows it.
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

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its address and port.
    pub addr: String,
    /// What it calls itself (BIP14).
    pub user_agent: String,
    /// Its service bits, by their names in Bitcoin Core (`NETWORK`, `WITNESS`, …); unknown ones as `2^n`.
    pub services: Vec<String>,
    /// The highest block it is known to have.
    pub height: u32,
    /// The height that it said at the handshake.
    #[serde(default)]
    pub start_height: u32,
    /// When the connection came about.
    pub since: u64,
    /// `v1` or `v2`, the encrypted transport (BIP324).
    #[serde(default)]
    pub transport: String,
    /// The session id of an encrypted transport, hexadecimal: the same at both ends unless somebody sits between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Protocol version.
    #[serde(default)]
    pub version: u32,
    /// Bytes received from it.
    #[serde(default)]
    pub bytes_in: u64,
    /// Bytes sent to it.
    #[serde(default)]
    pub bytes_out: u64,
    /// Milliseconds that the last ping took, once one was answered.
    #[serde(default)]
    pub ping_ms: Option<u64>,
    /// The connection's number, for `peers drop`.
    #[serde(default)]
    pub id: u64,
    /// `outbound`, or `inbound` when the peer connected to us.
    #[serde(default)]
    pub direction: String,
    /// `manual` (named by the configuration or the operator), `full`, `block-only`, `feeler` or `incoming`.
    #[serde(default)]
    pub kind: String,
    /// Blocks that it sent.
    #[serde(default)]
    pub blocks: u64,
    /// Blocks that it was asked for and has not sent.
    #[serde(default)]
    pub in_flight: u64,
    /// Small offences, which have an end: see "Peers" in `docs/operations.md`. Whatever is worse ends the connection at once.
    #[serde(default)]
    pub misbehaviour: u32,
}

/// Peers, bans and the peer book. `GET /api/v1/peers`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// Those that have finished their handshake.
    pub peers: Vec<Peer>,
    /// The bans that hold.
    pub bans: Vec<Ban>,
    /// How full the peer book is.
    pub book: PeerBook,
}

/// A ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// An address, or a range such as `192.0.2.0/24`.
    pub subnet: String,
    /// Since when.
    pub since: u64,
    /// Until when; none is for good.
    pub until: Option<u64>,
    /// How often it misbehaved.
    pub offences: u32,
    /// `operator` or `host`.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// How many addresses of peers are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerBook {
    /// Heard of.
    pub new: u64,
    /// Connected to before.
    pub tried: u64,
}

/// Unconfirmed transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mempool {
    /// How many.
    pub txs: u64,
    /// Their virtual bytes.
    pub vbytes: u64,
    /// Their fees.
    pub fees_sats: u64,
    /// Lowest fee rate that is taken now, sat/kvB.
    #[serde(default)]
    pub min_fee_rate: u64,
    /// Transactions that wait for their parents.
    #[serde(default)]
    pub orphans: u64,
    /// Transactions that at least three blocks passed over though they pay more than those took: perhaps nobody can mine
    /// them. Scripts are not run.
    #[serde(default)]
    pub suspicious: u64,
    /// Transactions that pay less than the mining floor, where there is one.
    #[serde(default)]
    pub secondary: u64,
    /// How long peers have been listened to, seconds.
    #[serde(default)]
    pub listening_seconds: u64,
    /// Peers that announced something in the last ten minutes.
    #[serde(default)]
    pub peers: u64,
    /// Which part of the last block had been in the pool before; none before the first block.
    #[serde(default)]
    pub last_block: Option<PoolCoverage>,
    /// Of the last 144 blocks together.
    #[serde(default)]
    pub coverage: PoolCoverage,
}

/// How much of blocks had been in the pool before they came. Coinbases do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolCoverage {
    /// Height of the last one.
    pub height: Option<u32>,
    /// How many blocks.
    pub blocks: u64,
    /// Their transactions.
    pub txs: u64,
    /// Those that were seen before.
    pub seen: u64,
    /// Weight units of all.
    pub weight: u64,
    /// Of those that were seen before.
    pub seen_weight: u64,
}

impl PoolCoverage {
    /// Share of the transactions seen before, percent; none where there were none.
    pub fn percent(&self) -> Option<u64> {
        (self.seen * 100).checked_div(self.txs)
    }
}

/// `GET /api/v1/mempool/tx/{txid}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolTransaction {
    /// Hash without witnesses.
    pub txid: String,
    /// Hash with witnesses.
    pub wtxid: String,
    /// Inputs less outputs.
    pub fee_sats: u64,
    /// Virtual bytes.
    pub vsize: u64,
    /// Weight units.
    pub weight: u64,
    /// `primary`, or `secondary` for what pays less than the mining floor.
    pub class: String,
    /// When it was first seen, unix seconds.
    pub first_seen: u64,
    /// The first peers that announced it, in order.
    pub seen_from: Vec<Sighting>,
    /// Transactions of the pool that it spends from.
    pub depends: Vec<String>,
    /// It and what it depends on: how many, their virtual bytes, their fees.
    pub ancestors: Family,
    /// It and what depends on it.
    pub descendants: Family,
    /// Blocks that took less than it pays and did not take it.
    pub passed_over: u64,
    /// Whether there were so many that perhaps nobody can mine it.
    pub suspicious: bool,
}

/// Sums over a transaction and others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Family {
    /// How many, itself included.
    pub txs: u64,
    /// Virtual bytes.
    pub vsize: u64,
    /// Fees.
    pub fees_sats: u64,
}

/// That a peer announced a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// Address and port.
    pub peer: String,
    /// Unix milliseconds.
    pub at: u64,
}

/// A plugin and its lane. `GET /api/v1/plugins` is a list of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugin {
    /// Its name.
    pub name: String,
    /// Its own version; empty as long as it could not be loaded.
    pub version: String,
    /// Hash of its file.
    pub sha256: String,
    /// What it is doing.
    pub state: PluginState,
    /// Height of the last block it was given; none before the first.
    pub height: Option<u32>,
    /// Hash of that block.
    pub hash: Option<String>,
    /// Blocks between that one and the tip.
    pub lag: u32,
    /// What it waits for before it can take its next block, if it does; for people.
    #[serde(default)]
    pub waiting_for: Option<String>,
    /// What went wrong last, if anything ever did since the start.
    pub last_error: Option<String>,
    /// The component that ran before, to which `plugin revert` goes back.
    #[serde(default)]
    pub previous_sha256: Option<String>,
    /// How the last change of its file or of its configuration went.
    #[serde(default)]
    pub reload: Option<Reload>,
    /// What it has used of its budgets, by their keys in the configuration.
    #[serde(default)]
    pub budgets: BTreeMap<String, BudgetUse>,
    /// Failures of one cause on one block, one after the other; 0 once the block was taken.
    #[serde(default)]
    pub attempts: u32,
    /// The capsule of the last failure: a path on the host's machine.
    #[serde(default)]
    pub capsule: Option<String>,
}

/// The change of a running plugin: another file, other settings, or a step back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// How far it is.
    pub state: ReloadState,
    /// Hash of the file that it is about.
    pub sha256: String,
    /// More of it, for people.
    pub message: String,
    /// Unix seconds.
    pub at: u64,
}

/// How far the change of a plugin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReloadState {
    /// The data are made anew by the new component, while the old one serves.
    Building,
    /// The new component runs.
    Swapped,
    /// The component before runs again.
    Reverted,
    /// The old one goes on.
    Refused,
}

impl ReloadState {
    /// The word that stands for it in JSON and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Swapped => "swapped",
            Self::Reverted => "reverted",
            Self::Refused => "refused",
        }
    }
}

/// What a plugin has used of a budget since it was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetUse {
    /// What the last call used.
    pub last: u64,
    /// The most that a call has used.
    pub max: u64,
    /// What a call may use.
    pub limit: u64,
    /// `bytes`, `microseconds` or `count`.
    pub unit: String,
}

/// What a plugin is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PluginState {
    /// Its file is being compiled, or its first instance started.
    Starting,
    /// It is behind the tip and takes in blocks.
    Syncing,
    /// It has the tip.
    Following,
    /// It waits for another plugin or for peers.
    Waiting,
    /// Its last block failed and is tried again after a pause.
    Retrying,
    /// It failed on the same block again and again: it stands still until it is asked to try again or is changed.
    Quarantined,
    /// The host's disk or database failed: it goes on by itself as soon as they do.
    #[serde(rename = "waiting-for-host")]
    WaitingForHost,
    /// It cannot run: its file or its settings are wrong.
    Failed,
    /// It has ended because the host ends.
    Stopped,
    /// The configuration switches it off.
    Disabled,
}

impl PluginState {
    /// The word that stands for it in JSON and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Syncing => "syncing",
            Self::Following => "following",
            Self::Waiting => "waiting",
            Self::Retrying => "retrying",
            Self::Quarantined => "quarantined",
            Self::WaitingForHost => "waiting-for-host",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Disabled => "disabled",
        }
    }
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
