//! The transactions that are waited for: by txid, and how many came at each height into each bucket.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use crate::buckets::COUNT;

/// A transaction that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Height of the chain when it came.
    pub height: u32,
    /// Bucket of its fee rate.
    pub bucket: usize,
    /// Its fee rate, sat/kvB.
    pub rate: u64,
}

/// Txids are hashes: any eight bytes of one will do. (Whoever grinds txids to slow a table down pays for each of them with
/// a fee and with the room it takes in the pool.)
#[derive(Debug, Default)]
pub struct TxidHasher(u64);

impl Hasher for TxidHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 ^= u64::from_le_bytes(*first).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }
}

/// The transactions that are waited for.
///
/// Core counts them in rings of one slot a block, one ring a horizon, and moves what falls out of a ring into `oldUnconf`.
/// All that an estimate asks of the rings is how many wait for `target` blocks or longer, which is what this answers.
#[derive(Debug, Default)]
pub struct Unconfirmed {
    by_txid: HashMap<[u8; 32], Waiting, BuildHasherDefault<TxidHasher>>,
    counts: BTreeMap<(u32, usize), u32>,
}

impl Unconfirmed {
    /// Waits for a transaction. False if it was waited for already.
    pub fn insert(&mut self, txid: &[u8; 32], waiting: Waiting) -> bool {
        if self.by_txid.contains_key(txid) {
            return false;
        }
        self.by_txid.insert(*txid, waiting);
        *self
            .counts
            .entry((waiting.height, waiting.bucket))
            .or_default() += 1;
        true
    }

    /// Waits no longer for a transaction.
    pub fn remove(&mut self, txid: &[u8; 32]) -> Option<Waiting> {
        let waiting = self.by_txid.remove(txid)?;
        let place = (waiting.height, waiting.bucket);
        if let Some(count) = self.counts.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&place);
            }
        }
        Some(waiting)
    }

    /// For each bucket, how many transactions wait at `height` for `blocks` or longer.
    pub fn waiting(&self, height: u32, blocks: u32) -> Vec<u32> {
        let mut waiting = vec![0; COUNT];
        let Some(newest) = height.checked_sub(blocks) else {
            return waiting;
        };
        for ((_, bucket), count) in self.counts.range(..=(newest, usize::MAX)) {
            if let Some(place) = waiting.get_mut(*bucket) {
                *place += count;
            }
        }
        waiting
    }

    /// How many transactions are waited for.
    pub fn len(&self) -> usize {
        self.counts.values().map(|count| *count as usize).sum()
    }

    /// True when none is.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.by_txid.clear();
        self.counts.clear();
    }

    /// How many came at which height into which bucket: all that an estimate needs.
    pub fn counts(&self) -> impl Iterator<Item = (u32, usize, u32)> {
        self.counts
            .iter()
            .map(|((height, bucket), count)| (*height, *bucket, *count))
    }

    /// Adds a count without txids, for an instance that only estimates.
    pub fn restore(&mut self, height: u32, bucket: usize, count: u32) {
        *self.counts.entry((height, bucket)).or_default() += count;
    }
}
