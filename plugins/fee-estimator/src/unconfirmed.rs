//! The transactions that are waited for: by txid, and how many came at each height into each bucket.

use blockmill_sdk::HashTable;

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

/// The transactions that are waited for.
///
/// Core counts them in rings of one slot a block, one ring a horizon, and moves what falls out of a ring into `oldUnconf`.
/// All that an estimate asks of the rings is how many wait for `target` blocks or longer, which is what this answers.
#[derive(Debug, Default)]
pub struct Unconfirmed {
    by_txid: HashTable<[u8; 32], Waiting>,
    /// By height, and by bucket in each: both in order, and none of them empty.
    counts: Vec<(u32, Vec<(usize, u32)>)>,
}

impl Unconfirmed {
    /// Waits for a transaction. False if it was waited for already.
    pub fn insert(&mut self, txid: &[u8; 32], waiting: Waiting) -> bool {
        if self.by_txid.contains_key(txid) {
            return false;
        }
        self.by_txid.insert(*txid, waiting);
        self.restore(waiting.height, waiting.bucket, 1);
        true
    }

    /// Waits no longer for a transaction.
    pub fn remove(&mut self, txid: &[u8; 32]) -> Option<Waiting> {
        let waiting = self.by_txid.remove(txid)?;
        if let Ok(place) = self.row(waiting.height)
            && let Some((_, row)) = self.counts.get_mut(place)
            && let Ok(bucket) = row.binary_search_by_key(&waiting.bucket, |(bucket, _)| *bucket)
            && let Some((_, count)) = row.get_mut(bucket)
        {
            *count -= 1;
            if *count == 0 {
                row.remove(bucket);
            }
            if row.is_empty() {
                self.counts.remove(place);
            }
        }
        Some(waiting)
    }

    /// The place of a height among those that have transactions, or where it would be.
    fn row(&self, height: u32) -> Result<usize, usize> {
        self.counts
            .binary_search_by_key(&height, |(height, _)| *height)
    }

    /// For each bucket, how many transactions wait at `height` for `blocks` or longer.
    pub fn waiting(&self, height: u32, blocks: u32) -> Vec<u32> {
        let mut waiting = vec![0; COUNT];
        let Some(newest) = height.checked_sub(blocks) else {
            return waiting;
        };
        let old = self
            .counts
            .iter()
            .take_while(|(height, _)| *height <= newest);
        for (bucket, count) in old.flat_map(|(_, row)| row) {
            if let Some(place) = waiting.get_mut(*bucket) {
                *place += count;
            }
        }
        waiting
    }

    /// How many transactions are waited for.
    pub fn len(&self) -> usize {
        self.counts().map(|(_, _, count)| count as usize).sum()
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
            .flat_map(|(height, row)| row.iter().map(|(bucket, count)| (*height, *bucket, *count)))
    }

    /// Adds a count without txids, for an instance that only estimates.
    pub fn restore(&mut self, height: u32, bucket: usize, count: u32) {
        let place = self.row(height).unwrap_or_else(|place| {
            self.counts.insert(place, (height, Vec::new()));
            place
        });
        let Some((_, row)) = self.counts.get_mut(place) else {
            return;
        };
        match row.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(place) => {
                if let Some((_, there)) = row.get_mut(place) {
                    *there += count;
                }
            }
            Err(place) => row.insert(place, (bucket, count)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn counts_are_those_of_a_map_whatever_comes_and_goes() {
        let mut unconfirmed = Unconfirmed::default();
        let mut expected: BTreeMap<(u32, usize), u32> = BTreeMap::new();
        let mut random = 7u64;
        let mut next = |below: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) % below
        };
        let mut there = Vec::new();
        for number in 0..4_000u64 {
            if next(3) == 0 && !there.is_empty() {
                let txid = there.swap_remove(next(there.len() as u64) as usize);
                let gone = unconfirmed.remove(&txid).unwrap();
                let count = expected.get_mut(&(gone.height, gone.bucket)).unwrap();
                *count -= 1;
                if *count == 0 {
                    expected.remove(&(gone.height, gone.bucket));
                }
            } else {
                let mut txid = [0; 32];
                txid[..8].copy_from_slice(&number.to_le_bytes());
                let (height, bucket) = (next(20) as u32, next(30) as usize);
                let rate = 1;
                assert!(unconfirmed.insert(
                    &txid,
                    Waiting {
                        height,
                        bucket,
                        rate
                    }
                ));
                assert!(!unconfirmed.insert(
                    &txid,
                    Waiting {
                        height,
                        bucket,
                        rate
                    }
                ));
                *expected.entry((height, bucket)).or_default() += 1;
                there.push(txid);
            }
            if number % 100 == 0 {
                let counts: Vec<_> = expected.iter().map(|((h, b), n)| (*h, *b, *n)).collect();
                assert_eq!(unconfirmed.counts().collect::<Vec<_>>(), counts);
                assert_eq!(unconfirmed.len(), there.len());
                let waiting = unconfirmed.waiting(19, 9);
                for (bucket, found) in waiting.iter().enumerate() {
                    let of =
                        |(h, b, n): &(u32, usize, u32)| (*b == bucket && *h <= 10).then_some(*n);
                    assert_eq!(*found, counts.iter().filter_map(of).sum::<u32>());
                }
            }
        }
        for txid in there {
            unconfirmed.remove(&txid).unwrap();
        }
        assert!(unconfirmed.is_empty() && unconfirmed.counts().next().is_none());
    }
}
