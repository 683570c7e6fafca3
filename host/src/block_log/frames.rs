//! What a frame's payload is, and how its key is found again when the index does not know it.

use std::sync::LazyLock;

use bitcoin::hashes::Hash as _;
use bitcoin::{Block, Network};

/// A kind of log: the names of its files and what can be read out of a frame without the index.
pub trait Frames: std::fmt::Debug + Send + Sync + 'static {
    /// Files are `PREFIX00000.dat`, `PREFIX00001.dat`, … and `PREFIX.index`.
    const PREFIX: &'static str;

    /// Bytes of the frame's payload that stand before what the caller gave.
    const ENVELOPE_BYTES: usize;

    /// Those bytes; exactly [`ENVELOPE_BYTES`](Self::ENVELOPE_BYTES) of them.
    fn envelope(hash: &[u8; 32], height: u32, body: &[u8]) -> Vec<u8>;

    /// The hash and height of a whole frame found after a kill, or `None` when its bytes are not
    /// what was written.
    ///
    /// `height_of` knows the blocks that the log already holds.
    fn key(payload: &[u8], height_of: &dyn Fn(&[u8; 32]) -> Option<u32>)
    -> Option<([u8; 32], u32)>;
}

/// Blocks, framed exactly as Bitcoin Core frames them.
#[derive(Debug)]
pub enum BlockFrames {}

impl Frames for BlockFrames {
    const PREFIX: &'static str = "blk";
    const ENVELOPE_BYTES: usize = 0;

    fn envelope(_hash: &[u8; 32], _height: u32, _body: &[u8]) -> Vec<u8> {
        Vec::new()
    }

    /// A block proves its own bytes: the header commits to the transactions, the coinbase to their
    /// witnesses. The height comes from the block before it, or, where that is not in the log, from
    /// the coinbase (BIP34).
    fn key(
        payload: &[u8],
        height_of: &dyn Fn(&[u8; 32]) -> Option<u32>,
    ) -> Option<([u8; 32], u32)> {
        let block: Block = bitcoin::consensus::deserialize(payload).ok()?;
        if block.txdata.is_empty()
            || !block.check_merkle_root()
            || !block.check_witness_commitment()
        {
            return None;
        }
        let hash = block.block_hash().to_byte_array();
        let parent = block.header.prev_blockhash.to_byte_array();
        let height = if GENESIS_HASHES.contains(&hash) {
            0
        } else if let Some(parent_height) = height_of(&parent) {
            parent_height.checked_add(1)?
        } else if GENESIS_HASHES.contains(&parent) {
            1
        } else {
            u32::try_from(block.bip34_block_height().ok()?).ok()?
        };
        Some((hash, height))
    }
}

/// The first blocks of the networks. They need not be in the log for block 1 to be recognised.
static GENESIS_HASHES: LazyLock<[[u8; 32]; 5]> = LazyLock::new(|| {
    [
        Network::Bitcoin,
        Network::Testnet,
        Network::Testnet4,
        Network::Signet,
        Network::Regtest,
    ]
    .map(|network| {
        bitcoin::constants::genesis_block(network)
            .block_hash()
            .to_byte_array()
    })
});

/// Opaque bytes kept for a block: hash (32), height (u32 LE), CRC-32 of those and the body (u32
/// LE), body.
#[derive(Debug)]
pub enum SpentFrames {}

impl Frames for SpentFrames {
    const PREFIX: &'static str = "spent";
    const ENVELOPE_BYTES: usize = 40;

    fn envelope(hash: &[u8; 32], height: u32, body: &[u8]) -> Vec<u8> {
        let mut envelope = Vec::with_capacity(Self::ENVELOPE_BYTES);
        envelope.extend_from_slice(hash);
        envelope.extend_from_slice(&height.to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&envelope);
        crc.update(body);
        envelope.extend_from_slice(&crc.finalize().to_le_bytes());
        envelope
    }

    fn key(
        payload: &[u8],
        _height_of: &dyn Fn(&[u8; 32]) -> Option<u32>,
    ) -> Option<([u8; 32], u32)> {
        let (hash, rest) = payload.split_first_chunk::<32>()?;
        let (height, body) = rest.split_first_chunk::<4>()?;
        let body = body.get(4..)?;
        let height = u32::from_le_bytes(*height);
        let envelope = Self::envelope(hash, height, body);
        (payload.get(..Self::ENVELOPE_BYTES)? == envelope).then_some((*hash, height))
    }
}
