//! A capsule: all that it takes to run a call that failed again, in one file.
//!
//! ```text
//! "BMCAPS" 0 1 │ length u32 │ header, JSON │ section │ section │ … │ CRC-32 of all before u32
//! ```
//!
//! The header names the sections and their lengths in their order: `block` (as on the wire), `spent` (as the block log
//! keeps it), `pool` (transactions that came and went), `sigops` (what those that came cost), `reads` (what the plugin read) and `wasm` (the plugin's file, when
//! it is small). Numbers are little-endian. A later version may add keys and sections; a reader passes over what it does
//! not know.

mod reads;

use super::error::CallError;
use super::instance::MempoolInput;
use super::recorder::Recording;
use crate::frame::Spent;
use crate::lane::Position;
use crate::mempool::{Entry, MempoolChanges, Origin, RemoveReason};
use anyhow::{Context, Result, bail, ensure};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Txid};
use bytes::Bytes;
use reads::{Reader, Writer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"BMCAPS\0\x01";

/// A block's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    pub height: u32,
    /// Hexadecimal, in display order.
    pub hash: String,
}

impl From<Position> for At {
    fn from(position: Position) -> Self {
        Self {
            height: position.height,
            hash: position.hash.to_string(),
        }
    }
}

impl At {
    /// The place, if the hash is one.
    pub fn position(&self) -> Option<Position> {
        let hash: BlockHash = self.hash.parse().ok()?;
        Some(Position {
            height: self.height,
            hash,
        })
    }
}

/// The JSON at the beginning of a capsule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the host that wrote it.
    pub host: String,
    /// When it was written, unix seconds.
    pub written: u64,
    pub network: String,
    pub plugin: String,
    /// The plugin's own version.
    pub version: String,
    /// SHA-256 of the plugin's file.
    pub component: String,
    pub component_bytes: u64,
    /// The plugin's settings as a JSON object.
    pub settings: String,
    /// Limits by their keys in the configuration: bytes, microseconds or a number.
    pub limits: BTreeMap<String, u64>,
    /// `start`, `on-block`, `on-mempool`, `query`, …
    pub call: String,
    /// The kind of failure in a word.
    pub class: String,
    pub message: String,
    /// What two failures of one cause have in common.
    pub cause: String,
    /// Functions, innermost first.
    pub backtrace: String,
    /// The block before: where the instance was started.
    pub cursor: Option<At>,
    /// What the call was given: `start`, `block`, `mempool` or `query`.
    pub given: String,
    /// The block that was given.
    pub block: Option<At>,
    /// Of that block, unix seconds.
    pub median_time: u32,
    /// Of changes of the pool.
    pub pool: Option<PoolHeader>,
    /// Of a query: path and parameters.
    pub query: Option<(String, Vec<(String, String)>)>,
    /// What the plugin read was recorded: the failure came at least twice.
    pub recorded: bool,
    /// Something was too large to be kept.
    pub truncated: bool,
    /// Name and bytes of each section, in order.
    pub sections: Vec<(String, u64)>,
}

/// What a plugin is told with changes of the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolHeader {
    pub reset: bool,
    pub time: u64,
    pub height: u32,
    pub current: bool,
}

/// What a call was given.
#[derive(Debug, Clone)]
pub enum Given {
    /// Nothing: the instance could not be started.
    Start,
    Block {
        position: Position,
        median_time: u32,
        raw: Bytes,
        spent: Option<Arc<Spent>>,
    },
    Mempool {
        header: PoolHeader,
        changes: MempoolChanges,
    },
    Query {
        path: String,
        params: Vec<(String, String)>,
    },
}

impl Given {
    /// Changes of the pool.
    pub fn pool(input: &MempoolInput<'_>) -> Self {
        Self::Mempool {
            header: PoolHeader {
                reset: input.reset,
                time: input.time,
                height: input.height,
                current: input.current,
            },
            changes: input.changes.clone(),
        }
    }

    /// One word, as in the header.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Block { .. } => "block",
            Self::Mempool { .. } => "mempool",
            Self::Query { .. } => "query",
        }
    }
}

/// A capsule in memory.
#[derive(Debug, Clone)]
pub struct Capsule {
    pub header: Header,
    pub wasm: Option<Arc<[u8]>>,
    pub given: Given,
    pub reads: Recording,
}

