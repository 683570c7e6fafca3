//! The merkle tree of a block, hashed in place.

use bitcoin::hashes::{Hash, sha256d};

/// The root of a merkle tree, and whether it could be that of another list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MerkleRoot {
    /// The root, internal byte order; zero for no leaves.
    pub root: [u8; 32],
    /// Two equal hashes stood side by side in some row: the list without the repetition has the same root
    /// (CVE-2012-2459).
    pub duplicated_pair: bool,
}

/// The merkle root of `row`, whose hashes are in internal byte order.
pub fn merkle_root(mut row: Vec<[u8; 32]>) -> MerkleRoot {
    let mut duplicated_pair = false;
    let mut length = row.len();
    while length > 1 {
        let mut pair = [0u8; 64];
        let parents = length.div_ceil(2);
        for parent in 0..parents {
            let (left, right) = (2 * parent, (2 * parent + 1).min(length - 1));
            let (Some(first), Some(second)) = (row.get(left).copied(), row.get(right).copied())
            else {
                break;
            };
            // The last of an odd row is paired with itself: that is the rule, not a repetition.
            duplicated_pair |= left != right && first == second;
            let (head, tail) = pair.split_at_mut(32);
            head.copy_from_slice(&first);
            tail.copy_from_slice(&second);
            if let Some(slot) = row.get_mut(parent) {
                *slot = sha256d::Hash::hash(&pair).to_byte_array();
            }
        }
        length = parents;
    }
    MerkleRoot {
        root: row.first().copied().unwrap_or_default(),
        duplicated_pair,
    }
}

/// The same root, from leaves that come one after the other: in memory is one hash a row.
#[derive(Clone, Debug, Default)]
pub struct MerkleStream {
    /// Per row, the hash that waits for its right neighbour.
    rows: Vec<Option<[u8; 32]>>,
    duplicated_pair: bool,
}

impl MerkleStream {
    /// Adds the next leaf, internal byte order.
    pub fn push(&mut self, leaf: [u8; 32]) {
        let mut hash = leaf;
        for row in &mut self.rows {
            match row.take() {
                Some(left) => {
                    self.duplicated_pair |= left == hash;
                    hash = parent(left, hash);
                }
                None => {
                    *row = Some(hash);
                    return;
                }
            }
        }
        self.rows.push(Some(hash));
    }

    /// The root of the leaves so far.
    pub fn finish(self) -> MerkleRoot {
        let mut duplicated_pair = self.duplicated_pair;
        // What comes from below, without a right neighbour, or with itself as one.
        let mut below: Option<[u8; 32]> = None;
        let top = self.rows.len().saturating_sub(1);
        for (height, row) in self.rows.into_iter().enumerate() {
            below = match (row, below) {
                (None, None) => None,
                (None, Some(only)) => Some(parent(only, only)),
                (Some(left), Some(right)) => {
                    duplicated_pair |= left == right;
                    Some(parent(left, right))
                }
                (Some(only), None) if height == top => Some(only),
                (Some(only), None) => Some(parent(only, only)),
            };
        }
        MerkleRoot {
            root: below.unwrap_or_default(),
            duplicated_pair,
        }
    }
}

fn parent(left: [u8; 32], right: [u8; 32]) -> [u8; 32] {
    let mut pair = [0u8; 64];
    let (head, tail) = pair.split_at_mut(32);
    head.copy_from_slice(&left);
    tail.copy_from_slice(&right);
    sha256d::Hash::hash(&pair).to_byte_array()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn the_root_is_that_of_rust_bitcoin_for_every_small_count() {
        for count in 0..70u32 {
            let leaves: Vec<_> = (0..count)
                .map(|n| sha256d::Hash::hash(&n.to_le_bytes()))
                .collect();
            let ours = merkle_root(leaves.iter().map(|leaf| leaf.to_byte_array()).collect());
            let theirs = bitcoin::merkle_tree::calculate_root(leaves.into_iter());
            assert_eq!(
                ours.root,
                theirs.map_or([0; 32], |root| root.to_byte_array())
            );
            assert!(!ours.duplicated_pair);
        }
    }

    #[test]
    fn leaves_one_by_one_have_the_same_root_and_the_same_repetitions() {
        for count in 0..70u32 {
            // Few different ones, so that pairs repeat in many rows.
            for kinds in [1, 2, 3, 1_000] {
                let leaves: Vec<_> = (0..count)
                    .map(|n| sha256d::Hash::hash(&((n * 7 + n / 5) % kinds).to_le_bytes()))
                    .map(|hash| hash.to_byte_array())
                    .collect();
                let mut stream = MerkleStream::default();
                leaves.iter().for_each(|leaf| stream.push(*leaf));
                assert_eq!(stream.finish(), merkle_root(leaves), "{count} of {kinds}");
            }
        }
    }

    #[test]
    fn a_repeated_tail_has_the_same_root_and_is_noticed() {
        let leaves: Vec<_> = (0..6u32)
            .map(|n| sha256d::Hash::hash(&n.to_le_bytes()).to_byte_array())
            .collect();
        let mut longer = leaves.clone();
        longer.extend_from_slice(&leaves[4..]);
        let (honest, mutated) = (merkle_root(leaves), merkle_root(longer));
        assert_eq!(honest.root, mutated.root);
        assert!(!honest.duplicated_pair);
        assert!(mutated.duplicated_pair);
    }
}
