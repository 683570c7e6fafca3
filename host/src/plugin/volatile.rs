//! The space of a plugin that depends on the memory pool: in memory, seen by queries at once, emptied at every reset.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Bytes of keys and values that a plugin's volatile space may hold.
pub const MAX_VOLATILE: usize = 16 << 20;

#[derive(Default)]
struct Entries {
    values: HashMap<Vec<u8>, Arc<[u8]>>,
    bytes: usize,
}

/// Shared between a lane, which writes it, and the queries, which read it.
#[derive(Clone, Default)]
pub struct Volatile(Arc<RwLock<Entries>>);

impl Volatile {
    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<Arc<[u8]>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values
            .get(key)
            .cloned()
    }

    /// Sets a key; false when the space would hold more than [`MAX_VOLATILE`].
    pub fn put(&self, key: Vec<u8>, value: &[u8]) -> bool {
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let old = entries
            .values
            .get(&key)
            .map_or(0, |old| key.len() + old.len());
        let bytes = entries.bytes - old + key.len() + value.len();
        if bytes > MAX_VOLATILE {
            return false;
        }
        entries.bytes = bytes;
        entries.values.insert(key, value.into());
        true
    }

    /// Removes a key.
    pub fn delete(&self, key: &[u8]) {
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = entries.values.remove(key) {
            entries.bytes -= key.len() + old.len();
        }
    }

    /// Removes everything.
    pub fn clear(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Entries::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_space_holds_its_bound_and_counts_what_is_replaced_and_removed() {
        let space = Volatile::default();
        let half = vec![0; MAX_VOLATILE / 2];
        assert!(space.put(b"a".to_vec(), &half));
        assert!(
            !space.put(b"b".to_vec(), &half),
            "two halves and their keys are too much"
        );
        assert!(
            space.put(b"a".to_vec(), &half),
            "a value takes its own place"
        );
        space.delete(b"a");
        assert!(space.get(b"a").is_none());
        assert!(space.put(b"b".to_vec(), &half));
        space.clear();
        assert!(space.get(b"b").is_none());
        assert!(space.put(b"a".to_vec(), &vec![0; MAX_VOLATILE - 1]));
    }
}
