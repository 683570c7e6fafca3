//! A consistent view of a lane's state, for threads other than the lane's.

use std::ops::Bound;

use fjall::{Keyspace, Readable, Snapshot};

use super::columns::{Keys, ScanPage, ValueColumn};
use super::error::StoreError;
use super::state::{CURSOR_KEY, decode_cursor};
use super::{Cursor, MAX_KEY};

/// A lane's state as of a flush: nothing that the lane writes later shows. Cheap to clone; keep it for one task, because
/// what it sees cannot be compacted away meanwhile.
#[derive(Clone)]
pub struct StateSnapshot {
    view: Snapshot,
    state: Keyspace,
    cursor: Option<Cursor>,
}

impl StateSnapshot {
    pub(super) fn new(view: Snapshot, state: Keyspace, name: &str) -> Result<Self, StoreError> {
        // Read through the view, so that it is the cursor of what the view shows.
        let cursor = decode_cursor(name, view.get(&state, CURSOR_KEY)?)?;
        Ok(Self {
            view,
            state,
            cursor,
        })
    }

    /// The last block in this state; `None` before the first flush.
    pub fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<fjall::Slice>, StoreError> {
        if key.is_empty() || key.len() > MAX_KEY {
            return Ok(None);
        }
        Ok(self.view.get(&self.state, key)?)
    }

    /// Appends the values of keys to a column.
    pub fn get_many(&self, keys: Keys<'_>, out: &mut ValueColumn) -> Result<(), StoreError> {
        keys.check()?;
        for key in keys.iter() {
            out.push(self.get(key)?.as_deref())?;
        }
        Ok(())
    }

    /// The entries whose keys begin with `prefix`, in order, after the key `after` when one is given.
    pub fn iter_prefix(&self, prefix: &[u8], after: Option<&[u8]>) -> SnapshotIter {
        let (from, to) = prefix_range(prefix, after);
        SnapshotIter {
            inner: self.view.range(&self.state, (from, to)),
        }
    }

    /// One page of [`iter_prefix`](Self::iter_prefix): at most `limit_entries`, and about `limit_bytes` of keys and
    /// values, but at least one entry where there is one.
    pub fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit_entries: usize,
        limit_bytes: usize,
    ) -> Result<ScanPage, StoreError> {
        let mut page = ScanPage::default();
        for entry in self.iter_prefix(prefix, after) {
            let (key, value) = entry?;
            if !page.push(&key, &value, limit_entries, limit_bytes)? {
                break;
            }
        }
        Ok(page)
    }
}

/// Entries of a snapshot in the order of their keys.
pub struct SnapshotIter {
    inner: fjall::Iter,
}

impl Iterator for SnapshotIter {
    type Item = Result<(fjall::Slice, fjall::Slice), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.inner.next()?.into_inner() {
                // The cursor is not the plugin's.
                Ok((key, _)) if key.len() > MAX_KEY => {}
                entry => return Some(entry.map_err(StoreError::from)),
            }
        }
    }
}

/// Bounds of the keys that begin with `prefix` and follow `after`.
pub(super) fn prefix_range(
    prefix: &[u8],
    after: Option<&[u8]>,
) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let from = match after {
        Some(after) if after >= prefix => Bound::Excluded(after.to_vec()),
        _ => Bound::Included(prefix.to_vec()),
    };
    // The first key behind all that begin with the prefix: its last byte that is not 0xFF, plus one.
    let mut end = prefix.to_vec();
    let to = loop {
        match end.pop() {
            None => break Bound::Unbounded,
            Some(u8::MAX) => {}
            Some(byte) => {
                end.push(byte + 1);
                break Bound::Excluded(end);
            }
        }
    };
    // An empty range must not look like a reversed one.
    match (&from, &to) {
        (Bound::Excluded(start), Bound::Excluded(end)) if start >= end => {
            (Bound::Included(end.clone()), to)
        }
        _ => (from, to),
    }
}
