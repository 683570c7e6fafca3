//! Finds the transactions of the block that is being handled by their txids.

/// A hash table from txid to position in the block, made anew for each block in the same memory.
///
/// Whoever makes transactions can choose their txids to some degree, and could make them all fall into one place of a table
/// with a fixed hash function. The factor here comes from the block's hash, which nobody knows before the block is mined:
/// multiplying by an odd factor that is not known in advance is universal hashing.
#[derive(Debug, Default)]
pub struct Created {
    /// Position + 1, or 0 where nothing is.
    slots: Vec<u32>,
    factor: u64,
    shift: u32,
}

impl Created {
    /// Empties the table and makes room for `transactions`.
    pub fn reset(&mut self, transactions: usize, block_hash: &[u8; 32]) {
        // Two slots a transaction at least: chains of occupied slots stay short.
        let slots = (transactions * 2).next_power_of_two().max(16);
        self.slots.clear();
        self.slots.resize(slots, 0);
        self.factor = first_eight(block_hash) | 1;
        self.shift = 64 - slots.trailing_zeros();
    }

    #[inline]
    fn slot(&self, txid: &[u8; 32]) -> usize {
        (first_eight(txid).wrapping_mul(self.factor) >> self.shift) as usize
    }

    /// Adds the transaction at `position` of `txids`.
    #[inline]
    pub fn insert(&mut self, txids: &[[u8; 32]], position: usize) {
        let Some(txid) = txids.get(position) else {
            return;
        };
        let mut slot = self.slot(txid);
        while let Some(place) = self.slots.get_mut(slot) {
            if *place == 0 {
                *place = position as u32 + 1;
                return;
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    /// Position of a transaction that was added.
    #[inline]
    pub fn position(&self, txids: &[[u8; 32]], txid: &[u8; 32]) -> Option<usize> {
        let mut slot = self.slot(txid);
        loop {
            let position = self.slots.get(slot)?.checked_sub(1)? as usize;
            if txids.get(position) == Some(txid) {
                return Some(position);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }
}

#[inline]
fn first_eight(hash: &[u8; 32]) -> u64 {
    match hash.first_chunk() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn every_transaction_that_was_added_is_found_and_no_other() {
        // All with the same first eight bytes: the worst that can be made.
        let txids: Vec<[u8; 32]> = (0..200u8)
            .map(|n| std::array::from_fn(|i| if i < 31 { 7 } else { n }))
            .collect();
        let mut created = Created::default();
        for count in [0, 1, 17, 200] {
            created.reset(count, &[9; 32]);
            for position in 0..count {
                assert_eq!(created.position(&txids, &txids[position]), None);
                created.insert(&txids, position);
            }
            for (position, txid) in txids.iter().enumerate() {
                assert_eq!(
                    created.position(&txids, txid),
                    (position < count).then_some(position)
                );
            }
        }
    }
}
