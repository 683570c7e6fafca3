//! Transactions whose parents are not known yet.

use std::collections::{BTreeMap, HashMap, HashSet};

use bitcoin::{OutPoint, Transaction, Txid, Wtxid};
use bytes::Bytes;

/// One that waits.
#[derive(Debug, Clone)]
pub(super) struct Orphan {
    pub(super) txid: Txid,
    pub(super) wtxid: Wtxid,
    pub(super) raw: Bytes,
    /// When it came, in unix seconds.
    pub(super) since: u64,
}

/// The waiting transactions, bounded in number and bytes: whoever sends more pushes out the oldest.
#[derive(Debug)]
pub(super) struct Orphans {
    max: usize,
    max_bytes: usize,
    bytes: usize,
    /// By order of arrival.
    waiting: BTreeMap<u64, Orphan>,
    by_txid: HashMap<Txid, u64>,
    wtxids: HashSet<Wtxid>,
    /// Missing parent to those that wait for it.
    children: HashMap<Txid, Vec<u64>>,
    arrivals: u64,
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
            children: HashMap::new(),
            arrivals: 0,
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
    pub(super) fn add(
        &mut self,
        txid: Txid,
        wtxid: Wtxid,
        raw: Bytes,
        missing: &[Txid],
        since: u64,
    ) {
        if self.contains(&txid) {
            return;
        }
        let number = self.arrivals;
        self.arrivals += 1;
        self.bytes += raw.len();
        self.by_txid.insert(txid, number);
        self.wtxids.insert(wtxid);
        for parent in missing {
            self.children.entry(*parent).or_default().push(number);
        }
        self.waiting.insert(
            number,
            Orphan {
                txid,
                wtxid,
                raw,
                since,
            },
        );
        while self.waiting.len() > self.max || self.bytes > self.max_bytes {
            let Some(oldest) = self.waiting.keys().next().copied() else {
                return;
            };
            self.remove(oldest);
        }
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

    /// A block holds this transaction: it waits no longer. (Those that wait for it are tried when
    /// the pool settles.)
    pub(super) fn confirmed(&mut self, txid: &Txid) {
        if let Some(number) = self.by_txid.get(txid) {
            self.remove(*number);
        }
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
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) -> Option<Orphan> {
        let orphan = self.waiting.remove(&number)?;
        self.bytes -= orphan.raw.len();
        self.by_txid.remove(&orphan.txid);
        self.wtxids.remove(&orphan.wtxid);
        self.children.retain(|_, numbers| {
            numbers.retain(|other| *other != number);
            !numbers.is_empty()
        });
        Some(orphan)
    }
}
