//! The pool of unconfirmed transactions.

use serde::{Deserialize, Serialize};

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
    /// Virtual bytes by policy, as Core's: a quarter of the weight, or five a signature operation if that is more.
    pub vsize: u64,
    /// Weight units.
    pub weight: u64,
    /// What consensus counts for its signature operations (BIP141; 80,000 a block).
    pub sigop_cost: Option<u32>,
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
