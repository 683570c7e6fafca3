//! A lane's state taken from elsewhere as a whole.

use fjall::PersistMode;

use super::{LaneState, check_key, check_value};
use crate::store::Cursor;
use crate::store::error::StoreError;
use crate::store::state::CURSOR_KEY;

/// Writes an entry.
type Write<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> fjall::Result<()>;

/// Takes the entries of a state in the order of their keys.
pub struct Loading<'a> {
    write: Write<'a>,
    last: Vec<u8>,
    count: u64,
    lane: String,
}

impl Loading<'_> {
    /// The next entry.
    ///
    /// # Errors
    ///
    /// When its key does not follow the one before, is too long, or the disk fails.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        check_key(key)?;
        check_value(value)?;
        if key <= self.last.as_slice() {
            return Err(StoreError::Corrupt {
                lane: self.lane.clone(),
                what: "its keys are not in order",
            });
        }
        (self.write)(key, value)?;
        self.last.clear();
        self.last.extend_from_slice(key);
        self.count += 1;
        Ok(())
    }

    /// How many entries were taken.
    pub fn count(&self) -> u64 {
        self.count
    }
}

impl LaneState {
    /// Replaces all that is here by what `give` puts, as of a block, durably. Nothing of it shows before `give` has
    /// succeeded; nothing can be taken back after.
    ///
    /// # Errors
    ///
    /// That of `give`, or of the store; the state is empty then.
    pub fn load<E: From<StoreError>>(
        &mut self,
        cursor: Cursor,
        give: impl FnOnce(&mut Loading<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.reset()?;
        let keyspaces = self.disk.keyspaces().clone();
        let loaded = || -> Result<(), E> {
            let mut tables = keyspaces
                .state
                .start_ingestion()
                .map_err(StoreError::from)?;
            give(&mut Loading {
                write: &mut |key, value| tables.write(key, value),
                last: Vec::new(),
                count: 0,
                lane: self.name.clone(),
            })?;
            tables
                .write(CURSOR_KEY, cursor.to_bytes())
                .and_then(|()| tables.finish())
                .map_err(StoreError::from)?;
            Ok(())
        };
        let done = loaded();
        if done.is_err() {
            self.reset()?;
            return done;
        }
        self.shared
            .db
            .persist(PersistMode::SyncAll)
            .map_err(StoreError::from)?;
        self.cursor = Some(cursor);
        self.flushed = self.cursor;
        self.overlay.clear(false);
        Ok(())
    }
}
