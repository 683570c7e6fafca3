//! A lane goes back to a block that the chain has.

use super::{Position, REMEMBERED, StoreError, Worker};
use crate::lane::active_chain::ActiveChain;
use anyhow::Result;
use std::collections::VecDeque;

impl Worker {
    pub(super) fn remember(&mut self, position: Position) {
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(position);
    }

    /// Goes back to the last block at or below `height` that the chain has.
    pub(super) fn rewind(&mut self, height: Option<u32>) -> Result<()> {
        self.vacate();
        // Both stores go back from one block, so that rows of blocks below the fork are not lost.
        self.flush_if_due(true)?;
        let from = self.cursor();
        let target = fork(&mut self.recent, height, &self.lane.feed.chain()).or(height);
        let (name, rows_name) = (self.name().to_owned(), self.lane.rows_name());
        let rows_store = self.lane.stores.rows.clone();
        let base = self.lane.feed.base();
        let (state, rows) = self.stores()?;
        let rewound = match target {
            Some(target) => match state.rewind(target) {
                // What it began with cannot be taken back, and the blocks to begin anew are not here.
                Err(StoreError::Rewind(error)) if base.is_some() => {
                    anyhow::bail!(
                        "the state began with a snapshot, and the chain has left its block ({error}): it waits for the chain to \
                         come back; or begin again in another data folder, with a snapshot of this chain"
                    );
                }
                Err(StoreError::Rewind(error)) => {
                    tracing::warn!(plugin = name, %error, "built anew from the first block");
                    None
                }
                other => other?,
            },
            None => None,
        };
        match rewound {
            Some(cursor) => rows_store.rewind(&rows_name, Some(cursor))?,
            None => {
                rows.clear();
                state.reset()?;
                rows_store.empty(&rows_name)?;
            }
        }
        let cursor = rewound.map(Position::from);
        if self.gives_coins() {
            self.lane.feed.set_coins(cursor);
        }
        tracing::info!(
            plugin = name,
            from = from.map(|p| p.height),
            to = cursor.map(|p| p.height),
            "rewound for a reorg"
        );
        self.publish()?;
        let mut status = self.lane.shared.lock();
        (status.cursor, status.flushed) = (cursor, cursor);
        Ok(())
    }
}

/// The last block at or below `highest` that a lane remembers and the chain has; what it remembers above is forgotten. There may
/// be blocks in it that the lane was taken back from: their rows could not be stored.
fn fork(recent: &mut VecDeque<Position>, highest: Option<u32>, chain: &ActiveChain) -> Option<u32> {
    let above = |last: Position| highest.is_none_or(|highest| last.height > highest);
    while recent
        .back()
        .is_some_and(|&last| above(last) || !chain.contains(last))
    {
        recent.pop_back();
    }
    recent.back().map(|last| last.height)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use crate::lane::active_chain::tests::block;

    fn at(height: u32, branch: u8) -> Position {
        let (hash, _) = block(height, branch, 0);
        Position { height, hash }
    }

    #[test]
    fn a_lane_goes_back_below_its_block_though_the_chain_has_one_that_it_was_taken_back_from() {
        let mut chain = ActiveChain::default();
        for height in 0..=6 {
            let (hash, header) = block(height, 0, height);
            chain.push(hash, &header);
        }
        // Block 5 could not be stored, and was left for another one, which the chain has left in turn.
        let mut recent = VecDeque::from([at(3, 0), at(4, 0), at(5, 0), at(5, 1)]);
        assert_eq!(fork(&mut recent, Some(4), &chain), Some(4));
        assert_eq!(recent, [at(3, 0), at(4, 0)]);
        // Two blocks on the other branch.
        let mut recent = VecDeque::from([at(4, 0), at(5, 0), at(5, 1), at(6, 1)]);
        assert_eq!(fork(&mut recent, Some(5), &chain), Some(5));
        let mut recent = VecDeque::from([at(5, 1), at(6, 1)]);
        assert_eq!(fork(&mut recent, Some(5), &chain), None);
    }
}
