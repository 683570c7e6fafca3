//! What blocks spend, worked out from the blocks themselves: no other plugin is needed for the column `spent`.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, bail};
use bitcoin::hashes::Hash;

use crate::frame::{Frame, Spent};
use crate::mempool::{self, CoinLookup};
use crate::store::is_unspendable;

/// Blocks that can be disconnected.
const DEPTH: usize = 32;

/// Blocks whose times make a median time past (BIP113).
const MEDIAN_OF: usize = 11;

type OutPoint = ([u8; 32], u32);

#[derive(Clone)]
struct Coin {
    value: u64,
    script: Box<[u8]>,
    height: u32,
    coinbase: bool,
}

/// One thing that a block did.
enum Change {
    /// It made a coin, in place of another one where the txid is a repeated one (BIP30).
    Made(OutPoint, Option<Coin>),
    Spent(OutPoint, Coin),
}

/// Every unspent output of the blocks so far, in memory.
#[derive(Default)]
pub(super) struct Coins {
    coins: HashMap<OutPoint, Coin>,
    /// What the last blocks did, in order.
    undo: Vec<Vec<Change>>,
    /// The blocks' own times by height, unix seconds.
    times: BTreeMap<u32, u32>,
}

impl CoinLookup for Coins {
    fn coin(&self, outpoint: &bitcoin::OutPoint) -> Result<Option<mempool::Coin>> {
        let key = (outpoint.txid.to_byte_array(), outpoint.vout);
        Ok(self.coins.get(&key).map(|coin| mempool::Coin {
            value: coin.value,
            height: coin.height,
            coinbase: coin.coinbase,
            script: bitcoin::ScriptBuf::from_bytes(coin.script.to_vec()),
        }))
    }

    fn median_time_at(&self, height: u32) -> Result<u32> {
        let mut times: Vec<u32> = self
            .times
            .range(..=height)
            .rev()
            .take(MEDIAN_OF)
            .map(|(_, time)| *time)
            .collect();
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied();
        median.with_context(|| format!("the blocks do not reach down to {height}"))
    }
}

impl Coins {
    /// Takes a block in and says what it spends.
    ///
    /// # Errors
    ///
    /// When it spends what no block before it made: the blocks do not begin with the first.
    pub(super) fn connect(&mut self, frame: &Frame, height: u32) -> Result<Spent> {
        let mut spent = Spent::default();
        let mut undo = Vec::new();
        let columns = &frame.columns;
        let (txs, inputs, outputs) = (&columns.transactions, &columns.inputs, &columns.outputs);
        let txids = txs.txids.as_chunks::<32>().0;
        let sources = inputs.prev_txids.as_chunks::<32>().0;
        let (mut input, mut output) = (0, 0);
        for (index, txid) in txids.iter().enumerate() {
            let input_end = end(&txs.input_ends, index)?;
            let output_end = end(&txs.output_ends, index)?;
            for at in input..input_end {
                let coin = match index {
                    // The coinbase spends nothing.
                    0 => None,
                    _ => {
                        let txid = *sources.get(at).context("an input has no outpoint")?;
                        let vout = *inputs
                            .prev_vouts
                            .get(at)
                            .context("an input has no outpoint")?;
                        let Some(coin) = self.coins.remove(&(txid, vout)) else {
                            let txid = bitcoin::Txid::from_byte_array(txid);
                            bail!(
                                "block {height} spends output {vout} of {txid}, which no block before it has: the plugin asks \
                                 for the column `spent`, so the blocks must begin with the first of the chain"
                            );
                        };
                        undo.push(Change::Spent((txid, vout), coin.clone()));
                        Some(coin)
                    }
                };
                spent
                    .values
                    .push(coin.as_ref().map_or(0, |coin| coin.value));
                spent
                    .heights
                    .push(coin.as_ref().map_or(0, |coin| coin.height));
                let coinbase = coin.as_ref().is_some_and(|coin| coin.coinbase);
                spent.coinbases.push(u8::from(coinbase));
                if let Some(coin) = coin {
                    spent.scripts.extend_from_slice(&coin.script);
                }
                spent.script_ends.push(u32::try_from(spent.scripts.len())?);
            }
            for at in output..output_end {
                let from = match at.checked_sub(1) {
                    Some(before) => end(&outputs.script_ends, before)?,
                    None => 0,
                };
                let script = outputs.scripts.get(from..end(&outputs.script_ends, at)?);
                let script = script.context("an output has no script")?;
                // The genesis block's coinbase never became a coin.
                if is_unspendable(script) || height == 0 {
                    continue;
                }
                let outpoint = (*txid, u32::try_from(at - output)?);
                let coin = Coin {
                    value: *outputs.values.get(at).context("an output has no value")?,
                    script: script.into(),
                    height,
                    coinbase: index == 0,
                };
                let old = self.coins.insert(outpoint, coin);
                undo.push(Change::Made(outpoint, old));
            }
            (input, output) = (input_end, output_end);
        }
        self.undo.push(undo);
        self.times.insert(height, frame.header.time);
        if self.undo.len() > 2 * DEPTH {
            self.undo.drain(..DEPTH);
        }
        Ok(spent)
    }

