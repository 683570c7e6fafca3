//! What the open block did to the state, as its effect: what it would do to any copy of the same state.

use std::collections::BTreeMap;

use super::LaneState;
use crate::store::error::StoreError;
use crate::store::overlay::Lookup;

/// Keys and what they hold now; `None` for a key that was removed.
pub type StateChanges = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

impl LaneState {
    /// The keys that hold something else than before the open block. A key that was written and got back what it held is
    /// not among them: how a plugin came to its state is its own affair. To be asked before the block is committed.
    ///
    /// # Errors
    ///
    /// When the disk cannot be read.
    pub fn block_changes(&self) -> Result<StateChanges, StoreError> {
        // A key may come twice: what it held before the block is its first mention.
        let mut changes = StateChanges::new();
        let mut unchanged = Vec::new();
        for (_, key, prior) in self.overlay.changes() {
            if changes.contains_key(key) {
                continue;
            }
            let on_disk;
            let before = match prior {
                Lookup::Value(value) => Some(value),
                Lookup::Absent => None,
                Lookup::Unknown => {
                    on_disk = self.disk.get(key)?;
                    on_disk.as_deref()
                }
            };
            let now = match self.overlay.get(key) {
                Lookup::Value(value) => Some(value.to_vec()),
                Lookup::Absent => None,
                Lookup::Unknown => self.disk.get(key)?.map(|value| value.to_vec()),
            };
            if now.as_deref() == before {
                unchanged.push(key.to_vec());
            }
            changes.insert(key.to_vec(), now);
        }
        for key in unchanged {
            changes.remove(&key);
        }
        Ok(changes)
    }
}
