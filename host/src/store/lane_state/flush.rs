//! A lane's unflushed changes made durable.
//!
//! A small flush is one engine batch: values, removals, undo records, pruned undo records and the cursor, synced.
//! A large one (the first sync) is loaded as sorted tables, which costs a fraction: the undo records go first, synced;
//! then the tables with all values, removals and the cursor become visible in one step. That step is the commit: after a
//! crash before it, the undo records above the cursor are dropped when the lane is opened.

use std::time::Duration;

use fjall::{OwnedWriteBatch, PersistMode};

use super::{LaneState, oldest_kept};
use crate::store::Cursor;
use crate::store::error::StoreError;
use crate::store::overlay::Dirty;
use crate::store::state::CURSOR_KEY;

/// Tables that may lie side by side, each of them to be searched by a read, before the next ones are loaded.
const MAX_LOOSE_TABLES: usize = 20;
/// How long, and how often, to wait for fewer.
const COMPACTION_WAIT: Duration = Duration::from_millis(10);
const COMPACTION_WAITS: usize = 1_000;

impl LaneState {
    /// Makes everything committed durable. A block left open is dropped. When this fails the overlay is as before, and it
    /// can be tried again.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        self.abort_block();
        if self.disk.is_fork() {
            // What a fork changes stays in memory.
            return Ok(());
        }
        let Some(cursor) = self.cursor else {
            // No block yet: what the plugin wrote when it started is written again when it starts again.
            return Ok(());
        };
        let oldest = oldest_kept(cursor.height, self.undo_depth);
        let stale = |height: &u32| *height < oldest || *height > cursor.height;
        let pruned: Vec<u32> = self.disk_undo.iter().copied().filter(stale).collect();
        let kept: Vec<u32> = self
            .pending_undo
            .keys()
            .copied()
            .filter(|height| *height >= oldest)
            .collect();

        self.settle()?;
        let dirty = self.overlay.dirty();
        if dirty.len() >= self.bulk_changes {
            self.flush_bulk(cursor, &dirty, &kept, &pruned)?;
        } else if !dirty.is_empty() || self.cursor != self.flushed || !pruned.is_empty() {
            self.flush_batch(cursor, &dirty, &kept, &pruned)?;
        }
        drop(dirty);
        for height in &pruned {
            self.disk_undo.remove(height);
        }
        self.disk_undo.extend(kept);
        self.pending_undo.clear();
        self.pending_undo_bytes = 0;
        self.flushed = self.cursor;
        self.overlay.clear(false);
        Ok(())
    }

    /// Forgets the removals of keys that the disk never had: most coins are created and spent between two flushes.
    pub(super) fn settle(&mut self) -> Result<(), StoreError> {
        let removals = self.overlay.unsure();
        let state = &self.disk;
        // In the order of the keys, so that the engine's filters are walked through once.
        let on_disk = removals
            .iter()
            .map(|removal| state.contains_key(self.overlay.key(removal.at)))
            .collect::<Result<Vec<_>, _>>()?;
        self.overlay.settle(&removals, &on_disk);
        Ok(())
    }

    fn write_undo(&self, batch: &mut OwnedWriteBatch, kept: &[u32], pruned: &[u32]) {
        for height in pruned {
            batch.remove(&self.disk.keyspaces().undo, height.to_be_bytes());
        }
        for (height, record) in kept
            .iter()
            .filter_map(|height| self.pending_undo.get_key_value(height))
        {
            batch.insert(
                &self.disk.keyspaces().undo,
                height.to_be_bytes(),
                record.as_slice(),
            );
        }
    }

    /// Everything in one engine batch.
    fn flush_batch(
        &self,
        cursor: Cursor,
        dirty: &[Dirty],
        kept: &[u32],
        pruned: &[u32],
    ) -> Result<(), StoreError> {
        let state = &self.disk.keyspaces().state;
        let mut batch = self.shared.db.batch();
        for change in dirty {
            let key = self.overlay.key(change.at);
            if self.overlay.holds_value(change.at) {
                batch.insert(state, key, self.overlay.value(change.at));
            } else {
                batch.remove(state, key);
            }
        }
        self.write_undo(&mut batch, kept, pruned);
        batch.insert(state, CURSOR_KEY, cursor.to_bytes());
        Ok(batch.durability(Some(PersistMode::SyncAll)).commit()?)
    }

    /// Undo records in a batch, then everything else as sorted tables.
    fn flush_bulk(
        &self,
        cursor: Cursor,
        dirty: &[Dirty],
        kept: &[u32],
        pruned: &[u32],
    ) -> Result<(), StoreError> {
        let mut batch = self.shared.db.batch();
        self.write_undo(&mut batch, kept, &[]);
        batch.durability(Some(PersistMode::SyncAll)).commit()?;

        self.wait_for_compaction();
        let mut tables = self.disk.keyspaces().state.start_ingestion()?;
        for change in dirty {
            let key = self.overlay.key(change.at);
            if self.overlay.holds_value(change.at) {
                tables.write(key, self.overlay.value(change.at))?;
            } else {
                tables.write_tombstone(key)?;
            }
        }
        tables.write(CURSOR_KEY, cursor.to_bytes())?;
        tables.finish()?;

        // From here on the flush has happened: a record that stays behind is dropped by the next one.
        let mut batch = self.shared.db.batch();
        self.write_undo(&mut batch, &[], pruned);
        Ok(batch.commit()?)
    }

    /// Waits, for a while, until the engine has merged what was loaded before: it slows its own writes down when too many
    /// tables lie side by side, but not the loading of tables.
    fn wait_for_compaction(&self) {
        for _ in 0..COMPACTION_WAITS {
            if self.disk.keyspaces().state.l0_table_count() < MAX_LOOSE_TABLES {
                return;
            }
            std::thread::sleep(COMPACTION_WAIT);
        }
    }
}
