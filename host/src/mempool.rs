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
//! Form (as Bitcoin Core's `CheckTransaction`), standard weight and number of operations on signatures, every input exists and is not
//! spent by another entry, coinbase maturity, no more out than in, lock times, relative locks (BIP68),
//! the minimum fee rate, limits on clusters of dependent entries, and the terms of a replacement.
//!
//! # What is not checked
//!
//! Scripts and signatures are not run, and Core's standardness rules on scripts are not applied. So a peer can make us hold a transaction that no
//! miner will take: an input it does not own, spent with a fee it names. It must name a coin that is
//! there, one for each such transaction, and outbid what the pool has for that coin; there is room for
//! no more of them than for others. Such an entry never confirms; it leaves when a block spends its
//! input otherwise, when it expires, or by size. Until then it can push out honest entries that spend
//! the same coin for a lower fee rate. What several blocks passed over though it pays more than they
//! took is counted and shown as suspicious. A peer can
//! also send an honest transaction with other witnesses than its author made: the txid, the fee and
//! the outputs are then right, the wtxid and the size are not. What is built on the pool (fee
//! estimates, a list of unconfirmed payments) is therefore a statement about what peers relay,
//! never a proof of payment.

mod blocks;
mod changes;
mod checks;
mod coins;
mod coverage;
mod diagram;
mod entry;
mod file;
mod graph;
mod journal;
mod minimum_fee;
mod orphans;
mod package;
mod recent;
mod reload;
mod replacement;
mod returned;
mod short_ids;
mod sightings;
mod sigops;

use std::net::SocketAddr;
use std::sync::Arc;

use bitcoin::{OutPoint, Txid, Wtxid};
use bytes::Bytes;

pub use changes::{MempoolChanges, Origin, RemoveReason};
pub use checks::{Malformed, Refused};
pub use coins::{Coin, CoinLookup, Tip};
pub use coverage::{Coverage, Heard};
pub use entry::{Entry, Figures};
pub use file::{PoolFileError, load, save};
pub use journal::{Journal, Restored, restore};
pub use sightings::Sighting;

use changes::{Arrival, ChangeLog};
use checks::Candidate;
use coverage::Coverages;
use graph::Graph;
use minimum_fee::MinimumFee;
use orphans::{Orphan, Orphans};
use recent::Recent;
use returned::ReturnedQueue;
use sightings::Sightings;

/// Confirmations a coinbase output needs before it is spent (Core's `COINBASE_MATURITY`).
const COINBASE_MATURITY: u32 = 100;

/// Clusters with which one replacement may be in conflict (Core's `MAX_REPLACEMENT_CANDIDATES`).
const MAX_CLUSTERS: usize = 100;

/// An entry that so many blocks passed over though it pays more than they took is suspicious: perhaps nobody can mine it.
pub const SUSPICIOUS_AFTER: u16 = 3;

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
    /// What pays less than this, in sat/kvB, is relayed but not mined: a class of its own. 0 for none.
    pub mining_floor: u64,
    /// Most entries that hang together.
    pub max_cluster_entries: u64,
    /// Most virtual bytes of those.
    pub max_cluster_vsize: u64,
    /// Transactions kept while their parents are missing.
    pub max_orphans: usize,
    /// Bytes of those.
    pub max_orphan_bytes: usize,
    /// Seconds an orphan waits.
    pub orphan_expiry_seconds: u64,
    /// Whether the chain has relative locks (BIP68).
    pub relative_locks: bool,
    /// Whether the chain limits operations on signatures: then they count in the virtual size.
    pub sigops: bool,
}

impl Default for MempoolConfig {
    fn default() -> Self {
        Self {
            max_bytes: 300_000_000,
            expiry_seconds: 336 * 3600,
            min_relay_fee: 100,
            incremental_fee: 100,
            mining_floor: 0,
            max_cluster_entries: 64,
            max_cluster_vsize: 101_000,
            max_orphans: 100,
            max_orphan_bytes: 10_000_000,
            orphan_expiry_seconds: 20 * 60,
            relative_locks: true,
            sigops: true,
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

/// A transaction that is here no longer, or was refused when nobody waited for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LetGo {
    /// Its txid.
    pub txid: Txid,
    /// Its wtxid.
    pub wtxid: Wtxid,
    /// Whether it would be refused again before the next block.
    pub refused: bool,
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
    /// Entries that several blocks passed over though they pay more than those took.
    pub suspicious: usize,
    /// Entries that pay less than the mining floor.
    pub secondary: usize,
}

/// Whether miners are thought to take what pays so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It pays the mining floor, or something that depends on it pays for it.
    Primary,
    /// It pays the relay floor only (the secondary pool of Bitcoin SV nodes).
    Secondary,
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
    /// Refused since the last block.
    refused: Recent,
    /// Refused since the last block for their fee alone.
    reconsiderable: Recent,
    confirmed: Recent,
    sightings: Sightings,
    coverage: Coverages,
    let_go: Vec<LetGo>,
    /// Set while blocks are disconnected: what was mature or final may no longer be.
    went_back: bool,
    /// Set when blocks came and went that the pool was not told of.
    lost_track: bool,
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
            reconsiderable: Recent::new(RECENT_HASHES),
            sightings: Sightings::default(),
            coverage: Coverages::default(),
            confirmed: Recent::new(RECENT_HASHES),
            let_go: Vec::new(),
            went_back: false,
            lost_track: false,
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
        self.accept_from(raw, None, now, coins, tip)
    }

