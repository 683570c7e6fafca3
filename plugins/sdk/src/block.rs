//! A block and its header.

use std::ops::Deref;

use crate::columns::{Columns, Malformed};
use crate::wire;

/// A block header and what follows from its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Distance from genesis, which has height 0.
    pub height: u32,
    /// 32 bytes, internal order.
    pub hash: [u8; 32],
    /// Hash of the parent, internal order.
    pub previous: [u8; 32],
    /// Internal order.
    pub merkle_root: [u8; 32],
    /// The version field.
    pub version: i32,
    /// The header's own time: unix seconds, set by the miner.
    pub time: u32,
    /// Compact difficulty target.
    pub bits: u32,
    /// The nonce field.
    pub nonce: u32,
    /// Median time of this block and the ten before it: unix seconds, never falls along a chain.
    pub median_time: u32,
    /// Serialized size of the whole block in bytes.
    pub size: u32,
    /// Weight of the whole block in weight units.
    pub weight: u32,
}

impl Header {
    /// Takes the header over, if its hashes have 32 bytes.
    pub fn new(h: &wire::BlockHeader) -> Result<Self, Malformed> {
        Ok(Header {
            height: h.height,
            hash: hash(&h.hash, "header.hash")?,
            previous: hash(&h.previous, "header.previous")?,
            merkle_root: hash(&h.merkle_root, "header.merkle-root")?,
            version: h.version,
            time: h.time,
            bits: h.bits,
            nonce: h.nonce,
            median_time: h.median_time,
            size: h.size,
            weight: h.weight,
        })
    }
}

fn hash(bytes: &[u8], field: &'static str) -> Result<[u8; 32], Malformed> {
    bytes.try_into().map_err(|_| Malformed(field))
}

/// A block. It is its [`Columns`] too: `block.transactions()`, `block.txids()`, `block.len()`.
#[derive(Debug)]
pub struct Block {
    header: Header,
    columns: Columns,
    raw: Option<Vec<u8>>,
}

impl Block {
    /// Takes the block over, if its columns agree with each other.
    pub fn new(block: wire::Block) -> Result<Self, Malformed> {
        Self::part(block, 0)
    }

    /// Takes over a part of a large block, before which so many of its transactions come: the coinbase is in the first part.
    pub fn part(block: wire::Block, first: u32) -> Result<Self, Malformed> {
        Ok(Block {
            header: Header::new(&block.header)?,
            columns: Columns::new(block.columns, first == 0)?,
            raw: block.raw,
        })
    }

    /// The header.
    #[inline]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Distance from genesis.
    #[inline]
    pub fn height(&self) -> u32 {
        self.header.height
    }

    /// 32 bytes, internal order.
    #[inline]
    pub fn hash(&self) -> &[u8; 32] {
        &self.header.hash
    }

    /// The transactions in columns.
    #[inline]
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The block as it is on the wire (BIP144), if the plugin asked for it.
    #[inline]
    pub fn raw(&self) -> Option<&[u8]> {
        self.raw.as_deref()
    }
}

impl Deref for Block {
    type Target = Columns;
    #[inline]
    fn deref(&self) -> &Columns {
        &self.columns
    }
}
