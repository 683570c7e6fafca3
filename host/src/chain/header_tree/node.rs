//! One header of the tree.

use bitcoin::block::{Header, Version};
use bitcoin::{BlockHash, CompactTarget, TxMerkleNode, Work};

/// The place of a node in the tree's vector. A parent's is always smaller than its children's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(u32);

impl Id {
    pub(crate) const GENESIS: Id = Id(0);

    pub(crate) fn new(index: usize) -> Id {
        // The tree refuses headers long before an index passes 32 bits.
        Id(u32::try_from(index).unwrap_or(u32::MAX))
    }

    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is known about a header's block, as flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Status(u8);

impl Status {
    /// The block is stored and passed its checks.
    pub const CHECKED: u8 = 1;
    /// So did every block below it.
    pub const COMPLETE: u8 = 2;
    /// It, or a block below it, is invalid.
    pub const INVALID: u8 = 4;
    /// It was asked of a peer.
    pub const IN_FLIGHT: u8 = 8;
    /// It arrived and is being checked.
    pub const HELD: u8 = 16;

    /// Whether any of these flags is set.
    pub fn has(self, flags: u8) -> bool {
        self.0 & flags != 0
    }

    /// Sets these flags.
    pub fn set(&mut self, flags: u8) {
        self.0 |= flags;
    }

    /// Clears these flags.
    pub fn clear(&mut self, flags: u8) {
        self.0 &= !flags;
    }
}

/// A header without its parent's hash, which the parent holds.
#[derive(Clone, Debug)]
pub struct Node {
    pub(crate) hash: BlockHash,
    pub(crate) work: Work,
    merkle_root: TxMerkleNode,
    version: Version,
    pub(crate) time: u32,
    pub(crate) bits: CompactTarget,
    nonce: u32,
    pub(crate) height: u32,
    pub(crate) parent: Id,
    pub(crate) skip: Id,
    pub(crate) status: Status,
}

impl Node {
    pub(super) fn new(
        header: &Header,
        hash: BlockHash,
        parent: Id,
        height: u32,
        skip: Id,
        work: Work,
    ) -> Node {
        Node {
            hash,
            work,
            merkle_root: header.merkle_root,
            version: header.version,
            time: header.time,
            bits: header.bits,
            nonce: header.nonce,
            height,
            parent,
            skip,
            status: Status::default(),
        }
    }

    pub(super) fn header(&self, prev_blockhash: BlockHash) -> Header {
        Header {
            version: self.version,
            prev_blockhash,
            merkle_root: self.merkle_root,
            time: self.time,
            bits: self.bits,
            nonce: self.nonce,
        }
    }
}
