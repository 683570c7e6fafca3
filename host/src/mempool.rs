//! The mempool: unconfirmed transactions, with the reason for every arrival and departure.
//!
//! The pool belongs to the host. Peers offer transactions through [`Mempool::accept`]; the chain
//! tells it what each block took ([`connect_block`](Mempool::connect_block)) and gave back
//! ([`disconnect_block`](Mempool::disconnect_block)), and calls [`settle`](Mempool::settle) when it
//! stands on its new tip. What changed is handed out by [`drain_changes`](Mempool::drain_changes).
//! There is no clock in here: times are handed in, in unix seconds.
//!
//! # What is checked
//!
//! Form (as Bitcoin Core's `CheckTransaction`), standard weight, every input exists and is not
//! spent by another entry, coinbase maturity, no more out than in, lock times, relative locks by
//! height, the minimum fee rate, limits on chains of dependent entries, and the terms of a
//! replacement.
//!
//! # What is not checked
//!
//! Scripts and signatures are not run, relative locks by time (BIP68) are not computed, and Core's
//! standardness rules on scripts are not applied. So a peer can make us hold a transaction that no
//! miner will take: an input it does not own, spent with a fee it names. Such an entry never
//! confirms; it leaves when a block spends its input otherwise, when it expires, or by size. Until
//! then it can push out honest entries that spend the same coin for a lower fee rate. A peer can
//! also send an honest transaction with other witnesses than its author made: the txid, the fee and
//! the outputs are then right, the wtxid and the size are not. What is built on the pool (fee
//! estimates, a list of unconfirmed payments) is therefore a statement about what peers relay,
//! never a proof of payment.

mod blocks;
mod changes;
mod checks;
mod coins;
mod entry;
mod file;
mod graph;
mod minimum_fee;
mod orphans;
mod recent;
mod returned;
mod short_ids;

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{OutPoint, Txid, Wtxid};
use bytes::Bytes;

pub use changes::{MempoolChanges, Origin, RemoveReason};
pub use checks::{Malformed, Refused};
pub use coins::{Coin, CoinLookup, Tip};
pub use entry::{Entry, Figures};
pub use file::{PoolFileError, load, save};

use changes::ChangeLog;
use checks::Candidate;
use graph::Graph;
use minimum_fee::MinimumFee;
use orphans::Orphans;
use recent::Recent;
use returned::ReturnedQueue;

/// Confirmations a coinbase output needs before it is spent (Core's `COINBASE_MATURITY`).
const COINBASE_MATURITY: u32 = 100;

/// Most entries one replacement may push out (Core's `MAX_REPLACEMENT_CANDIDATES`).
const MAX_REPLACED: usize = 100;

/// Hashes of refused and of confirmed transactions that are remembered, each.
const RECENT_HASHES: usize = 50_000;

/// The pool's limits. The defaults are Bitcoin Core 31's.
#[derive(Debug, Clone, PartialEq)]
pub struct MempoolConfig {
    /// Memory for entries, estimated, in bytes.
    pub max_bytes: usize,
    /// An entry leaves after this many seconds.
    pub expiry_seconds: u64,
    /// Lowest fee rate taken, in sat/kvB.
    pub min_relay_fee: u64,
    /// What a replacement pays for its own relay, and the step of the rising minimum, in sat/kvB.
    pub incremental_fee: u64,
    /// Most entries in the ancestor set or the descendant set of an entry, itself included.
    pub max_chain_entries: u64,
    /// Most virtual bytes in those sets.
    pub max_chain_vsize: u64,
    /// Transactions kept while their parents are missing.
    pub max_orphans: usize,
    /// Bytes of those.
    pub max_orphan_bytes: usize,
    /// Seconds an orphan waits.
    pub orphan_expiry_seconds: u64,
}

impl Default for MempoolConfig {
    fn default() -> Self {
        Self {
            max_bytes: 300_000_000,
            expiry_seconds: 336 * 3600,
            min_relay_fee: 100,
            incremental_fee: 100,
            max_chain_entries: 64,
            max_chain_vsize: 101_000,
            max_orphans: 100,
            max_orphan_bytes: 10_000_000,
            orphan_expiry_seconds: 20 * 60,
        }
    }
}

