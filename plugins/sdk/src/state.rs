//! The plugin's own key-value space.
//!
//! Keys are 1 to 255 bytes and sorted byte by byte; values are at most 16 MiB. Writes are seen by later reads at once and
//! belong to the block that is being handled: the host takes them back with it. Writing is allowed in `start` and
//! `on_block`. A call costs about a tenth of a microsecond and more; the `_many` calls do a block's thousands of keys at
//! once and cost a tenth of as many single ones.

pub use crate::bindings::blockmill::plugin::state::{FoundValues, Keys, Page};
use crate::columns::piece;
use crate::wire::Pieces;

#[cfg(target_arch = "wasm32")]
use crate::bindings::blockmill::plugin::state as host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::host::state as host;

/// The value at a key.
pub fn get(key: &[u8]) -> Option<Vec<u8>> {
    host::get(key)
}

/// Sets the value at a key.
pub fn put(key: &[u8], value: &[u8]) {
    host::put(key, value);
}

/// Removes a key.
pub fn delete(key: &[u8]) {
    host::delete(key);
}

/// Reads and removes a key.
pub fn take(key: &[u8]) -> Option<Vec<u8>> {
    host::take(key)
}

/// The values at many keys, in their order.
pub fn get_many(keys: &Keys) -> FoundValues {
    host::get_many(keys)
}

/// Sets many keys: `values` has one for each.
pub fn put_many(keys: &Keys, values: &Pieces) {
    host::put_many(keys, values);
}

/// Removes many keys.
pub fn delete_many(keys: &Keys) {
    host::delete_many(keys);
}

/// Reads and removes many keys, one after the other: a key that is given twice is found once.
pub fn take_many(keys: &Keys) -> FoundValues {
    host::take_many(keys)
}

/// Entries whose keys begin with `prefix`, after the key `after` if given, at most `limit` (and at most 10,000 or 4 MiB).
pub fn scan(prefix: &[u8], after: Option<&[u8]>, limit: u32) -> Page {
    host::scan(prefix, after, limit)
}

/// Calls `each` with every entry whose key begins with `prefix`, in the order of the keys, until it answers false.
pub fn scan_all(prefix: &[u8], mut each: impl FnMut(&[u8], &[u8]) -> bool) {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = scan(prefix, after.as_deref(), 10_000);
        for (key, value) in page.iter() {
            if !each(key, value) {
                return;
            }
        }
        match page.keys.len().checked_sub(1) {
            Some(last) if page.more => after = Some(page.keys.get(last).to_vec()),
            _ => return,
        }
    }
}

impl Keys {
    /// Keys that all have `width` bytes, 1 to 255.
    pub fn fixed(width: u32) -> Self {
        Keys {
            width,
            ends: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Keys of any length.
    pub fn any() -> Self {
        Keys::fixed(0)
    }

    /// Adds a key. One that does not have the width of the others stops the plugin.
    #[inline]
    pub fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        if self.width == 0 {
            self.ends.push(self.bytes.len() as u32);
        } else {
            assert!(
                key.len() == self.width as usize,
                "a key has another width than its columns"
            );
        }
    }

    /// Adds a key that `write` appends to the bytes it is given (and to which it may do nothing but append).
    #[inline]
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        if self.width == 0 {
            self.ends.push(self.bytes.len() as u32);
        } else {
            assert!(
                self.bytes.len() == start + self.width as usize,
                "a key has another width than its columns"
            );
        }
    }

    /// Removes the keys and keeps the memory.
    pub fn clear(&mut self) {
        self.ends.clear();
        self.bytes.clear();
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        match self.width {
            0 => self.ends.len(),
            width => self.bytes.len() / width as usize,
        }
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl FoundValues {
    /// The answers in the order of the keys that were asked for.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Option<&[u8]>> + Clone {
        let mut start = 0;
        self.found.iter().zip(&self.ends).map(move |(found, end)| {
            let end = *end as usize;
            let value = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            (*found != 0).then_some(value)
        })
    }

    /// The answer to the key at `index`.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        (*self.found.get(index)? != 0).then(|| piece(&self.bytes, &self.ends, index))
    }
}

impl Page {
    /// Keys and values in the order of the keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.keys.iter().zip(self.values.iter())
    }
}
