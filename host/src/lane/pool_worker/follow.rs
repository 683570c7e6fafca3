//! The pool's way after the coins: from block to block, back in a reorg, and what was left before it started.

use super::{Lookup, PoolWorker, Position, unix_time};
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
            let Some(below) = self.take_back(pool, last)? else {
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
        let from = from.filter(|from| to.height.saturating_sub(*from) <= MAX_CATCH_UP);
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
