//! A lane at the tip: indexes, and the changes of the pool.

use super::{Given, LaneKind, LaneStage, MempoolInput, Position, QUIET, Step, Worker};
use anyhow::Result;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

impl Worker {
    pub(super) fn at_tip(&mut self, cursor: Option<Position>) -> Result<Step> {
        // Peers may be slow, or gone, long before the tip: queries should not wait for what is there.
        let quiet = self.last_block.elapsed() >= QUIET;
        self.flush_if_due(cursor.is_some_and(|at| quiet || self.lane.feed.settled(at.height)))?;
        let Some(cursor) = cursor else {
            return Ok(Step::Idle(LaneStage::Starting));
        };
        if self.lane.kind == LaneKind::Building {
            return Ok(Step::Idle(LaneStage::Following));
        }
        if self.lane.feed.synced() && !self.indexes_built {
            let began = Instant::now();
            let name = self.lane.shared.name();
            if !self.lane.stores.rows.indexes_built(name)? {
                self.lane.stores.rows.build_indexes(name)?;
                tracing::info!(plugin = name, took = ?began.elapsed(), "indexes built");
            }
            self.indexes_built = true;
        }
        let wanted = self.program.descriptor.mempool;
        let Some(pool) = self.lane.pool.clone().filter(|_| wanted) else {
            return Ok(Step::Idle(LaneStage::Following));
        };
        self.instance()?;
        let Some(batch) = pool.take(self.lane.shared.name(), cursor.height) else {
            return Ok(Step::Idle(LaneStage::Following));
        };
        let wanted = self.program.descriptor.columns;
        let input = MempoolInput {
            changes: &batch.changes,
            reset: batch.reset,
            time: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |t| t.as_secs()),
            height: batch.height,
            current: batch.current,
        };
        let instance = self.instance()?;
        instance.space_mut().rows.begin_block();
        if let Err(error) = instance.on_mempool(&input, wanted) {
            self.given = Some(Given::pool(&input));
            return Err(error.into());
        }
        let name = self.name().to_owned();
        let store = self.lane.stores.rows.clone();
        let (_, rows) = self.stores()?;
        if let Err(error) = store.flush(&name, rows, None) {
            self.given = Some(Given::pool(&input));
            return Err(error.into());
        }
        Ok(Step::Moved)
    }
}
