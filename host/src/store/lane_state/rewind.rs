//! A lane's state taken back, block by block, by the undo records.

use fjall::Slice;

use super::LaneState;
use crate::store::Cursor;
use crate::store::error::{RewindError, StoreError};
use crate::store::overlay::Lookup;
use crate::store::undo;

impl LaneState {
    /// Takes the state back to block `to_height`, block by block, and makes that durable. Gives the cursor that the state
    /// is at then: lower than asked for where blocks were never there, `None` before the first block. Nothing is changed
    /// when an undo record is missing. A block left open is dropped.
    pub fn rewind(&mut self, to_height: u32) -> Result<Option<Cursor>, StoreError> {
        self.abort_block();
        let Some(from) = self.cursor.filter(|cursor| cursor.height > to_height) else {
            return Ok(self.cursor);
        };
        self.check_undo(from.height, to_height)?;
        let undone = self.undo_blocks(to_height);
        match undone {
            // Before its first block a lane has no state: its plugin starts anew.
            Ok(None) => {
                self.reset()?;
                return Ok(None);
            }
            Ok(cursor) => {
                self.overlay.commit();
                self.cursor = cursor;
            }
            Err(error) => {
                self.overlay.abort();
                return Err(error);
            }
        }
        let above = self.cursor.map_or(0, |cursor| cursor.height + 1);
        for record in self.pending_undo.split_off(&above).values() {
            self.pending_undo_bytes -= record.len();
        }
        self.flush()?;
        Ok(self.cursor)
    }

    /// Whether every block above `to` can be undone.
    fn check_undo(&self, from: u32, to: u32) -> Result<(), StoreError> {
        let missing = (to + 1..=from).rev().find(|height| {
            !self.pending_undo.contains_key(height) && !self.disk_undo.contains(height)
        });
        let Some(missing) = missing else {
            return Ok(());
        };
        // The first block of all has nothing below it.
        if missing < from {
            let record = self.undo_bytes(missing + 1)?;
            let (before, _) =
                undo::decode_before(&record).ok_or_else(|| self.corrupt("an undo record"))?;
            if before.is_none() {
                return Ok(());
            }
        }
        Err(RewindError::NoUndo {
            lane: self.name.clone(),
            from,
            to,
            missing,
        }
        .into())
    }

    /// Undoes blocks in the overlay, as one open block.
    fn undo_blocks(&mut self, to_height: u32) -> Result<Option<Cursor>, StoreError> {
        let mut cursor = self.cursor;
        while let Some(at) = cursor.filter(|cursor| cursor.height > to_height) {
            let bytes = self.undo_bytes(at.height)?;
            let record = undo::decode(&bytes).ok_or_else(|| self.corrupt("an undo record"))?;
            for (key, value) in record.changes {
                match value {
                    Some(value) => self.overlay.put(key, value),
                    None => {
                        if self.overlay.take(key) == Lookup::Unknown {
                            self.overlay.bury(key);
                        }
                    }
                }
            }
            cursor = record.before;
        }
        Ok(cursor)
    }

    fn undo_bytes(&self, height: u32) -> Result<Slice, StoreError> {
        if let Some(record) = self.pending_undo.get(&height) {
            return Ok(record.as_slice().into());
        }
        self.disk
            .undo(height)?
            .ok_or_else(|| self.corrupt("an undo record"))
    }

    fn corrupt(&self, what: &'static str) -> StoreError {
        StoreError::Corrupt {
            lane: self.name.clone(),
            what,
        }
    }
}
