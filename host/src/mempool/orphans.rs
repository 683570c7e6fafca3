//! Transactions whose parents are not known yet.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;

use bitcoin::{OutPoint, Transaction, Txid, Wtxid};
use bytes::Bytes;

use super::LetGo;

/// One that waits.
#[derive(Debug, Clone)]
pub(super) struct Orphan {
    pub(super) txid: Txid,
    pub(super) wtxid: Wtxid,
    pub(super) raw: Bytes,
    /// When it came, in unix seconds.
    pub(super) since: u64,
    /// Who sent it, if a peer did.
    pub(super) from: Option<SocketAddr>,
}

/// What one peer has waiting.
#[derive(Debug, Default)]
struct Share {
    numbers: BTreeSet<u64>,
    bytes: usize,
}

/// The waiting transactions, bounded in number and bytes. When there are too many, the oldest of the peer that has the
/// most waiting goes: one peer that sends more than its share pushes out its own and nobody else's.
#[derive(Debug)]
pub(super) struct Orphans {
    max: usize,
    max_bytes: usize,
    bytes: usize,
    /// By order of arrival.
    waiting: BTreeMap<u64, Orphan>,
    by_txid: HashMap<Txid, u64>,
    wtxids: HashSet<Wtxid>,
    shares: BTreeMap<Option<SocketAddr>, Share>,
    /// Missing parent to those that wait for it.
    children: HashMap<Txid, Vec<u64>>,
    arrivals: u64,
    /// What was let go for want of room or of time, until somebody asks.
    let_go: Vec<LetGo>,
}

impl Orphans {
    pub(super) fn new(max: usize, max_bytes: usize) -> Self {
        Self {
            max,
            max_bytes,
            bytes: 0,
            waiting: BTreeMap::new(),
            by_txid: HashMap::new(),
            wtxids: HashSet::new(),
            shares: BTreeMap::new(),
            children: HashMap::new(),
            arrivals: 0,
            let_go: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Hash with witnesses, and serialization.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Wtxid, &Bytes)> {
        self.waiting
            .values()
            .map(|orphan| (orphan.wtxid, &orphan.raw))
    }

    pub(super) fn contains(&self, txid: &Txid) -> bool {
        self.by_txid.contains_key(txid)
    }

    pub(super) fn contains_wtxid(&self, wtxid: &Wtxid) -> bool {
        self.wtxids.contains(wtxid)
    }

    /// Keeps a transaction until one of `missing` arrives.
    pub(super) fn add(&mut self, orphan: Orphan, missing: &[Txid]) {
        if self.contains(&orphan.txid) {
            return;
        }
        let number = self.arrivals;
        self.arrivals += 1;
        self.bytes += orphan.raw.len();
        self.by_txid.insert(orphan.txid, number);
        self.wtxids.insert(orphan.wtxid);
        let share = self.shares.entry(orphan.from).or_default();
        share.numbers.insert(number);
        share.bytes += orphan.raw.len();
        for parent in missing {
            self.children.entry(*parent).or_default().push(number);
        }
        self.waiting.insert(number, orphan);
        while self.waiting.len() > self.max || self.bytes > self.max_bytes {
            let Some(oldest) = self.oldest_of_the_largest_share() else {
                return;
            };
            self.let_go(oldest);
        }
    }

    fn let_go(&mut self, number: u64) {
        if let Some(orphan) = self.remove(number) {
            self.let_go.push(LetGo {
                txid: orphan.txid,
                wtxid: orphan.wtxid,
                refused: false,
            });
        }
    }

    /// What was let go since the last call.
    pub(super) fn drain_let_go(&mut self) -> Vec<LetGo> {
        std::mem::take(&mut self.let_go)
    }

    /// By bytes where these are what there is too much of, by number otherwise.
    fn oldest_of_the_largest_share(&self) -> Option<u64> {
        let by_bytes = self.bytes > self.max_bytes;
        let largest = self.shares.values().max_by_key(|share| match by_bytes {
            true => share.bytes,
            false => share.numbers.len(),
        })?;
        largest.numbers.first().copied()
    }

    /// Those that wait for `parent`, which stay: first what `from` sent, the latest first (Core's
    /// `GetChildrenFromSamePeer`), then the others'.
    pub(super) fn children(&self, parent: &Txid, from: Option<SocketAddr>) -> Vec<Orphan> {
        let mut found: Vec<&Orphan> = self
            .children
            .get(parent)
            .into_iter()
            .flatten()
            .rev()
            .filter_map(|number| self.waiting.get(number))
            .collect();
        found.sort_by_key(|orphan| orphan.from != from);
        found.into_iter().cloned().collect()
    }

    /// Those that wait for `parent`, taken out, in order of arrival.
    pub(super) fn take_children(&mut self, parent: &Txid) -> Vec<Orphan> {
        let numbers = self.children.remove(parent).unwrap_or_default();
        numbers
            .into_iter()
            .filter_map(|number| self.remove(number))
            .collect()
    }

    /// The missing parents that are `here` now.
    pub(super) fn parents(&self, here: impl Fn(&Txid) -> bool) -> Vec<Txid> {
        self.children
            .keys()
            .filter(|parent| here(parent))
            .copied()
            .collect()
    }

    /// It waits no longer.
    pub(super) fn forget(&mut self, txid: &Txid) {
        if let Some(number) = self.by_txid.get(txid) {
            self.remove(*number);
        }
    }

    /// A block holds this transaction: it waits no longer. (Those that wait for it are tried when
    /// the pool settles.)
    pub(super) fn confirmed(&mut self, txid: &Txid) {
        self.forget(txid);
    }

    /// A block spends this output: what also spends it will never find it.
    pub(super) fn spent(&mut self, outpoint: &OutPoint) {
        let Some(numbers) = self.children.get(&outpoint.txid) else {
            return;
        };
        for number in numbers.clone() {
            let spends = self.waiting.get(&number).is_some_and(|orphan| {
                bitcoin::consensus::deserialize::<Transaction>(&orphan.raw).is_ok_and(|tx| {
                    tx.input
                        .iter()
                        .any(|input| input.previous_output == *outpoint)
                })
            });
            if spends {
                self.remove(number);
            }
        }
    }

    /// Drops what came at or before `time`.
    pub(super) fn expire(&mut self, time: u64) {
        let expired: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, orphan)| orphan.since <= time)
            .map(|(number, _)| *number)
            .collect();
        for number in expired {
            self.let_go(number);
        }
    }

    fn remove(&mut self, number: u64) -> Option<Orphan> {
        let orphan = self.waiting.remove(&number)?;
        self.bytes -= orphan.raw.len();
        self.by_txid.remove(&orphan.txid);
        self.wtxids.remove(&orphan.wtxid);
        if let Some(share) = self.shares.get_mut(&orphan.from) {
            share.numbers.remove(&number);
            share.bytes -= orphan.raw.len();
            if share.numbers.is_empty() {
                self.shares.remove(&orphan.from);
            }
        }
        self.children.retain(|_, numbers| {
            numbers.retain(|other| *other != number);
            !numbers.is_empty()
        });
        Some(orphan)
    }
}