/// What became of an accepted transaction.
#[derive(Debug, Clone)]
pub enum Accepted {
    /// It is in the pool.
    Entered {
        /// The entry.
        entry: Arc<Entry>,
        /// Entries that it pushed out, their descendants included.
        replaced: Vec<Txid>,
        /// Orphans that had waited for it and are in the pool now.
        adopted: Vec<Txid>,
    },
    /// It waits for its parents; ask the peer for these.
    Orphan {
        /// Its id.
        txid: Txid,
        /// Transactions of which it spends an output that nobody knows.
        missing: Vec<Txid>,
    },
}

/// Figures of the whole pool.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MempoolInfo {
    /// Entries.
    pub txs: usize,
    /// Their virtual bytes.
    pub vbytes: u64,
    /// Memory, estimated.
    pub bytes: usize,
    /// Their fees in sat.
    pub fees_sats: u64,
    /// Lowest fee rate taken now, in sat/kvB.
    pub min_fee_rate: f64,
    /// Transactions that wait for their parents.
    pub orphans: usize,
}

/// The pool. One owner calls it; see the module's page.
#[derive(Debug)]
pub struct Mempool {
    config: MempoolConfig,
    graph: Graph,
    orphans: Orphans,
    returned: ReturnedQueue,
    changes: ChangeLog,
    minimum_fee: MinimumFee,
    refused: Recent,
    confirmed: Recent,
    /// Set while blocks are disconnected: what was mature or final may no longer be.
    went_back: bool,
}

impl Mempool {
    /// An empty pool.
    pub fn new(config: MempoolConfig) -> Self {
        Self {
            orphans: Orphans::new(config.max_orphans, config.max_orphan_bytes),
            config,
            graph: Graph::default(),
            returned: ReturnedQueue::default(),
            changes: ChangeLog::default(),
            minimum_fee: MinimumFee::default(),
            refused: Recent::new(RECENT_HASHES),
            confirmed: Recent::new(RECENT_HASHES),
            went_back: false,
        }
    }

    /// Offers a transaction that a peer sent, in network serialization.
    ///
    /// `coins` answers as of `tip`. The bytes are copied, so that a slice of a large buffer does
    /// not keep the buffer.
    ///
    /// # Errors
    ///
    /// [`Refused`], which says whether it is the transaction's fault.
    pub fn accept(
        &mut self,
        raw: Bytes,
        now: u64,
        coins: &dyn CoinLookup,
        tip: Tip,
    ) -> Result<Accepted, Refused> {
        self.offer(&raw, Origin::New, now, now, coins, tip)
    }

    /// Offers a transaction of a saved pool again, with the time at which it was first seen then.
    ///
    /// # Errors
    ///
    /// [`Refused`]; [`Refused::Expired`] when its time is over.
    pub fn reload(
        &mut self,
        raw: Bytes,
        first_seen: u64,
        now: u64,
        coins: &dyn CoinLookup,
        tip: Tip,
    ) -> Result<Accepted, Refused> {
        let first_seen = first_seen.min(now);
        if now - first_seen >= self.config.expiry_seconds {
            return Err(Refused::Expired);
        }
        self.offer(&raw, Origin::Reloaded, first_seen, now, coins, tip)
    }

    fn offer(
        &mut self,
        raw: &Bytes,
        origin: Origin,
        first_seen: u64,
        now: u64,
        coins: &dyn CoinLookup,
        tip: Tip,
    ) -> Result<Accepted, Refused> {
        let candidate = Candidate::decode(raw)?;
        let txid = candidate.txid;
        let wtxid = candidate.wtxid;
        match self.enter(candidate, origin, first_seen, now, coins, tip) {
            Ok((entry, replaced)) => {
                let adopted = self.adopt_orphans([txid], now, coins, tip);
                Ok(Accepted::Entered {
                    entry,
                    replaced,
                    adopted,
                })
            }
            Err(Refused::MissingInputs { missing }) => {
                let raw = Bytes::copy_from_slice(raw);
                self.orphans.add(txid, wtxid, raw, &missing, now);
                Ok(Accepted::Orphan { txid, missing })
            }
            Err(refused) => {
                if refused.is_about_the_transaction() {
                    self.refused.insert(wtxid.into());
                }
                Err(refused)
            }
        }
    }

