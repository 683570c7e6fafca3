//! The pool's way after the coins: from block to block, back in a reorg, and what was left before it started.

use super::{Feed, Lookup, PoolWorker, Position, unix_time};
use crate::frame::Frame;
use crate::mempool::{Mempool, Tip};
use crate::plugin::WantedColumns;
use anyhow::{Context, Result};
use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Txid};

/// Blocks that are remembered to find the fork of a reorg.
const REMEMBERED: usize = 1_000;
/// A pool that is further behind the coins lane than this starts again at its block: what it holds is checked again.
const MAX_CATCH_UP: u32 = 1_000;

impl PoolWorker {
    /// The coins stand at this block before anything moves them.
    #[must_use]
    pub fn from_block(mut self, position: Option<Position>) -> Self {
        self.before = position;
        self
    }

    /// Looks at where the coins are while the pool has not started, and takes back what was left since.
    pub(super) fn watch(&mut self, position: Position) {
        let Some(before) = self.before else {
            let is_known = self.feed.chain().contains(position);
            self.before = Some(position).filter(|_| is_known);
            return;
        };
        let left = {
            let chain = self.feed.chain();
            // A lane that goes back and comes again leaves nothing.
            if chain.contains(position) && position.height > before.height {
                self.before = Some(position);
            }
            !chain.contains(before)
        };
        if !left {
            return;
        }
        let pool = self.pool.clone();
        let mut at = before;
        for _ in 0..REMEMBERED {
            match self.take_back(&mut pool.pool(), at) {
                Ok(Some(below)) => at = below,
                Ok(None) => break,
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(height = at.height, %error, "what a block held does not come back into the memory pool");
                    break;
                }
            }
            if self.feed.chain().contains(at) {
                break;
            }
        }
        let chain = self.feed.chain();
        let known = [at, position].into_iter();
        self.before = known
            .filter(|at| chain.contains(*at))
            .max_by_key(|at| at.height);
    }

    /// Takes the transactions of a block back, unless they are too many. Answers with the block below it.
    pub(super) fn take_back(
        &self,
        pool: &mut Mempool,
        position: Position,
    ) -> Result<Option<Position>> {
        if self.feed.large(position).is_some() {
            return Ok(None);
        }
        let frame = Frame::decode_without_txids(self.feed.raw(position)?)
            .context("a block in the block log is damaged")?;
        let raws = frame
            .columns
            .layouts()
            .iter()
            .map(|layout| frame.raw.slice(layout.whole()));
        pool.disconnect_block(raws);
        let hash = frame.header.prev_blockhash;
        let below = position.height.checked_sub(1);
        Ok(below.map(|height| Position { height, hash }))
    }

    /// Brings the pool from the block it is at to the block that the coins are at.
    pub(super) fn follow(
        &mut self,
        pool: &mut Mempool,
        to: Position,
        coins: &Lookup,
        tip: Tip,
    ) -> Result<()> {
        // The pool starts.
        if self.followed.is_empty() {
            self.followed.push_back(to);
        }
        while let Some(&last) = self.followed.back() {
            if self.feed.chain().contains(last) && last.height <= to.height {
                break;
            }
            let below = match self.feed.has_block(&last.hash) {
                true => self.take_back(pool, last)?,
                false => None,
            };
            let Some(below) = below else {
                pool.lost_track();
                self.followed.clear();
                break;
            };
            self.followed.pop_back();
            // The pool began above the fork.
            if self.followed.is_empty() {
                self.followed.push_back(below);
            }
        }
        let from = self.followed.back().map(|last| last.height + 1);
        let from = from.filter(|from| can_catch_up(&self.feed, *from, to.height));
        if let Some(from) = from {
            for height in from..=to.height {
                let Some(hash) = self.feed.chain().hash_at(height) else {
                    break;
                };
                let position = Position { height, hash };
                if self.feed.large(position).is_some() {
                    let mut parts = self.feed.parts(position)?;
                    while let Some(part) = parts.next()? {
                        connect(pool, height, &part.run.frame, false);
                    }
                } else {
                    let (frame, _) = self.feed.frame(position, WantedColumns::default())?;
                    connect(pool, height, &frame, true);
                }
                self.followed.push_back(position);
            }
        }
        if from.is_none() || self.followed.back() != Some(&to) {
            // What happened in between is not known.
            pool.lost_track();
            self.followed.clear();
            self.followed.push_back(to);
        }
        while self.followed.len() > REMEMBERED {
            self.followed.pop_front();
        }
        self.unsettled = true;
        let settled = pool.settle(unix_time(), coins, tip);
        // What came in before it failed is on the disk with all else.
        self.save_soon |= settled.is_err();
        if self.journal.is_some() {
            let entered = settled.iter().flatten().filter_map(|txid| pool.get(txid));
            self.unwritten.extend(entered);
        }
        settled?;
        self.unsettled = false;
        if !std::mem::replace(&mut self.reloaded, true) {
            self.reload(pool, coins, tip);
        }
        Ok(())
    }
}

/// Whether all blocks that the pool has missed can be read, and are not too many. They may have been pruned: the pool waits while
/// the chain is behind, and pruning does not wait for it.
fn can_catch_up(feed: &Feed, from: u32, to: u32) -> bool {
    to.saturating_sub(from) <= MAX_CATCH_UP && (from..=to).all(|height| feed.keeps(height))
}

/// Tells the pool of a `whole` block's transactions, or of those of a part of one, which its coverage leaves out.
fn connect(pool: &mut Mempool, height: u32, frame: &Frame, whole: bool) {
    let columns = &frame.columns;
    let weights = &columns.transactions.weights;
    let mut start = 0;
    let outpoints: Vec<OutPoint> = columns
        .inputs
        .prev_txids
        .as_chunks()
        .0
        .iter()
        .zip(&columns.inputs.prev_vouts)
        .map(|(txid, &vout)| OutPoint {
            txid: Txid::from_byte_array(*txid),
            vout,
        })
        .collect();
    let transactions = columns
        .txids()
        .zip(columns.transactions.input_ends.iter().zip(weights))
        .map(|(txid, (&end, &weight))| {
            let spends = outpoints.get(start..end as usize).unwrap_or_default();
            start = end as usize;
            let txid = Txid::from_byte_array(*txid);
            (txid, u64::from(weight), spends.iter().copied())
        });
    if whole {
        // The coinbase is nobody's to announce.
        pool.hear_block(height, unix_time(), transactions.skip(1));
    } else {
        pool.connect_block(height, transactions.map(|(txid, _, spends)| (txid, spends)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use crate::lane::active_chain::tests::block;
    use crate::lane::feed::kept_blocks;

    #[test]
    fn a_pool_does_not_wait_for_blocks_that_were_pruned_while_the_host_was_behind() {
        let folder = tempfile::tempdir().unwrap();
        let feed = kept_blocks(folder.path(), 1_500, 300);
        assert!(can_catch_up(&feed, 300, 1_300));
        assert!(can_catch_up(&feed, 1_200, 1_499));
        assert!(!can_catch_up(&feed, 299, 1_200), "block 299 was pruned");
        assert!(!can_catch_up(&feed, 300, 1_301), "too many");
        assert!(feed.has_block(&block(300, 0, 0).0) && !feed.has_block(&block(299, 0, 0).0));
    }
}
