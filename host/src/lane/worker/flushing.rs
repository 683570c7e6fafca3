//! What a lane has gathered goes to the disk, and is shown to queries.

use super::{MAX_ROW_BYTES, Position, Worker};
use anyhow::Result;
use std::time::Instant;

impl Worker {
    /// Flushes at the tip, and behind it when enough has gathered.
    pub(super) fn flush_if_due(&mut self, tip: bool) -> Result<()> {
        let (cache, interval) = (
            self.lane.settings.state_cache,
            self.lane.settings.flush_interval,
        );
        let since = self.last_flush.elapsed();
        let (state, rows) = self.stores()?;
        let clean = state.cursor() == state.flushed_cursor() && rows.is_empty();
        if clean {
            return Ok(());
        }
        if tip || state.dirty_bytes() >= cache || rows.bytes() >= MAX_ROW_BYTES || since >= interval
        {
            self.flush()?;
        }
        Ok(())
    }

    /// Makes everything committed durable: first the logs that it refers to, then the rows, then the state.
    pub(super) fn flush(&mut self) -> Result<()> {
        let began = Instant::now();
        let name = self.lane.rows_name();
        let (feed, store) = (self.lane.feed.clone(), self.lane.stores.rows.clone());
        let (state, rows) = self.stores()?;
        let Some(cursor) = state.cursor() else {
            return Ok(());
        };
        // Twice: in the stores, and in their logs.
        feed.check_room(2 * (state.dirty_bytes() + rows.bytes()) as u64)?;
        feed.sync()?;
        let synced = Instant::now();
        let written = rows.anchored_rows();
        store.flush(&name, rows, Some(cursor))?;
        let rows_done = Instant::now();
        state.flush()?;
        let dirty = state.dirty_bytes();
        let done = Instant::now();
        self.lane.metrics.rows.inc_by(written as u64);
        self.lane.metrics.rows_flush.observe(rows_done - synced);
        self.lane.metrics.state_flush.observe(done - rows_done);
        self.last_flush = done;
        self.publish()?;
        if let Some(announced) = self.announced.take() {
            self.lane.committed.observe(announced.elapsed());
        }
        {
            let mut status = self.lane.shared.lock();
            status.flushed = Some(cursor.into());
            status.cursor = Some(cursor.into());
            status.flushed_at = Some(done);
            status.dirty = dirty;
            status.flush_time += done - began;
        }
        feed.wake();
        Ok(())
    }

    /// Lets queries see the state as it is on disk now.
    pub(super) fn publish(&mut self) -> Result<()> {
        let shared = self.lane.shared.clone();
        let (coins, program) = (self.gives_coins(), self.program.clone());
        let feed = self.lane.feed.clone();
        let (state, _) = self.stores()?;
        let snapshot = state.snapshot()?;
        let cursor = state.cursor().map(Position::from);
        let flushed = snapshot.cursor().map(Position::from);
        shared.publish(program, snapshot);
        let mut status = shared.lock();
        (status.cursor, status.flushed) = (cursor, flushed);
        drop(status);
        if coins {
            feed.set_coins(cursor);
        }
        Ok(())
    }
}