impl Header {
    /// Fills in what a failure says.
    pub fn failed(&mut self, error: &CallError) {
        self.call = match error {
            CallError::Budget { call, .. }
            | CallError::Rule { call, .. }
            | CallError::Trap { call, .. }
            | CallError::Failed { call, .. }
            | CallError::Answer { call, .. }
            | CallError::Rows { call, .. }
            | CallError::Host { call, .. } => (*call).to_owned(),
            CallError::Invalid(_) => "on-block".to_owned(),
            CallError::NotOwner => "query".to_owned(),
        };
        self.class = error.class().as_str().to_owned();
        self.message = error.to_string();
        self.cause = error.cause();
        self.backtrace = error.backtrace().to_owned();
    }
}

impl Capsule {
    /// The bytes of the file, at most `limit`: the component, which can be had elsewhere, then the reads, then what was given
    /// are left out when there is more.
    pub fn encode(&self, limit: usize) -> Result<Vec<u8>> {
        let mut header = self.header.clone();
        header.given = self.given.kind().to_owned();
        header.truncated |= self.reads.truncated;
        let mut sections: Vec<(&str, Vec<u8>)> = Vec::new();
        match &self.given {
            Given::Start => {}
            Given::Block {
                position,
                median_time,
                raw,
                spent,
            } => {
                header.block = Some((*position).into());
                header.median_time = *median_time;
                sections.push(("block", raw.to_vec()));
                if let Some(spent) = spent {
                    sections.push(("spent", spent.encode()));
                }
            }
            Given::Mempool {
                header: pool,
                changes,
            } => {
                header.pool = Some(pool.clone());
                sections.push(("pool", encode_pool(changes)));
                if let Some(costs) = encode_sigops(changes) {
                    sections.push(("sigops", costs));
                }
            }
            Given::Query { path, params } => header.query = Some((path.clone(), params.clone())),
        }
        if header.recorded {
            sections.push(("reads", reads::encode(&self.reads)));
        }
        if let Some(wasm) = &self.wasm {
            sections.push(("wasm", wasm.to_vec()));
        }
        let room = limit.saturating_sub(header.backtrace.len() + header.message.len() + 8_192);
        while sections.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > room {
            sections.pop();
            header.truncated = true;
        }
        let bytes = |(name, bytes): &(&str, Vec<u8>)| ((*name).to_owned(), bytes.len() as u64);
        header.sections = sections.iter().map(bytes).collect();
        let json = serde_json::to_vec(&header)?;
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&u32::try_from(json.len())?.to_le_bytes());
        out.extend_from_slice(&json);
        sections
            .iter()
            .for_each(|(_, bytes)| out.extend_from_slice(bytes));
        let sum = crc32fast::hash(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        Ok(out)
    }

    /// Reads what [`Capsule::encode`] wrote.
    ///
    /// # Errors
    ///
    /// When it is no capsule, is damaged, or holds not what it takes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (whole, sum) = bytes.split_last_chunk::<4>().context("it is too short")?;
        let rest = whole
            .strip_prefix(MAGIC)
            .context("it is no capsule of this version (it does not begin with BMCAPS 0 1)")?;
        ensure!(
            crc32fast::hash(whole) == u32::from_le_bytes(*sum),
            "it is damaged: its checksum is another"
        );
        let mut reader = Reader::new(rest);
        let length = reader.u32()? as usize;
        let header: Header =
            serde_json::from_slice(reader.take(length)?).context("its header is damaged")?;
        let mut sections = BTreeMap::new();
        for (name, length) in &header.sections {
            sections.insert(name.as_str(), reader.take(usize::try_from(*length)?)?);
        }
        let section = |name: &str| sections.get(name).copied();
        let place = header.block.as_ref().and_then(At::position);
        let given = match header.given.as_str() {
            "start" => Given::Start,
            "block" => Given::Block {
                position: place.context("its block has no place")?,
                median_time: header.median_time,
                raw: Bytes::copy_from_slice(
                    section("block").context("the block was too large to be kept in it")?,
                ),
                spent: section("spent")
                    .map(|bytes| Spent::decode(bytes).map(Arc::new))
                    .transpose()?,
            },
            "mempool" => Given::Mempool {
                header: header.pool.clone().context("its pool has no header")?,
                changes: decode_pool(
                    section("pool").context("the pool was too large to be kept in it")?,
                    section("sigops"),
                )?,
            },
            "query" => {
                let (path, params) = header.query.clone().context("its query is missing")?;
                Given::Query { path, params }
            }
            other => bail!("it was given {other:?}, which this version does not know"),
        };
        let reads = section("reads").map(reads::decode).transpose()?;
        Ok(Self {
            wasm: section("wasm").map(Arc::from),
            given,
            reads: reads.unwrap_or_default(),
            header,
        })
    }
}