    /// Takes the last block back.
    ///
    /// # Errors
    ///
    /// When it is too long ago.
    pub(super) fn disconnect(&mut self) -> Result<()> {
        let undo = self.undo.pop().context("too many blocks taken back")?;
        self.times.pop_last();
        for change in undo.into_iter().rev() {
            match change {
                Change::Made(outpoint, None) => drop(self.coins.remove(&outpoint)),
                Change::Made(outpoint, Some(coin)) | Change::Spent(outpoint, coin) => {
                    self.coins.insert(outpoint, coin);
                }
            }
        }
        Ok(())
    }
}

fn end(ends: &[u32], index: usize) -> Result<usize> {
    let end = ends.get(index).context("a column is too short")?;
    Ok(*end as usize)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use crate::offline::BlockList;

    fn contents(coins: &Coins) -> Vec<(OutPoint, u64, u32)> {
        let mut all: Vec<_> = coins
            .coins
            .iter()
            .map(|(outpoint, coin)| (*outpoint, coin.value, coin.height))
            .collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn what_goes_in_comes_out_with_the_fees_and_blocks_taken_back_leave_no_trace() {
        let list = BlockList::devnet(20).unwrap();
        let mut coins = Coins::default();
        let mut before = Vec::new();
        for index in 0..list.len() {
            before.push(contents(&coins));
            let frame = list.frame(index).unwrap();
            let spent = coins.connect(&frame, index as u32).unwrap();
            spent.check(frame.columns.inputs.prev_vouts.len()).unwrap();
            let outputs: u64 = frame.columns.outputs.values.iter().sum();
            let minted = if index == 0 {
                outputs
            } else {
                list.params.subsidy(index as u32)
            };
            assert_eq!(spent.total() + minted, outputs, "block {index}");
            for height in [0, index / 2, index] {
                assert_eq!(
                    coins.median_time_at(height as u32).unwrap(),
                    list.median_time(height),
                    "the median time at {height}, seen from {index}"
                );
            }
        }
        for index in (list.len() - 20..list.len()).rev() {
            coins.disconnect().unwrap();
            assert_eq!(contents(&coins), before[index], "block {index}");
        }
    }

    #[test]
    fn blocks_that_do_not_begin_with_the_first_are_refused() {
        let list = BlockList::devnet(20).unwrap();
        let mut coins = Coins::default();
        let failed = (110..121).find_map(|index| {
            let frame = list.frame(index).unwrap();
            coins.connect(&frame, index as u32).err()
        });
        assert!(
            failed
                .unwrap()
                .to_string()
                .contains("must begin with the first")
        );
    }
}
