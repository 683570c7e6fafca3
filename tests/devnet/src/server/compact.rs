//! Blocks as the short ids of their transactions (BIP152), for peers that have a pool.

use anyhow::{Context as _, Result};
use bitcoin::bip152::{BlockTransactions, BlockTransactionsRequest, HeaderAndShortIds};
use bitcoin::p2p::message::NetworkMessage;
use bitcoin::p2p::message_compact_blocks::{BlockTxn, CmpctBlock, SendCmpct};
use bitcoin::{Block, BlockHash};

use super::client::Session;

/// The kind whose short ids come of wtxids.
const VERSION: u32 = 2;

/// What a peer is told when it comes: that it may ask for them.
pub(super) fn offer() -> NetworkMessage {
    NetworkMessage::SendCmpct(SendCmpct {
        send_compact: false,
        version: u64::from(VERSION),
    })
}

impl Session<'_> {
    /// Sends a block in its compact form, and says whether there is one.
    pub(super) fn compact_block(&self, hash: BlockHash) -> Result<bool> {
        let Some(block) = self.block_of(hash)? else {
            return Ok(false);
        };
        // Any nonce will do; this one makes runs repeat.
        let compact_block = HeaderAndShortIds::from_block(&block, 0, VERSION, &[])?;
        self.send(NetworkMessage::CmpctBlock(CmpctBlock { compact_block }));
        Ok(true)
    }

    /// Sends the transactions of a block that a peer did not find in its pool.
    pub(super) fn block_transactions(&self, request: &BlockTransactionsRequest) -> Result<()> {
        let block = self.block_of(request.block_hash)?;
        let block = block.context("transactions of an unknown block")?;
        let transactions = BlockTransactions::from_request(request, &block)?;
        self.send(NetworkMessage::BlockTxn(BlockTxn { transactions }));
        Ok(())
    }

    fn block_of(&self, hash: BlockHash) -> Result<Option<Block>> {
        let raw = self.shared.node.state().chain().block(hash).cloned();
        raw.map(|raw| raw.decode()).transpose()
    }
}