    /// As [`accept`](Self::accept), and remembers which peer sent it: each has a share of what waits for parents.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept).
    pub fn accept_from(
        &mut self,
        raw: Bytes,
        from: Option<SocketAddr>,
        now: u64,
        coins: &dyn CoinLookup,
        tip: Tip,
    ) -> Result<Accepted, Refused> {
        let arrival = Arrival {
            from,
            origin: Origin::New,
            first_seen: now,
        };
        self.offer(&raw, arrival, now, coins, tip)
    }

    fn offer(
        &mut self,
        raw: &Bytes,
        arrival: Arrival,
        now: u64,
        coins: &dyn CoinLookup,
        tip: Tip,
    ) -> Result<Accepted, Refused> {
        let candidate = Candidate::decode(raw)?;
        let (txid, wtxid) = (candidate.txid, candidate.wtxid);
        let refused = match self.enter(candidate.clone(), arrival, now, coins, tip) {
            Ok((entry, replaced)) => {
                let adopted = self.adopt_orphans([txid], now, coins, tip);
                return Ok(Accepted::Entered {
                    entry,
                    replaced,
                    adopted,
                });
            }
            Err(refused) => refused,
        };
        match refused {
            Refused::MissingInputs { missing } => {
                // What depends on something that was refused for more than its fee will be refused too.
                if missing
                    .iter()
                    .any(|parent| self.refused.contains(&(*parent).into()))
                {
                    self.refused.insert(wtxid.into());
                    return Err(Refused::MissingInputs { missing });
                }
                let orphan = Orphan {
                    txid,
                    wtxid,
                    raw: Bytes::copy_from_slice(raw),
                    since: arrival.first_seen,
                    from: arrival.from,
                };
                self.orphans.add(orphan, &missing);
                Ok(Accepted::Orphan { txid, missing })
            }
            refused if refused.is_reconsiderable() => {
                if let Some((replaced, child)) =
                    self.with_a_child(&candidate, arrival, now, coins, tip)?
                {
                    let mut adopted = vec![child];
                    adopted.extend(self.adopt_orphans([txid, child], now, coins, tip));
                    let entry = self.graph.get(&txid).cloned().ok_or(refused)?;
                    return Ok(Accepted::Entered {
                        entry,
                        replaced,
                        adopted,
                    });
                }
                self.reconsiderable.insert(wtxid.into());
                Err(refused)
            }
            refused => {
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
        arrival: Arrival,
        now: u64,
        coins: &dyn CoinLookup,
        tip: Tip,
    ) -> Result<(Arc<Entry>, Vec<Txid>), Refused> {
        let txid = candidate.txid;
        if self.graph.contains(&txid) {
            return Err(Refused::Known);
        }
        self.advance_minimum(now);
        let priced = candidate.price(&self.graph, &self.config, coins, tip)?;
        // What was in a block paid enough for a miner once.
        if arrival.origin != Origin::Returned {
            let minimum = self.min_fee_rate(now);
            if (priced.fee as f64) < minimum * (priced.vsize as f64) / 1000.0 {
                return Err(Refused::LowFee {
                    fee: priced.fee,
                    vsize: priced.vsize,
                    min_fee_rate: minimum,
                });
            }
        }
        let replaced = self.replaced_by(&[&priced])?;
        let entry = Entry {
            first_seen: arrival.first_seen,
            ..priced
        };
        self.graph.check_cluster(
            &[&entry],
            &replaced,
            self.config.max_cluster_entries,
            self.config.max_cluster_vsize,
        )?;

        for victim in &replaced {
            self.take_out(victim, RemoveReason::Replaced { by: txid });
        }
        self.put_in(entry, arrival, now);
        self.trim_to_size(now);
        // The newcomer itself may be what the pool has no room for.
        let entry = self.graph.get(&txid).cloned();
        entry
            .map(|entry| (entry, replaced))
            .ok_or(Refused::PoolFull {
                min_fee_rate: self.min_fee_rate(now),
            })
    }

    fn put_in(&mut self, entry: Entry, arrival: Arrival, now: u64) {
        let (txid, wtxid) = (entry.txid, entry.wtxid);
        self.graph.insert(entry);
        self.changes.added(txid, arrival.origin);
        self.refused.remove(&wtxid.into());
        self.reconsiderable.remove(&wtxid.into());
        self.sightings
            .entered(txid, wtxid, arrival.from, now.saturating_mul(1_000));
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
                let arrival = Arrival {
                    from: orphan.from,
                    origin: Origin::New,
                    first_seen: orphan.since,
                };
                let outcome = self.enter(candidate, arrival, now, coins, tip);
                match outcome {
                    Ok(_) => {
                        adopted.push(orphan.txid);
                        arrived.push(orphan.txid);
                    }
                    Err(Refused::MissingInputs { missing }) => self.orphans.add(orphan, &missing),
                    // Nothing was said about it: it waits for the next call.
                    Err(Refused::Coins(_)) => self.orphans.add(orphan, &[parent]),
                    Err(refused) => {
                        if refused.is_reconsiderable() {
                            self.reconsiderable.insert(orphan.wtxid.into());
                        } else if refused.is_about_the_transaction() {
                            self.refused.insert(orphan.wtxid.into());
                        }
                        self.let_go.push(LetGo {
                            txid: orphan.txid,
                            wtxid: orphan.wtxid,
                            refused: refused.is_about_the_transaction(),
                        });
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

    /// What was let go since the last call, for want of room, of parents or of time: whoever announces it may be asked for it
    /// again, after the next block where it is `refused`. To be called often: what is not asked for is kept.
    pub fn drain_let_go(&mut self) -> Vec<LetGo> {
        let mut let_go = std::mem::take(&mut self.let_go);
        let_go.extend(self.orphans.drain_let_go());
        let_go
            .retain(|gone| !self.graph.contains(&gone.txid) && !self.orphans.contains(&gone.txid));
        let_go
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
            suspicious: self.graph.suspicious(SUSPICIOUS_AFTER),
            secondary: match self.config.mining_floor {
                floor if floor > self.config.min_relay_fee => self.graph.below(floor as f64),
                _ => 0,
            },
        }
    }

    /// How long and to how many the pool has listened, and what of the last blocks it had seen.
    pub fn heard(&self, now: u64) -> Heard {
        Heard {
            since: self.coverage.since,
            peers: self.sightings.peers_now(now),
            peers_ever: self.sightings.peers_ever(),
            last: self.coverage.last(),
            recent: self.coverage.sum(),
        }
    }

    /// The pool hears peers from now on, which is when the blocks begin to count that it should have heard of.
    pub fn listens(&mut self, now: u64) {
        self.coverage.since.get_or_insert(now);
    }

    /// A peer announced a transaction: by wtxid or txid, internal byte order, at `at` in unix milliseconds.
    pub fn announced(&mut self, hash: [u8; 32], peer: SocketAddr, at: u64) {
        let hash = recent::TxHash::from(hash);
        let entry = self.graph.find(&hash);
        self.sightings.announced(hash, entry, peer, at);
    }

    /// The first peers that announced an entry, in order.
    pub fn sightings(&self, txid: &Txid) -> &[Sighting] {
        self.sightings.of(txid)
    }

    /// Blocks that took less than this entry pays, and did not take it.
    pub fn passed_over(&self, txid: &Txid) -> u16 {
        self.graph.passed_over(txid)
    }

    /// Whether miners are thought to take an entry.
    pub fn class(&self, entry: &Entry) -> Class {
        if self.graph.mining_rate(entry) < self.config.mining_floor as f64 {
            Class::Secondary
        } else {
            Class::Primary
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.graph.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.graph.is_empty()
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
            || self.reconsiderable.contains(&(*txid).into())
    }

    /// As [`knows`](Self::knows) for an announcement by wtxid (BIP339), refused ones included until
    /// the next block.
    pub fn knows_wtxid(&self, wtxid: &Wtxid) -> bool {
        self.graph.txid_of(wtxid).is_some()
            || self.orphans.contains_wtxid(wtxid)
            || self.refused.contains(&(*wtxid).into())
            || self.reconsiderable.contains(&(*wtxid).into())
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

    /// Brings what has become of the rising minimum up to date.
    fn advance_minimum(&mut self, now: u64) {
        let incremental = self.config.incremental_fee as f64;
        self.minimum_fee
            .advance(now, self.graph.usage(), self.config.max_bytes, incremental);
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
            if let RemoveReason::Evicted | RemoveReason::Expired | RemoveReason::Reorg = reason {
                self.let_go.push(LetGo {
                    txid: entry.txid,
                    wtxid: entry.wtxid,
                    refused: false,
                });
            }
            self.sightings.left(txid);
            self.changes.removed(*txid, reason);
        }
    }
}

#[cfg(test)]
mod tests;
