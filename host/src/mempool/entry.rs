//! One unconfirmed transaction.

use bitcoin::{OutPoint, Txid, Wtxid};
use bytes::Bytes;

use super::coins::Tip;

/// Sums over a set of entries, the entry itself included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Entries.
    pub count: u64,
    /// Virtual bytes.
    pub vsize: u64,
    /// Fees in sat.
    pub fees: u64,
}

impl Figures {
    /// Fee rate in sat/kvB.
    pub fn rate(&self) -> f64 {
        self.fees as f64 * 1000.0 / (self.vsize.max(1) as f64)
    }

    pub(super) fn add(&mut self, other: Self) {
        self.count += other.count;
        self.vsize += other.vsize;
        self.fees += other.fees;
    }

    pub(super) fn subtract(&mut self, other: Self) {
        self.count = self.count.saturating_sub(other.count);
        self.vsize = self.vsize.saturating_sub(other.vsize);
        self.fees = self.fees.saturating_sub(other.fees);
    }
}

/// The blocks that a transaction may be in, as far as its place in time matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Locks {
    /// The lowest height of such a block: lock time by height, coinbase maturity, relative locks.
    pub(super) from_height: u32,
    /// The median time past before such a block is above this (BIP113), if it is not 0: lock time, relative locks.
    pub(super) after_time: u32,
    /// It has a relative lock (BIP68), which moves when what it spends moves.
    pub(super) relative: bool,
}

impl Locks {
    /// Whether the block after `tip` may hold it.
    pub(super) fn are_open(&self, tip: Tip) -> bool {
        self.from_height <= tip.height.saturating_add(1)
            && (self.after_time == 0 || self.after_time < tip.median_time)
    }

    pub(super) fn not_before(&mut self, height: u32) {
        self.from_height = self.from_height.max(height);
    }

    pub(super) fn not_until(&mut self, time: u32) {
        self.after_time = self.after_time.max(time);
    }
}

/// A transaction in the pool. An `Arc<Entry>` handed out is as of then;
/// [`Mempool::get`](super::Mempool::get) has the present figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Hash without witnesses.
    pub txid: Txid,
    /// Hash with witnesses (BIP141).
    pub wtxid: Wtxid,
    /// Network serialization, witnesses included.
    pub raw: Bytes,
    /// Inputs minus outputs, in sat.
    pub fee: u64,
    /// Virtual bytes by policy, as Core's: a quarter of the weight, or five a signature operation of `sigop_cost` if that is
    /// more, rounded up.
    pub vsize: u64,
    /// Weight units (BIP141).
    pub weight: u64,
    /// What consensus counts for operations on signatures (80,000 a block); 0 where the chain has no such limit. None only in what
    /// an old capsule tells.
    pub sigop_cost: Option<u32>,
    /// Bytes of `raw`.
    pub size: u64,
    /// When it was first seen, in unix seconds.
    pub first_seen: u64,
    /// Transactions in the pool whose outputs it spends, each once.
    pub depends: Vec<Txid>,
    /// The outpoints it spends, in input order.
    pub spends: Vec<OutPoint>,
    /// Values of its outputs in sat, in order.
    pub output_values: Vec<u64>,
    /// When a block may hold it.
    pub(super) locks: Locks,
    /// It and everything in the pool it depends on.
    pub ancestors: Figures,
    /// It and everything in the pool that depends on it.
    pub descendants: Figures,
}

/// Memory of an entry beside its variable parts: the slot in the map by txid (32 + 88 bytes), the
/// slot by wtxid (64), the slot in the eviction order (48), each with the slack of a growing table
/// or tree, the `Arc<Entry>` (312) and the allocator's rounding of five allocations. Measured, not
/// computed to the byte.
const FIXED_BYTES: usize = 728 + SIGHTINGS_BYTES;

/// Who announced it: eight peers of 16 bytes, the slot in their table and its slack.
const SIGHTINGS_BYTES: usize = 8 * 16 + 112;

/// A spent outpoint: 36 bytes in the entry, 68 in the map by outpoint, with its slack.
const SPEND_BYTES: usize = 36 + 112;

impl Entry {
    /// An entry with what plugins are told of one, as a capsule keeps it: figures of its family and its locks are not.
    ///
    /// # Errors
    ///
    /// When the bytes are not exactly one transaction.
    pub fn told(
        raw: Bytes,
        fee: u64,
        vsize: u64,
        sigop_cost: Option<u32>,
        first_seen: u64,
        depends: Vec<Txid>,
    ) -> Result<Self, bitcoin::consensus::encode::Error> {
        let transaction: bitcoin::Transaction = bitcoin::consensus::deserialize(&raw)?;
        Ok(Self {
            txid: transaction.compute_txid(),
            wtxid: transaction.compute_wtxid(),
            fee,
            vsize,
            weight: transaction.weight().to_wu(),
            sigop_cost,
            size: raw.len() as u64,
            raw,
            first_seen,
            depends,
            spends: transaction
                .input
                .iter()
                .map(|input| input.previous_output)
                .collect(),
            output_values: transaction
                .output
                .iter()
                .map(|output| output.value.to_sat())
                .collect(),
            locks: Locks::default(),
            ancestors: Figures::default(),
            descendants: Figures::default(),
        })
    }

    /// Its own part of any sum.
    pub(super) fn own(&self) -> Figures {
        Figures {
            count: 1,
            vsize: self.vsize,
            fees: self.fee,
        }
    }

    /// Memory it takes in the pool, estimated, in bytes.
    pub fn usage(&self) -> usize {
        // `depends` is left out: it changes while the entry is in the pool, and this must not.
        FIXED_BYTES
            + self.raw.len()
            + self.spends.len() * SPEND_BYTES
            + self.output_values.len() * 8
    }

    /// Fee rate in sat/kvB.
    pub fn fee_rate(&self) -> f64 {
        self.fee as f64 * 1000.0 / (self.vsize.max(1) as f64)
    }
}
