//! Unconfirmed transactions: what may enter, what a block takes, what a block makes impossible.
//!
//! Scripts are not run. Everything that concerns coins is checked, and the limits on chains of unconfirmed transactions
//! and on replacement are those of Bitcoin Core's default policy, before it had clusters and since, so that either would take
//! the same pool.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};

use bitcoin::absolute::LockTime;
use bitcoin::{Block, OutPoint, Transaction, TxOut, Txid, Wtxid};
use thiserror::Error;

use crate::coins::Coins;

/// Most unconfirmed ancestors, and most descendants, of a transaction, itself included (Core: 25 each).
pub const CHAIN_LIMIT: usize = 25;
/// Most unconfirmed transactions that hang together (Core 31's `-limitclustercount`).
pub const CLUSTER_LIMIT: usize = 64;
/// Most virtual bytes of those (Core 31's `-limitclustersize`).
pub const CLUSTER_VSIZE: u64 = 101_000;
/// Smallest fee rate, sat per 1,000 virtual bytes.
pub const MIN_FEE_RATE: u64 = 1_000;

/// Why a transaction was not taken.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// It is in the pool.
    #[error("already in the pool")]
    Known,
    /// An input is neither in the coin set nor in the pool.
    #[error("input {0} is missing or spent")]
    Missing(OutPoint),
    /// It spends a coinbase that is not deep enough.
    #[error("input {0} is an immature coinbase")]
    Immature(OutPoint),
    /// It pays out more than it takes in, or is a coinbase, or has no inputs or outputs.
    #[error("not a valid payment")]
    Invalid,
    /// Its lock time is not reached in the next block.
    #[error("not final")]
    NotFinal,
    /// It pays less than the minimum, or not enough to replace what it conflicts with.
    #[error("fee of {0} sat is too low")]
    Fee(u64),
    /// Too many unconfirmed ancestors or descendants.
    #[error("too long a chain of unconfirmed transactions")]
    Chain,
    /// Too many unconfirmed transactions that hang together.
    #[error("too large a cluster of unconfirmed transactions")]
    Cluster,
    /// This node was told not to keep coins and can check nothing.
    #[error("no coin set is kept")]
    NoCoins,
}

/// A transaction of the pool.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The transaction.
    pub tx: Transaction,
    /// Its hash with witnesses.
    pub wtxid: Wtxid,
    /// Fee in sat.
    pub fee: u64,
    /// Weight units.
    pub weight: u64,
    /// How many transactions had entered before.
    pub sequence: u64,
    parents: BTreeSet<Txid>,
    children: BTreeSet<Txid>,
}

impl Entry {
    /// Fee rate in sat per 1,000 virtual bytes, rounded down.
    pub fn fee_rate(&self) -> u64 {
        self.fee.saturating_mul(1_000) / self.weight.div_ceil(4).max(1)
    }

    /// Virtual bytes.
    pub fn vsize(&self) -> u64 {
        self.weight.div_ceil(4)
    }
}

/// Unconfirmed transactions by txid.
#[derive(Debug, Default)]
pub struct Pool {
    entries: HashMap<Txid, Entry>,
    by_wtxid: HashMap<Wtxid, Txid>,
    spenders: HashMap<OutPoint, Txid>,
    entered: u64,
}

impl Pool {
    /// Number of transactions.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A transaction by txid.
    pub fn get(&self, txid: &Txid) -> Option<&Entry> {
        self.entries.get(txid)
    }

    /// A transaction by wtxid.
    pub fn get_by_wtxid(&self, wtxid: &Wtxid) -> Option<&Entry> {
        self.entries.get(self.by_wtxid.get(wtxid)?)
    }

