//! A block, decoded once into columns, whatever the number of plugins that read it.
//!
//! The decoder goes over the bytes a single time and builds nothing but the columns of `wit/plugin.wit`: no tree of
//! transactions is allocated. Everything that is not copied (raw transactions, witnesses) is kept as places in the block's
//! own bytes.

mod columns;
mod reader;
mod runs;
mod spent;
mod view;

use bitcoin::block::Header;
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::{BlockHash, consensus};
use bytes::Bytes;
use std::ops::Range;

pub use columns::{Columns, Inputs, Outputs, Transactions, Witnesses};
pub use reader::DecodeError;
use reader::Reader;
pub use runs::{Run, Runs};
pub use spent::{Spent, SpentDecodeError};

/// Length of a block header in bytes.
pub const HEADER_LEN: usize = 80;

/// The largest block that is ever decoded as a whole, in bytes. What a chain allows is checked elsewhere.
pub const MAX_BLOCK_SIZE: usize = 1_000_000_000;

/// A decoded block.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The block as it is on the wire (BIP144); empty once [`Frame::forget_raw`] was called.
    pub raw: Bytes,
    /// Bytes of the block as it is on the wire.
    pub size: u32,
    pub header: Header,
    pub hash: BlockHash,
    pub columns: Columns,
}

impl Frame {
    /// Decodes a whole block and hashes its txids.
    ///
    /// # Errors
    ///
    /// When the bytes are not exactly one block, or are more than [`MAX_BLOCK_SIZE`].
    pub fn decode(raw: Bytes) -> Result<Self, DecodeError> {
        let mut frame = Self::decode_without_txids(raw)?;
        frame.columns.hash_txids(&frame.raw);
        Ok(frame)
    }

    /// Decodes a whole block and leaves the txids column empty: [`Columns::hash_txids`] fills it.
    ///
    /// # Errors
    ///
    /// As [`Frame::decode`].
    pub fn decode_without_txids(raw: Bytes) -> Result<Self, DecodeError> {
        if raw.len() > MAX_BLOCK_SIZE {
            return Err(DecodeError::TooLarge(raw.len()));
        }
        let mut reader = Reader::new(&raw);
        let header_bytes = reader.take(HEADER_LEN)?;
        let header: Header =
            consensus::deserialize(header_bytes).map_err(|_| DecodeError::Truncated(0))?;
        // The smallest transaction has 60 bytes: a count beyond what the bytes can hold is refused before any allocation.
        let count = reader.count(60)?;
        let mut columns = Columns::with_capacity(count, raw.len());
        for _ in 0..count {
            columns.push(&mut reader)?;
        }
        reader.finish()?;
        let hash = BlockHash::from_raw_hash(sha256d::Hash::hash(header_bytes));
        Ok(Self {
            hash,
            header,
            columns,
            size: raw.len() as u32,
            raw,
        })
    }

    /// Decodes some transactions of a block, one behind the other, with their txids; `size` is then that of their bytes.
    fn of_run(
        header: Header,
        hash: BlockHash,
        count: usize,
        raw: Bytes,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&raw);
        let mut columns = Columns::with_capacity(count, raw.len());
        for _ in 0..count {
            columns.push(&mut reader)?;
        }
        reader.finish()?;
        columns.hash_txids(&raw);
        Ok(Self {
            hash,
            header,
            columns,
            size: raw.len() as u32,
            raw,
        })
    }

    /// Number of transactions.
    pub fn tx_count(&self) -> usize {
        self.columns.len()
    }

    /// Gives the block's bytes back: the columns hold all that most plugins ask for.
    pub fn forget_raw(&mut self) {
        self.raw = Bytes::new();
        self.columns.shrink();
    }

    /// Memory that the frame takes, in bytes.
    pub fn footprint(&self) -> usize {
        self.raw.len() + self.columns.footprint() + size_of::<Self>()
    }

    /// Weight of the whole block in weight units (BIP141), header and transaction count included.
    pub fn weight(&self) -> u32 {
        let overhead = HEADER_LEN + compact_size_len(self.tx_count());
        let transactions: u32 = self.columns.transactions.weights.iter().sum();
        transactions + 4 * overhead as u32
    }

    /// The bytes of one transaction (BIP144).
    pub fn raw_transaction(&self, index: usize) -> Option<&[u8]> {
        self.raw.get(self.columns.layout(index)?.whole())
    }

    /// The wtxid of one transaction, internal byte order (BIP141); that of the coinbase is not zeroed here.
    pub fn wtxid(&self, index: usize) -> Option<[u8; 32]> {
        Some(sha256d::Hash::hash(self.raw_transaction(index)?).to_byte_array())
    }
}

/// Where the parts of a transaction lie in the bytes that it was decoded from.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// First byte of the version.
    pub start: u32,
    /// First byte of the input count: 4 or 6 after `start`.
    pub inputs: u32,
    /// Just past the last output.
    pub outputs_end: u32,
    /// Just past the lock time.
    pub end: u32,
}

impl Layout {
    /// The whole transaction.
    pub fn whole(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Whether it is serialized with marker, flag and witnesses.
    pub fn has_witness(&self) -> bool {
        self.inputs - self.start == 6
    }

    /// Size without marker, flag and witnesses, in bytes.
    pub fn stripped_size(&self) -> u32 {
        8 + self.outputs_end - self.inputs
    }

    /// The txid, internal byte order: the hash of what is left when marker, flag and witnesses are taken away.
    pub fn txid(&self, raw: &[u8]) -> Option<[u8; 32]> {
        if !self.has_witness() {
            return Some(sha256d::Hash::hash(raw.get(self.whole())?).to_byte_array());
        }
        let start = self.start as usize;
        let end = self.end as usize;
        let mut engine = sha256d::Hash::engine();
        engine.input(raw.get(start..start + 4)?);
        engine.input(raw.get(self.inputs as usize..self.outputs_end as usize)?);
        engine.input(raw.get(end - 4..end)?);
        Some(sha256d::Hash::from_engine(engine).to_byte_array())
    }
}

/// Length of a compact size in bytes.
pub(crate) fn compact_size_len(n: usize) -> usize {
    match n {
        0..=0xfc => 1,
        0xfd..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

#[cfg(test)]
mod tests;