    /// Puts a decoded transaction into the pool, if it fits.
    fn enter(
        &mut self,
        candidate: Candidate,
        origin: Origin,
        first_seen: u64,
        now: u64,
        coins: &dyn CoinLookup,
        tip: Tip,
    ) -> Result<(Arc<Entry>, Vec<Txid>), Refused> {
        let (txid, wtxid) = (candidate.txid, candidate.wtxid);
        if self.graph.contains(&txid) {
            return Err(Refused::Known);
        }
        let priced = candidate.price(&self.graph, coins, tip)?;
        // What was in a block paid enough for a miner once.
        if origin != Origin::Returned {
            let minimum = self.min_fee_rate(now);
            if (priced.fee as f64) < minimum * (priced.vsize as f64) / 1000.0 {
                return Err(Refused::LowFee {
                    fee: priced.fee,
                    vsize: priced.vsize,
                    min_fee_rate: minimum,
                });
            }
        }
        let replaced = self.replaced_by(&priced)?;
        let entry = Entry {
            first_seen,
            ..priced
        };
        self.graph.check_chain(
            &entry,
            &replaced,
            self.config.max_chain_entries,
            self.config.max_chain_vsize,
        )?;

        for victim in &replaced {
            self.take_out(victim, RemoveReason::Replaced { by: txid });
        }
        self.graph.insert(entry);
        self.changes.added(txid, origin);
        self.refused.remove(&wtxid.into());
        self.trim_to_size(now);
        // The newcomer itself may be what the pool has no room for.
        let entry = self.graph.get(&txid).cloned();
        entry
            .map(|entry| (entry, replaced))
            .ok_or(Refused::PoolFull {
                min_fee_rate: self.min_fee_rate(now),
            })
    }

    /// The entries that a newcomer pushes out, descendants first; empty when it spends nothing that
    /// an entry spends.
    ///
    /// The terms are BIP125's rules 3 to 5 as Core has them today, for every transaction whether it
    /// signals or not.
    fn replaced_by(&self, newcomer: &Entry) -> Result<Vec<Txid>, Refused> {
        let direct: BTreeSet<Txid> = newcomer
            .spends
            .iter()
            .filter_map(|outpoint| self.graph.spender(outpoint))
            .collect();
        let Some(&first) = direct.first() else {
            return Ok(Vec::new());
        };
        let refuse = |why| Refused::Conflict { with: first, why };
        let victims = self.graph.with_descendants(direct.iter().copied());
        if victims.len() > MAX_REPLACED {
            return Err(refuse("it would push out too many"));
        }
        if newcomer
            .depends
            .iter()
            .any(|parent| victims.contains(parent))
        {
            return Err(refuse("it spends what it would push out"));
        }
        for entry in direct.iter().filter_map(|txid| self.graph.get(txid)) {
            let rate = u128::from(newcomer.fee) * u128::from(entry.vsize);
            if rate <= u128::from(entry.fee) * u128::from(newcomer.vsize) {
                return Err(refuse("its fee rate is not higher"));
            }
        }
        let paid: u64 = victims
            .iter()
            .filter_map(|txid| self.graph.get(txid))
            .map(|entry| entry.fee)
            .sum();
        let relay = self
            .config
            .incremental_fee
            .saturating_mul(newcomer.vsize)
            .div_ceil(1000);
        if newcomer.fee <= paid || newcomer.fee - paid < relay {
            return Err(refuse(
                "its fee does not pay for what it would push out and for its own relay",
            ));
        }
        Ok(victims)
    }

    /// Tries the orphans that wait for `arrived`, and those that wait for them.
    fn adopt_orphans(
        &mut self,
        arrived: impl IntoIterator<Item = Txid>,
        now: u64,
        coins: &dyn CoinLookup,
        tip: Tip,
    ) -> Vec<Txid> {
        let mut adopted = Vec::new();
        let mut arrived: Vec<Txid> = arrived.into_iter().collect();
        while let Some(parent) = arrived.pop() {
            for orphan in self.orphans.take_children(&parent) {
                let Ok(candidate) = Candidate::decode(&orphan.raw) else {
                    continue;
                };
                match self.enter(candidate, Origin::New, orphan.since, now, coins, tip) {
                    Ok(_) => {
                        adopted.push(orphan.txid);
                        arrived.push(orphan.txid);
                    }
                    Err(Refused::MissingInputs { missing }) => {
                        self.orphans.add(
                            orphan.txid,
                            orphan.wtxid,
                            orphan.raw,
                            &missing,
                            orphan.since,
                        );
                    }
                    // Nothing was said about it: it waits for the next call.
                    Err(Refused::Coins(_)) => {
                        self.orphans.add(
                            orphan.txid,
                            orphan.wtxid,
                            orphan.raw,
                            &[parent],
                            orphan.since,
                        );
                    }
                    Err(refused) => {
                        if refused.is_about_the_transaction() {
                            self.refused.insert(orphan.wtxid.into());
                        }
                    }
                }
            }
        }
        adopted
    }

