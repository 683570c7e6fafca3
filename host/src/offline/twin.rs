//! A block beside a block: for a reorg that nobody mined.

use anyhow::{Context, Result};
use bitcoin::block::Header;
use bitcoin::script::ScriptBuf;
use bitcoin::{Amount, Block, BlockHash, consensus};
use bytes::Bytes;

use super::maker::{COMMITMENT_HEAD, seal};
use crate::frame::Frame;

/// What sets a twin's coinbase apart.
const TAG: &[u8] = b"/twin/";
/// Bytes that a coinbase's script may have (BIP34 asks for 2 to 100).
const MAX_COINBASE_SCRIPT: usize = 100;

/// The block that another miner might have found in place of this one, on the block `parent`: another coinbase, and the
/// same transactions up to `keep` of them. It has no proof of work of its own.
///
/// # Errors
///
/// When the block cannot be decoded or made again.
pub(super) fn twin(frame: &Frame, parent: BlockHash, keep: usize, subsidy: u64) -> Result<Frame> {
    let mut block: Block =
        consensus::deserialize(&frame.raw).context("a block cannot be decoded")?;
    let all = block.txdata.len();
    block.txdata.truncate(keep.max(1));
    let fewer = block.txdata.len() < all;
    let coinbase = block.txdata.first_mut().context("a block has a coinbase")?;
    if let Some(input) = coinbase.input.first_mut() {
        let script = input.script_sig.as_bytes();
        let kept = script.len().min(MAX_COINBASE_SCRIPT - TAG.len());
        let script = [script.get(..kept).unwrap_or_default(), TAG].concat();
        input.script_sig = ScriptBuf::from_bytes(script);
    }
    if fewer {
        // The fees of those that are gone are not there to be taken.
        let mut left = Amount::from_sat(subsidy);
        for output in &mut coinbase.output {
            output.value = output.value.min(left);
            left -= output.value;
        }
    }
    let committed = |output: &bitcoin::TxOut| {
        let script = output.script_pubkey.as_bytes();
        script.starts_with(&COMMITMENT_HEAD)
    };
    if !coinbase.output.iter().any(committed) {
        // A witness without a commitment is no block.
        coinbase
            .input
            .iter_mut()
            .for_each(|input| input.witness.clear());
    }
    let template = Header {
        prev_blockhash: parent,
        ..block.header
    };
    let twin = seal(template, block.txdata)?;
    Ok(Frame::decode(Bytes::from(consensus::serialize(&twin)))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use crate::offline::BlockList;
    use crate::offline::spent::Coins;

    #[test]
    fn a_twin_has_another_hash_and_takes_no_more_than_it_may() {
        let list = BlockList::devnet(10).unwrap();
        let mut coins = Coins::default();
        for index in 0..110 {
            coins
                .connect(&list.frame(index).unwrap(), index as u32)
                .unwrap();
        }
        let frame = list.frame(110).unwrap();
        let parent = frame.header.prev_blockhash;
        for keep in [1, 3, frame.tx_count()] {
            let twin = twin(&frame, parent, keep, list.params.subsidy(110)).unwrap();
            assert_ne!(twin.hash, frame.hash);
            assert_eq!(twin.tx_count(), keep);
            let block: Block = consensus::deserialize(&twin.raw).unwrap();
            assert!(block.check_merkle_root() && block.check_witness_commitment());
            let spent = coins.connect(&twin, 110).unwrap();
            let outputs: u64 = twin.columns.outputs.values.iter().sum();
            assert!(spent.total() + list.params.subsidy(110) >= outputs);
            coins.disconnect().unwrap();
        }
    }
}
