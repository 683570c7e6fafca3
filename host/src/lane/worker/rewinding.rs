//! A lane goes back to a block that the chain has.

use super::{Position, REMEMBERED, StoreError, Worker};
use anyhow::Result;

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
        let target = {
            let chain = self.lane.feed.chain();
            while self
                .recent
                .back()
                .is_some_and(|&last| !chain.contains(last))
            {
                self.recent.pop_back();
            }
            self.recent.back().map(|last| last.height).or(height)
        };
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