    /// The transaction that spends an output.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        self.spenders.get(outpoint).copied()
    }

    /// An unspent output of a transaction in the pool.
    pub fn output(&self, outpoint: &OutPoint) -> Option<&TxOut> {
        if self.spenders.contains_key(outpoint) {
            return None;
        }
        let vout = usize::try_from(outpoint.vout).ok()?;
        self.entries.get(&outpoint.txid)?.tx.output.get(vout)
    }

    /// Txids in the order in which they entered, so that parents come before children.
    pub fn in_order(&self) -> Vec<Txid> {
        let mut all: Vec<_> = self
            .entries
            .iter()
            .map(|(txid, e)| (e.sequence, *txid))
            .collect();
        all.sort_unstable();
        all.into_iter().map(|(_, txid)| txid).collect()
    }

    /// Empties the pool and returns its transactions in the order in which they entered.
    pub fn drain(&mut self) -> Vec<Transaction> {
        let order = self.in_order();
        let mut entries = std::mem::take(&mut self.entries);
        self.by_wtxid.clear();
        self.spenders.clear();
        order
            .iter()
            .filter_map(|txid| Some(entries.remove(txid)?.tx))
            .collect()
    }

    /// Whether a transaction may have this one as a parent without passing the chain limits.
    pub fn extensible(&self, txid: &Txid) -> bool {
        let Some(entry) = self.entries.get(txid) else {
            return true;
        };
        // One is kept back on each side: the payment may have a second parent.
        let family = self.ancestors(entry.parents.iter().copied());
        family.len() + 3 < CHAIN_LIMIT
            && self.cluster([*txid]).len() < CLUSTER_LIMIT
            && family
                .iter()
                .chain([txid])
                .all(|one| self.descendants(*one).len() + 1 < CHAIN_LIMIT)
    }

    /// Takes a transaction into the pool, where it replaces what it conflicts with if it pays for that. Returns what it
    /// replaced.
    ///
    /// # Errors
    /// Every [`Refused`]; the pool is as it was.
    pub fn add(&mut self, tx: Transaction, coins: &Coins) -> Result<Vec<Transaction>, Refused> {
        let txid = tx.compute_txid();
        if self.entries.contains_key(&txid) {
            return Err(Refused::Known);
        }
        if tx.is_coinbase() || tx.input.is_empty() || tx.output.is_empty() {
            return Err(Refused::Invalid);
        }
        let next = coins.height().saturating_add(1);
        if !final_in(&tx, next) {
            return Err(Refused::NotFinal);
        }
        let (taken, parents, conflicts) = self.inputs(&tx, coins, next)?;
        let paid = tx
            .output
            .iter()
            .try_fold(0_u64, |sum, output| sum.checked_add(output.value.to_sat()))
            .ok_or(Refused::Invalid)?;
        let fee = taken.checked_sub(paid).ok_or(Refused::Invalid)?;
        let weight = tx.weight().to_wu();
        let vsize = weight.div_ceil(4);
        if fee < (vsize * MIN_FEE_RATE).div_ceil(1_000) {
            return Err(Refused::Fee(fee));
        }
        let doomed = self.payable_replacement(&conflicts, &parents, fee, vsize)?;
        let ancestors = self.ancestors(parents.iter().copied());
        if ancestors.len() >= CHAIN_LIMIT
            || ancestors
                .iter()
                .any(|one| self.descendants(*one).len() >= CHAIN_LIMIT)
        {
            return Err(Refused::Chain);
        }
        let mut cluster = self.cluster(parents.iter().copied());
        cluster.retain(|txid| !doomed.contains(txid));
        let size: u64 = cluster
            .iter()
            .filter_map(|txid| self.entries.get(txid))
            .map(Entry::vsize)
            .sum();
        if cluster.len() >= CLUSTER_LIMIT || size + vsize > CLUSTER_VSIZE {
            return Err(Refused::Cluster);
        }

        let replaced = self.remove_all(&doomed);
        for parent in &parents {
            if let Some(entry) = self.entries.get_mut(parent) {
                entry.children.insert(txid);
            }
        }
        for input in &tx.input {
            self.spenders.insert(input.previous_output, txid);
        }
        let wtxid = tx.compute_wtxid();
        self.by_wtxid.insert(wtxid, txid);
        let sequence = self.entered;
        self.entered += 1;
        let children = BTreeSet::new();
        self.entries.insert(
            txid,
            Entry {
                tx,
                wtxid,
                fee,
                weight,
                sequence,
                parents,
                children,
            },
        );
        Ok(replaced)
    }

    /// Value of the inputs in sat, parents in the pool, direct conflicts.
    fn inputs(
        &self,
        tx: &Transaction,
        coins: &Coins,
        next: u32,
    ) -> Result<(u64, BTreeSet<Txid>, BTreeSet<Txid>), Refused> {
        let mut taken = 0_u64;
        let mut parents = BTreeSet::new();
        let mut conflicts = BTreeSet::new();
        let mut seen = HashSet::new();
        for input in &tx.input {
            let outpoint = input.previous_output;
            if !seen.insert(outpoint) {
                return Err(Refused::Invalid);
            }
            conflicts.extend(self.spender(&outpoint));
            let vout = usize::try_from(outpoint.vout).map_err(|_| Refused::Invalid)?;
            let value = if let Some(parent) = self.entries.get(&outpoint.txid) {
                parents.insert(outpoint.txid);
                parent
                    .tx
                    .output
                    .get(vout)
                    .ok_or(Refused::Missing(outpoint))?
                    .value
            } else {
                let coin = coins.get(&outpoint).ok_or(Refused::Missing(outpoint))?;
                if !coin.mature_at(next) {
                    return Err(Refused::Immature(outpoint));
                }
                coin.output.value
            };
            taken = taken.checked_add(value.to_sat()).ok_or(Refused::Invalid)?;
        }
        Ok((taken, parents, conflicts))
    }

    /// BIP125 without the signal: the newcomer must pay a higher rate than each conflict, more than all that goes, and for
    /// its own relay on top, and must not stand on what it removes.
    fn payable_replacement(
        &self,
        conflicts: &BTreeSet<Txid>,
        parents: &BTreeSet<Txid>,
        fee: u64,
        vsize: u64,
    ) -> Result<BTreeSet<Txid>, Refused> {
        let mut doomed = BTreeSet::new();
        for txid in conflicts {
            doomed.extend(self.descendants(*txid));
            let Some(entry) = self.entries.get(txid) else {
                continue;
            };
            if fee.saturating_mul(1_000) / vsize.max(1) <= entry.fee_rate() {
                return Err(Refused::Fee(fee));
            }
        }
        let owed: u64 = doomed
            .iter()
            .filter_map(|txid| self.entries.get(txid))
            .map(|entry| entry.fee)
            .sum();
        let relay = if doomed.is_empty() { 0 } else { vsize };
        if fee < owed.saturating_add(relay) {
            return Err(Refused::Fee(fee));
        }
        if self
            .ancestors(parents.iter().copied())
            .intersection(&doomed)
            .next()
            .is_some()
        {
            return Err(Refused::Invalid);
        }
        Ok(doomed)
    }

    /// Takes out what a block confirmed, and what it made impossible, which is returned.
    pub fn confirm(&mut self, block: &Block) -> Vec<Transaction> {
        let mut conflicted = Vec::new();
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            if self.entries.contains_key(&txid) {
                self.unlink(&txid);
                continue;
            }
            for input in &tx.input {
                if let Some(rival) = self.spender(&input.previous_output) {
                    conflicted.extend(self.remove_all(&self.descendants(rival)));
                }
            }
        }
        conflicted
    }

    /// Chooses transactions for the block at `height`: highest fee rate first, parents before children, while the
    /// weight allows. Returns them in block order with their fees.
    pub fn select(&self, height: u32, max_weight: u64) -> Vec<(Transaction, u64)> {
        let mut waiting: HashMap<Txid, usize> = HashMap::new();
        let mut ready = BinaryHeap::new();
        for (txid, entry) in &self.entries {
            match entry.parents.len() {
                0 => ready.push((entry.fee_rate(), Reverse(entry.sequence), *txid)),
                parents => {
                    waiting.insert(*txid, parents);
                }
            }
        }
        let mut chosen = Vec::new();
        let mut weight = 0_u64;
        while let Some((_, _, txid)) = ready.pop() {
            let Some(entry) = self.entries.get(&txid) else {
                continue;
            };
            if weight.saturating_add(entry.weight) > max_weight || !final_in(&entry.tx, height) {
                continue;
            }
            weight += entry.weight;
            chosen.push((entry.tx.clone(), entry.fee));
            for child in &entry.children {
                let Some(left) = waiting.get_mut(child) else {
                    continue;
                };
                *left -= 1;
                if *left == 0
                    && let Some(entry) = self.entries.get(child)
                {
                    ready.push((entry.fee_rate(), Reverse(entry.sequence), *child));
                }
            }
        }
        chosen
    }

    /// These and all that they stand on.
    fn ancestors(&self, from: impl IntoIterator<Item = Txid>) -> BTreeSet<Txid> {
        self.walk(from, |entry| &entry.parents)
    }

    /// This one and all that stand on it.
    fn descendants(&self, txid: Txid) -> BTreeSet<Txid> {
        self.walk([txid], |entry| &entry.children)
    }

    /// These and all that hang together with them.
    fn cluster(&self, from: impl IntoIterator<Item = Txid>) -> BTreeSet<Txid> {
        self.walk_all(from, |entry| entry.parents.iter().chain(&entry.children))
    }

    fn walk(
        &self,
        from: impl IntoIterator<Item = Txid>,
        next: impl Fn(&Entry) -> &BTreeSet<Txid>,
    ) -> BTreeSet<Txid> {
        self.walk_all(from, |entry| next(entry).iter())
    }

    fn walk_all<'a, I: Iterator<Item = &'a Txid>>(
        &'a self,
        from: impl IntoIterator<Item = Txid>,
        next: impl Fn(&'a Entry) -> I,
    ) -> BTreeSet<Txid> {
        let mut found = BTreeSet::new();
        let mut open: Vec<Txid> = from.into_iter().collect();
        while let Some(txid) = open.pop() {
            if let Some(entry) = self.entries.get(&txid)
                && found.insert(txid)
            {
                open.extend(next(entry).copied());
            }
        }
        found
    }

    fn remove_all(&mut self, txids: &BTreeSet<Txid>) -> Vec<Transaction> {
        let mut removed: Vec<Entry> = txids.iter().filter_map(|txid| self.unlink(txid)).collect();
        removed.sort_unstable_by_key(|entry| entry.sequence);
        removed.into_iter().map(|entry| entry.tx).collect()
    }

    fn unlink(&mut self, txid: &Txid) -> Option<Entry> {
        let entry = self.entries.remove(txid)?;
        self.by_wtxid.remove(&entry.wtxid);
        for input in &entry.tx.input {
            if self.spender(&input.previous_output) == Some(*txid) {
                self.spenders.remove(&input.previous_output);
            }
        }
        for parent in &entry.parents {
            if let Some(parent) = self.entries.get_mut(parent) {
                parent.children.remove(txid);
            }
        }
        for child in &entry.children {
            if let Some(child) = self.entries.get_mut(child) {
                child.parents.remove(txid);
            }
        }
        Some(entry)
    }
}

/// Whether the lock time lets a transaction into the block at `height`. Lock times that name a time count as reached: this
/// wallet writes none.
fn final_in(tx: &Transaction, height: u32) -> bool {
    match tx.lock_time {
        LockTime::Blocks(lock) => {
            lock.to_consensus_u32() < height || tx.input.iter().all(|i| i.sequence.is_final())
        }
        LockTime::Seconds(_) => true,
    }
}
