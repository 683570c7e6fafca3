//! A map in memory whose keys have a hash in them: a txid, an outpoint, the hash of a script.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A `HashMap` that takes the first eight bytes of each part of a key as they are. Make it with `HashTable::default()`.
///
/// The standard one mixes them with a secret, which a sandbox has not: there it is always the same, and costs a kilobyte. Whoever
/// grinds txids to slow a table down pays for each of them with a fee and with the room it takes.
pub type HashTable<K, V> = HashMap<K, V, BuildHasherDefault<FirstBytes>>;

/// The hash of a [`HashTable`].
#[derive(Clone, Debug, Default)]
pub struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let word = match bytes.first_chunk() {
            Some(first) => u64::from_le_bytes(*first),
            None => bytes
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u64::from(*byte)),
        };
        self.add(word);
    }

    fn write_u32(&mut self, number: u32) {
        self.add(u64::from(number));
    }

    // The length of an array, which is the same for all keys.
    fn write_usize(&mut self, _: usize) {}
}

impl FirstBytes {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn keys_that_differ_in_one_part_are_spread_over_the_table() {
        let hash = BuildHasherDefault::<FirstBytes>::default();
        // What a table of the standard library looks at: the lowest bits for the place, the highest seven beside them.
        let spread = |hashes: Vec<u64>| {
            let places = hashes
                .iter()
                .map(|hash| hash & 0xfff)
                .collect::<HashSet<_>>();
            let tags = hashes.iter().map(|hash| hash >> 57).collect::<HashSet<_>>();
            assert!(places.len() > 2_000, "{}", places.len());
            assert!(tags.len() > 100, "{}", tags.len());
        };
        spread(
            (0..4_096u32)
                .map(|vout| hash.hash_one(([7u8; 32], vout)))
                .collect(),
        );
        let txid = |number: u64| {
            let mut txid = [0u8; 32];
            let bytes = number.wrapping_mul(0xd6e8_feb8_6659_fd93).to_le_bytes();
            txid[..8].copy_from_slice(&bytes);
            txid
        };
        spread(
            (0..4_096)
                .map(|number| hash.hash_one(txid(number)))
                .collect(),
        );
        spread(
            (0..4_096)
                .map(|number| hash.hash_one((txid(number), 0u32)))
                .collect(),
        );
        let script = |number: u64| *txid(number).first_chunk::<12>().unwrap();
        spread(
            (0..4_096)
                .map(|number| hash.hash_one(script(number)))
                .collect(),
        );
    }
}
