//! A lane's state branched off: another program tries there what the lane's own must not see.

use std::collections::BTreeMap;

use fjall::PersistMode;

use super::disk::Disk;
use super::{LaneState, StoreError};
use crate::store::state::{CURSOR_KEY, Shared, decode_cursor};
use std::sync::Arc;

/// Entries, and bytes, that are copied at a time.
const COPY_ENTRIES: usize = 10_000;
const COPY_BYTES: usize = 4 << 20;

impl LaneState {
    /// A fork of what the lane flushed last. Its lane may go on meanwhile.
    pub(in crate::store) fn fork(shared: Arc<Shared>, name: &str) -> Result<Self, StoreError> {
        let keyspaces = shared.keyspaces(name)?;
        let view = shared.db.snapshot();
        let disk = Disk::Fork(view, keyspaces);
        let cursor = decode_cursor(name, disk.get(&CURSOR_KEY)?)?;
        let mut undo = disk.undo_heights(name)?;
        undo.split_off(&cursor.map_or(0, |cursor| cursor.height + 1));
        Ok(Self::over(shared, name, disk, cursor, undo))
    }

    /// How many of the last blocks can be taken back, at most `wanted`.
    pub fn undoable(&self, wanted: u32) -> u32 {
        let Some(cursor) = self.cursor else {
            return 0;
        };
        // The first block of all is not counted: taking it back empties the state.
        let kept = (1..=cursor.height).rev().take_while(|height| {
            self.pending_undo.contains_key(height) || self.disk_undo.contains(height)
        });
        kept.take(wanted as usize).count() as u32
    }

    /// What was committed and is not flushed: the value of each changed key, `None` where it was removed. The state of a
    /// fork is what it began with and this.
    pub fn unflushed(&self) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
        let changes = self.overlay.dirty();
        let value = |at| {
            let held = self.overlay.holds_value(at);
            held.then(|| self.overlay.value(at).to_vec())
        };
        changes
            .iter()
            .map(|change| (self.overlay.key(change.at).to_vec(), value(change.at)))
            .collect()
    }

    /// Replaces all that is here by what `source` holds, its cursor included, durably. Nothing can be taken back after.
    ///
    /// # Errors
    ///
    /// When a store fails; the state is empty then.
    pub fn copy_from(&mut self, source: &mut Self) -> Result<(), StoreError> {
        self.reset()?;
        let Some(cursor) = source.cursor else {
            return Ok(());
        };
        let mut tables = self.disk.keyspaces().state.start_ingestion()?;
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = source.scan(&[], after.as_deref(), COPY_ENTRIES, COPY_BYTES)?;
            for (key, value) in page.iter() {
                tables.write(key, value)?;
            }
            after = page.iter().last().map(|(key, _)| key.to_vec()).or(after);
            if !page.more {
                break;
            }
        }
        tables.write(CURSOR_KEY, cursor.to_bytes())?;
        tables.finish()?;
        self.shared.db.persist(PersistMode::SyncAll)?;
        self.cursor = Some(cursor);
        self.flushed = self.cursor;
        self.overlay.clear(false);
        Ok(())
    }
}
