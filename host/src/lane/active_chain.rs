//! The chain that lanes follow: headers of the branch with the most work whose blocks are all here and checked.

use bitcoin::BlockHash;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::{CompactTarget, TxMerkleNode};

/// A block's place in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    pub height: u32,
    pub hash: BlockHash,
}

/// A header of the active chain without the hash of its parent, which the entry before it has. 84 bytes.
#[derive(Debug, Clone, Copy)]
struct Link {
    hash: BlockHash,
    merkle_root: TxMerkleNode,
    version: Version,
    time: u32,
    bits: CompactTarget,
    nonce: u32,
    median_time: u32,
}

/// Headers by height, from genesis.
#[derive(Debug, Default)]
pub struct ActiveChain {
    links: Vec<Link>,
}

impl ActiveChain {
    /// The last block.
    pub fn tip(&self) -> Option<Position> {
        let height = u32::try_from(self.links.len()).ok()?.checked_sub(1)?;
        Some(Position {
            height,
            hash: self.links.last()?.hash,
        })
    }

    /// The hash of the block at a height.
    pub fn hash_at(&self, height: u32) -> Option<BlockHash> {
        Some(self.links.get(height as usize)?.hash)
    }

    /// The header at a height and its median time past in unix seconds.
    pub fn header_at(&self, height: u32) -> Option<(Header, u32)> {
        let link = self.links.get(height as usize)?;
        let prev_blockhash = match height.checked_sub(1) {
            Some(below) => self.hash_at(below)?,
            None => BlockHash::all_zeros(),
        };
        let header = Header {
            version: link.version,
            prev_blockhash,
            merkle_root: link.merkle_root,
            time: link.time,
            bits: link.bits,
            nonce: link.nonce,
        };
        Some((header, link.median_time))
    }

    /// Where a block stands, if the chain has it. Looks at every block: for a person's question, not for each block.
    pub fn find(&self, hash: &BlockHash) -> Option<Position> {
        let height = self.links.iter().rposition(|link| link.hash == *hash)?;
        Some(Position {
            height: u32::try_from(height).ok()?,
            hash: *hash,
        })
    }

    /// Whether the chain has this block.
    pub fn contains(&self, position: Position) -> bool {
        self.hash_at(position.height) == Some(position.hash)
    }

    /// Forgets all blocks above a height.
    pub(super) fn truncate(&mut self, height: Option<u32>) {
        self.links.truncate(height.map_or(0, |h| h as usize + 1));
    }

    /// Adds a block; the caller vouches that it is the child of the tip.
    pub(super) fn push(&mut self, hash: BlockHash, header: &Header) {
        let first = self.links.len().saturating_sub(10);
        let mut times: Vec<u32> = self
            .links
            .iter()
            .skip(first)
            .map(|link| link.time)
            .collect();
        times.push(header.time);
        times.sort_unstable();
        let median_time = times.get(times.len() / 2).copied().unwrap_or(header.time);
        self.links.push(Link {
            hash,
            merkle_root: header.merkle_root,
            version: header.version,
            time: header.time,
            bits: header.bits,
            nonce: header.nonce,
            median_time,
        });
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use bitcoin::Network;
    use bitcoin::constants::genesis_block;

    /// A made-up block of a branch.
    pub(in crate::lane) fn block(height: u32, branch: u8, time: u32) -> (BlockHash, Header) {
        let mut hash = [branch; 32];
        hash[..4].copy_from_slice(&height.to_le_bytes());
        let header = Header {
            time,
            ..genesis_block(Network::Regtest).header
        };
        (BlockHash::from_byte_array(hash), header)
    }

    #[test]
    fn the_median_time_is_that_of_eleven_blocks() {
        let mut chain = ActiveChain::default();
        let times = [50, 10, 40, 20, 30, 90, 60, 80, 70, 100, 110, 5, 7];
        for (height, time) in times.into_iter().enumerate() {
            let (hash, header) = block(height as u32, 0, time);
            chain.push(hash, &header);
        }
        assert_eq!(chain.header_at(0).unwrap().1, 50);
        // Of two, Bitcoin Core takes the later.
        assert_eq!(chain.header_at(1).unwrap().1, 50);
        assert_eq!(chain.header_at(2).unwrap().1, 40);
        assert_eq!(chain.header_at(10).unwrap().1, 60);
        // Blocks 2 to 12: the first two have left.
        assert_eq!(chain.header_at(12).unwrap().1, 60);
    }

    #[test]
    fn a_truncated_chain_has_another_tip_and_the_header_names_its_parent() {
        let mut chain = ActiveChain::default();
        assert_eq!(chain.tip(), None);
        for height in 0..5 {
            let (hash, header) = block(height, 0, height);
            chain.push(hash, &header);
        }
        chain.truncate(Some(2));
        assert_eq!(chain.tip().unwrap().height, 2);
        let (header, _) = chain.header_at(2).unwrap();
        assert_eq!(Some(header.prev_blockhash), chain.hash_at(1));
        assert_eq!(chain.find(&block(1, 0, 0).0).unwrap().height, 1);
        assert_eq!(chain.find(&block(4, 0, 0).0), None);
    }
}