fn encode_pool(changes: &MempoolChanges) -> Vec<u8> {
    let mut out = Writer::default();
    out.u32(changes.removed.len());
    for (txid, reason) in &changes.removed {
        out.raw(txid.as_byte_array());
        out.raw(&[match reason {
            RemoveReason::Confirmed { .. } => 0,
            RemoveReason::Conflicted { .. } => 1,
            RemoveReason::Replaced { .. } => 2,
            RemoveReason::Expired => 3,
            RemoveReason::Evicted => 4,
            RemoveReason::Reorg => 5,
        }]);
    }
    out.u32(changes.added.len());
    for (entry, origin) in &changes.added {
        out.bytes(&entry.raw);
        for number in [entry.fee, entry.vsize, entry.first_seen] {
            out.raw(&number.to_le_bytes());
        }
        out.raw(&[match origin {
            Origin::New => 0,
            Origin::Returned => 1,
            Origin::Reloaded => 2,
        }]);
        out.u32(entry.depends.len());
        entry
            .depends
            .iter()
            .for_each(|txid| out.raw(txid.as_byte_array()));
    }
    out.0
}

/// What operations on signatures cost of each transaction that came, u32; none when that is not known.
fn encode_sigops(changes: &MempoolChanges) -> Option<Vec<u8>> {
    let costs = changes.added.iter().map(|(entry, _)| entry.sigop_cost);
    let costs: Vec<[u8; 4]> = costs
        .map(|cost| Some(cost?.to_le_bytes()))
        .collect::<Option<_>>()?;
    Some(costs.concat())
}