    /// Takes out what is too old, its descendants with it, and orphans that waited too long.
    pub fn expire(&mut self, now: u64) {
        self.orphans
            .expire(now.saturating_sub(self.config.orphan_expiry_seconds));
        for txid in self
            .graph
            .seen_until(now.saturating_sub(self.config.expiry_seconds))
        {
            self.take_out_with_descendants(txid, RemoveReason::Expired);
        }
    }

    /// What came and went since the last call.
    pub fn drain_changes(&mut self) -> MempoolChanges {
        self.changes.drain(&self.graph)
    }

    /// Every entry, parents before children.
    pub fn snapshot(&self) -> Vec<Arc<Entry>> {
        self.graph.topological()
    }

    /// Figures of the pool; `now` because the minimum fee rate falls with time.
    pub fn info(&self, now: u64) -> MempoolInfo {
        let totals = self.graph.totals();
        MempoolInfo {
            txs: self.graph.len(),
            vbytes: totals.vsize,
            bytes: self.graph.usage(),
            fees_sats: totals.fees,
            min_fee_rate: self.min_fee_rate(now),
            orphans: self.orphans.len(),
        }
    }

    /// An entry, with its figures as of now.
    pub fn get(&self, txid: &Txid) -> Option<Arc<Entry>> {
        self.graph.get(txid).cloned()
    }

    /// Whether the transaction is in the pool.
    pub fn contains(&self, txid: &Txid) -> bool {
        self.graph.contains(txid)
    }

    /// Whether this very serialization is in the pool (BIP339).
    pub fn contains_wtxid(&self, wtxid: &Wtxid) -> bool {
        self.graph.txid_of(wtxid).is_some()
    }

    /// The entry that spends an outpoint.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        self.graph.spender(outpoint)
    }

    /// Whether an announcement of this txid needs no fetching: in the pool, waiting for parents, or
    /// confirmed lately.
    pub fn knows(&self, txid: &Txid) -> bool {
        self.graph.contains(txid)
            || self.orphans.contains(txid)
            || self.returned.contains(txid)
            || self.confirmed.contains(&(*txid).into())
            // A transaction without witnesses is refused under this same hash.
            || self.refused.contains(&(*txid).into())
    }

    /// As [`knows`](Self::knows) for an announcement by wtxid (BIP339), refused ones included until
    /// the next block.
    pub fn knows_wtxid(&self, wtxid: &Wtxid) -> bool {
        self.graph.txid_of(wtxid).is_some()
            || self.orphans.contains_wtxid(wtxid)
            || self.refused.contains(&(*wtxid).into())
            // A transaction without witnesses confirms under this same hash.
            || self.confirmed.contains(&(*wtxid).into())
    }

    /// Lowest fee rate taken now, in sat/kvB.
    pub fn min_fee_rate(&self, now: u64) -> f64 {
        let incremental = self.config.incremental_fee as f64;
        let rising =
            self.minimum_fee
                .rate(now, self.graph.usage(), self.config.max_bytes, incremental);
        rising.max(self.config.min_relay_fee as f64)
    }

    /// Evicts the lowest descendant fee rates until the pool fits.
    fn trim_to_size(&mut self, now: u64) {
        while self.graph.usage() > self.config.max_bytes {
            let Some((txid, package)) = self.graph.cheapest() else {
                return;
            };
            let rate = package.fees as f64 * 1000.0 / (package.vsize.max(1) as f64);
            self.minimum_fee
                .raise(rate + self.config.incremental_fee as f64, now);
            self.take_out_with_descendants(txid, RemoveReason::Evicted);
        }
    }

    /// Takes out whatever spends an output of `txid`, which need not be in the pool.
    fn take_out_spenders(&mut self, txid: Txid, outputs: u32, reason: RemoveReason) {
        for child in self.graph.spenders_of(txid, outputs) {
            self.take_out_with_descendants(child, reason);
        }
    }

    fn take_out_with_descendants(&mut self, txid: Txid, reason: RemoveReason) {
        for victim in self.graph.with_descendants([txid]) {
            self.take_out(&victim, reason);
        }
    }

    fn take_out(&mut self, txid: &Txid, reason: RemoveReason) {
        if let Some(entry) = self.graph.remove(txid) {
            if let RemoveReason::Confirmed { .. } = reason {
                self.confirmed.insert(entry.wtxid.into());
            }
            self.changes.removed(*txid, reason);
        }
    }
}

#[cfg(test)]
mod tests;
