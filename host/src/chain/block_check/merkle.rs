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