/// Capsules of before the boundary's version 0.1.3 say nothing of `sigops`.
fn decode_pool(bytes: &[u8], sigops: Option<&[u8]>) -> Result<MempoolChanges> {
    let mut reader = Reader::new(bytes);
    let mut sigops = sigops.map(Reader::new);
    let mut changes = MempoolChanges::default();
    let by = Txid::all_zeros();
    for _ in 0..reader.u32()? {
        let txid = Txid::from_byte_array(reader.array()?);
        let reason = match reader.u8()? {
            0 => RemoveReason::Confirmed { height: 0 },
            1 => RemoveReason::Conflicted { by },
            2 => RemoveReason::Replaced { by },
            3 => RemoveReason::Expired,
            4 => RemoveReason::Evicted,
            5 => RemoveReason::Reorg,
            other => bail!("a transaction left the pool for the unknown reason {other}"),
        };
        changes.removed.push((txid, reason));
    }
    for _ in 0..reader.u32()? {
        let raw = Bytes::copy_from_slice(reader.bytes()?);
        let (fee, vsize, first_seen) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let origin = match reader.u8()? {
            0 => Origin::New,
            1 => Origin::Returned,
            2 => Origin::Reloaded,
            other => bail!("a transaction came into the pool from the unknown origin {other}"),
        };
        let mut depends = Vec::new();
        for _ in 0..reader.u32()? {
            depends.push(Txid::from_byte_array(reader.array()?));
        }
        let cost = sigops.as_mut().map(Reader::u32).transpose()?;
        let entry = Entry::told(raw, fee, vsize, cost, first_seen, depends)?;
        changes.added.push((Arc::new(entry), origin));
    }
    Ok(changes)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use crate::plugin::Recorder;
    use bitcoin::Network;
    use bitcoin::consensus;
    use bitcoin::constants::genesis_block;

    pub(crate) fn example(given: Given) -> Capsule {
        let recorder = Recorder::default();
        recorder.arm(1 << 20);
        recorder.read(b"key", Some(b"value"));
        recorder.read(b"absent", None);
        recorder.header(0, None);
        recorder.read_volatile(b"v", Some(b"1"));
        Capsule {
            header: Header {
                host: "0.1.0".to_owned(),
                written: 1,
                network: "regtest".to_owned(),
                plugin: "one".to_owned(),
                version: "0.1.0".to_owned(),
                component: "00".repeat(32),
                component_bytes: 3,
                settings: "{}".to_owned(),
                limits: BTreeMap::from([("memory_limit".to_owned(), 5)]),
                call: "on-block".to_owned(),
                class: "trap".to_owned(),
                message: "unreachable".to_owned(),
                cause: "unreachable".to_owned(),
                backtrace: "0: f".to_owned(),
                cursor: None,
                given: String::new(),
                block: None,
                median_time: 0,
                pool: None,
                query: None,
                recorded: true,
                truncated: false,
                sections: Vec::new(),
            },
            wasm: Some(Arc::from(&b"abc"[..])),
            given,
            reads: recorder.take().unwrap(),
        }
    }

    fn block() -> Given {
        let block = genesis_block(Network::Regtest);
        Given::Block {
            position: Position {
                height: 7,
                hash: block.block_hash(),
            },
            median_time: 9,
            raw: consensus::serialize(&block).into(),
            spent: Some(Arc::new(Spent::default())),
        }
    }

    #[test]
    fn a_capsule_is_read_as_it_was_written() {
        let genesis = genesis_block(Network::Regtest);
        let raw = consensus::serialize(&genesis.txdata[0]);
        let entry = Entry::told(raw.into(), 1, 2, Some(5), 3, vec![Txid::all_zeros()]).unwrap();
        let pool = Given::Mempool {
            header: PoolHeader {
                reset: true,
                time: 4,
                height: 5,
                current: false,
            },
            changes: MempoolChanges {
                added: vec![(Arc::new(entry), Origin::Returned)],
                removed: vec![(Txid::all_zeros(), RemoveReason::Evicted)],
            },
        };
        let query = Given::Query {
            path: "p".to_owned(),
            params: vec![("a".to_owned(), "b".to_owned())],
        };
        for given in [Given::Start, block(), pool, query] {
            let capsule = example(given);
            let bytes = capsule.encode(1 << 20).unwrap();
            let again = Capsule::decode(&bytes).unwrap();
            assert_eq!(format!("{:?}", again.given), format!("{:?}", capsule.given));
            assert_eq!(again.reads.values, capsule.reads.values);
            assert_eq!(again.reads.volatile, capsule.reads.volatile);
            assert_eq!(again.reads.headers, capsule.reads.headers);
            assert_eq!(again.wasm, capsule.wasm);
            assert_eq!(again.header.message, "unreachable");
            assert_eq!(
                again.encode(1 << 20).unwrap(),
                bytes,
                "and written as it was read"
            );
        }
    }

    #[test]
    fn a_capsule_of_before_sigops_were_told_says_that_they_are_not_known() {
        let genesis = genesis_block(Network::Regtest);
        let raw: Bytes = consensus::serialize(&genesis.txdata[0]).into();
        let pool = |cost| {
            let entry = Entry::told(raw.clone(), 1, 2, cost, 3, Vec::new()).unwrap();
            example(Given::Mempool {
                header: PoolHeader {
                    reset: false,
                    time: 4,
                    height: 5,
                    current: true,
                },
                changes: MempoolChanges {
                    added: vec![(Arc::new(entry), Origin::New)],
                    removed: Vec::new(),
                },
            })
        };
        for cost in [Some(0), Some(16_000), None] {
            let bytes = pool(cost).encode(1 << 20).unwrap();
            let again = Capsule::decode(&bytes).unwrap();
            let named = |(name, _): &(String, u64)| name == "sigops";
            assert_eq!(again.header.sections.iter().any(named), cost.is_some());
            let Given::Mempool { changes, .. } = &again.given else {
                panic!("changes of the pool were given");
            };
            assert_eq!(changes.added[0].0.sigop_cost, cost);
        }
    }

    #[test]
    fn a_capsule_keeps_its_bound_and_a_damaged_one_is_refused() {
        let mut capsule = example(block());
        capsule.wasm = Some(vec![7; 1 << 20].into());
        let bytes = capsule.encode(100_000).unwrap();
        assert!(bytes.len() <= 100_000);
        let kept = Capsule::decode(&bytes).unwrap();
        assert!(kept.wasm.is_none(), "the component can be had elsewhere");
        assert!(matches!(kept.given, Given::Block { .. }));
        assert_eq!(kept.reads.values, capsule.reads.values);
        let refused = Capsule::decode(&capsule.encode(0).unwrap()).unwrap_err();
        assert!(refused.to_string().contains("too large"), "{refused}");
        let mut bytes = example(block()).encode(100_000).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        assert!(
            Capsule::decode(&bytes)
                .unwrap_err()
                .to_string()
                .contains("damaged")
        );
        for end in 0..bytes.len() {
            assert!(Capsule::decode(&bytes[..end]).is_err());
        }
    }
}
