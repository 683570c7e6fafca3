//! A frame as the checks of a block read it.

use super::Frame;
use crate::chain::BlockView;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use std::ops::Range;

/// The hash that stands for a missing one; every index that the checks use is one that the frame gave out.
const NONE: [u8; 32] = [0; 32];

fn range(ends: &[u32], index: usize) -> Range<usize> {
    let start = index
        .checked_sub(1)
        .and_then(|before| ends.get(before))
        .map_or(0, |&end| end as usize);
    let end = ends.get(index).map_or(start, |&end| end as usize);
    start..end
}

fn piece<'a>(ends: &[u32], bytes: &'a [u8], index: usize) -> &'a [u8] {
    bytes.get(range(ends, index)).unwrap_or_default()
}

impl BlockView for Frame {
    fn header(&self) -> &Header {
        &self.header
    }

    fn tx_count(&self) -> usize {
        self.columns.len()
    }

    fn txid(&self, tx: usize) -> [u8; 32] {
        self.columns
            .transactions
            .txids
            .as_chunks()
            .0
            .get(tx)
            .copied()
            .unwrap_or(NONE)
    }

    fn wtxid(&self, tx: usize) -> [u8; 32] {
        match self.columns.layout(tx) {
            // Without witnesses both ids are the same hash.
            Some(layout) if !layout.has_witness() => BlockView::txid(self, tx),
            Some(layout) => self.raw.get(layout.whole()).map_or(NONE, |raw| {
                bitcoin::hashes::sha256d::Hash::hash(raw).to_byte_array()
            }),
            None => NONE,
        }
    }

    fn tx_has_witness(&self, tx: usize) -> bool {
        self.columns
            .layout(tx)
            .is_some_and(|layout| layout.has_witness())
    }

    fn tx_total_size(&self, tx: usize) -> usize {
        self.columns
            .layout(tx)
            .map_or(0, |layout| layout.whole().len())
    }

    fn tx_stripped_size(&self, tx: usize) -> usize {
        self.columns
            .layout(tx)
            .map_or(0, |layout| layout.stripped_size() as usize)
    }

    fn version(&self, tx: usize) -> u32 {
        self.columns
            .transactions
            .versions
            .get(tx)
            .copied()
            .unwrap_or_default()
    }

    fn lock_time(&self, tx: usize) -> u32 {
        self.columns
            .transactions
            .lock_times
            .get(tx)
            .copied()
            .unwrap_or_default()
    }

    fn inputs(&self, tx: usize) -> Range<usize> {
        range(&self.columns.transactions.input_ends, tx)
    }

    fn prev_txid(&self, input: usize) -> &[u8; 32] {
        self.columns
            .inputs
            .prev_txids
            .as_chunks()
            .0
            .get(input)
            .unwrap_or(&NONE)
    }

    fn prev_vout(&self, input: usize) -> u32 {
        self.columns
            .inputs
            .prev_vouts
            .get(input)
            .copied()
            .unwrap_or_default()
    }

    fn sequence(&self, input: usize) -> u32 {
        self.columns
            .inputs
            .sequences
            .get(input)
            .copied()
            .unwrap_or_default()
    }

    fn script_sig(&self, input: usize) -> &[u8] {
        piece(
            &self.columns.inputs.script_ends,
            &self.columns.inputs.scripts,
            input,
        )
    }

    fn outputs(&self, tx: usize) -> Range<usize> {
        range(&self.columns.transactions.output_ends, tx)
    }

    fn value(&self, output: usize) -> u64 {
        self.columns
            .outputs
            .values
            .get(output)
            .copied()
            .unwrap_or_default()
    }

    fn script_pubkey(&self, output: usize) -> &[u8] {
        piece(
            &self.columns.outputs.script_ends,
            &self.columns.outputs.scripts,
            output,
        )
    }

    fn coinbase_witness_reserved(&self) -> Option<&[u8]> {
        let layout = self
            .columns
            .layout(0)
            .filter(|layout| layout.has_witness())?;
        // The coinbase has one input, so its witnesses are one stack: a count, then items with their lengths.
        let stack = self
            .raw
            .get(layout.outputs_end as usize..(layout.end as usize).checked_sub(4)?)?;
        match stack {
            [1, length, item @ ..] if usize::from(*length) == item.len() && *length < 0xfd => {
                Some(item)
            }
            _ => None,
        }
    }

    fn size(&self) -> usize {
        self.size as usize
    }
}
