//! A lane's own state: block by block into memory, to the disk in bulk, and back by the undo journal.

mod changes;
mod disk;
mod flush;
mod fork;
mod load;
mod rewind;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Deref};
use std::sync::Arc;

use self::disk::Disk;
use fjall::{PersistMode, Slice};

use super::columns::{Keys, ScanPage, ValueColumn, Values};
use super::error::{ArgumentError, StoreError};
use super::overlay::{Lookup, Overlay, WARM};
use super::snapshot::{StateSnapshot, prefix_range};
use super::state::{CURSOR_KEY, LaneKeyspaces, Shared, UNDO_DEPTH, decode_cursor};
use super::undo::UndoWriter;
use super::{Cursor, MAX_KEY, MAX_VALUE};

pub use changes::StateChanges;
pub use load::Loading;

/// From this many changes on a flush is loaded as tables. Below it the engine's journal, one sequential write and one
/// sync, is quicker than making files.
const BULK_CHANGES: usize = 20_000;
/// The overlay addresses 32 GiB; it refuses changes some way before.
const MAX_OVERLAY: usize = 24 << 30;
/// Removals of keys that the disk may or may not hold are looked up there when there are more than this, so that what is
/// created and removed between two flushes does not fill the overlay.
const MAX_UNSURE: usize = 1 << 15;
/// Keys read ahead by one thread: fewer are not worth a second one.
const PREFETCH_SPLIT: usize = 64;

/// A value, in the overlay's memory or read from disk.
#[derive(Debug)]
pub enum Value<'a> {
    /// From the overlay.
    Memory(&'a [u8]),
    /// From the disk.
    Disk(Slice),
}

impl Deref for Value<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::Disk(bytes) => bytes,
        }
    }
}

/// The state of one plugin, owned by its lane's thread.
pub struct LaneState {
    shared: Arc<Shared>,
    name: String,
    disk: Disk,
    overlay: Overlay,
    /// The last block committed, flushed or not.
    cursor: Option<Cursor>,
    /// The last block flushed.
    flushed: Option<Cursor>,
    /// Undo records of blocks that are not flushed, by height.
    pending_undo: BTreeMap<u32, Vec<u8>>,
    pending_undo_bytes: usize,
    /// Heights whose undo records are on disk.
    disk_undo: BTreeSet<u32>,
    undo_depth: u32,
    in_block: bool,
    /// Writes that the open block may still make, where one is to be cut.
    writes_left: Option<u64>,
    bulk_changes: usize,
}

impl LaneState {
    pub(super) fn open(
        shared: Arc<Shared>,
        name: &str,
        mut keyspaces: LaneKeyspaces,
    ) -> Result<Self, StoreError> {
        let cursor = decode_cursor(name, keyspaces.state.get(CURSOR_KEY)?)?;
        if cursor.is_none() && !(keyspaces.state.is_empty()? && keyspaces.undo.is_empty()?) {
            // A reset that was interrupted after it took the cursor away.
            keyspaces = shared.recreate(name)?;
        }
        let disk = Disk::Lane(keyspaces.clone());
        let mut disk_undo = disk.undo_heights(name)?;
        let above = cursor.map_or(0, |cursor| cursor.height + 1);
        let stale = disk_undo.split_off(&above);
        if !stale.is_empty() {
            let mut batch = shared.db.batch();
            stale
                .iter()
                .for_each(|height| batch.remove(&keyspaces.undo, height.to_be_bytes()));
            batch.durability(Some(PersistMode::SyncAll)).commit()?;
        }
        Ok(Self::over(shared, name, disk, cursor, disk_undo))
    }

    fn over(
        shared: Arc<Shared>,
        name: &str,
        disk: Disk,
        cursor: Option<Cursor>,
        disk_undo: BTreeSet<u32>,
    ) -> Self {
        Self {
            shared,
            name: name.to_owned(),
            disk,
            overlay: Overlay::new(cursor.is_none()),
            cursor,
            flushed: cursor,
            pending_undo: BTreeMap::new(),
            pending_undo_bytes: 0,
            disk_undo,
            undo_depth: UNDO_DEPTH,
            in_block: false,
            writes_left: None,
            bulk_changes: BULK_CHANGES,
        }
    }

    /// The plugin's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The last block committed, whether flushed or not.
    pub fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }

    /// The last block flushed: where the lane goes on after a crash.
    pub fn flushed_cursor(&self) -> Option<Cursor> {
        self.flushed
    }

    /// How many blocks can be undone, at least; older undo records are dropped by a flush.
    pub fn set_undo_depth(&mut self, blocks: u32) {
        self.undo_depth = blocks;
    }

    /// From how many changes on a flush is loaded as sorted tables.
    #[doc(hidden)]
    pub fn set_bulk_changes(&mut self, changes: usize) {
        self.bulk_changes = changes;
    }

    /// Makes the open block fail after so many writes, as if the disk did: for tests of what a plugin makes of a call that
    /// ends in its middle. Over when the block is closed.
    pub fn cut_after(&mut self, writes: u64) {
        self.writes_left = Some(writes);
    }

    /// Memory that unflushed changes, undo records and entries read ahead take, in bytes.
    pub fn dirty_bytes(&self) -> usize {
        self.overlay.bytes() + self.pending_undo_bytes
    }

    /// Bytes that the flushed state takes on disk, without undo records and the engine's journal.
    pub fn disk_bytes(&self) -> u64 {
        self.disk.keyspaces().state.disk_space()
    }

    /// A view of what is flushed.
    pub fn snapshot(&self) -> Result<StateSnapshot, StoreError> {
        StateSnapshot::new(
            self.shared.db.snapshot(),
            self.disk.keyspaces().state.clone(),
            &self.name,
        )
    }

    /// Opens a block: its changes can be aborted. Changes of a block left open are dropped.
    pub fn begin_block(&mut self) {
        self.abort_block();
        self.in_block = true;
    }

    /// The value of a key, with the open block's changes.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Value<'_>>, StoreError> {
        check_key(key)?;
        match self.overlay.get(key) {
            Lookup::Value(value) => Ok(Some(Value::Memory(value))),
            Lookup::Absent => Ok(None),
            Lookup::Unknown => Ok(self.disk.get(key)?.map(Value::Disk)),
        }
    }

    /// Sets a key.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.check_write(key)?;
        check_value(value)?;
        self.overlay.put(key, value);
        Ok(())
    }

    /// Removes a key.
    pub fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.check_write(key)?;
        if self.overlay.take(key) == Lookup::Unknown {
            self.overlay.bury(key);
        }
        Ok(())
    }

    /// Removes a key and gives what it held.
    pub fn take(&mut self, key: &[u8]) -> Result<Option<Value<'_>>, StoreError> {
        self.check_write(key)?;
        match self.overlay.take(key) {
            Lookup::Value(at) => Ok(Some(Value::Memory(self.overlay.value(at)))),
            Lookup::Absent => Ok(None),
            Lookup::Unknown => {
                let Some(value) = self.disk.get(key)? else {
                    return Ok(None);
                };
                // Kept in memory for the undo record.
                self.overlay.load(key, Some(&value));
                self.overlay.take(key);
                Ok(Some(Value::Disk(value)))
            }
        }
    }

    /// Appends the values of keys to a column.
    pub fn get_many(&mut self, keys: Keys<'_>, out: &mut ValueColumn) -> Result<(), StoreError> {
        keys.check()?;
        for (index, key) in keys.iter().enumerate() {
            self.warm(keys, index);
            let value = self.get(key)?;
            out.push(value.as_deref())?;
        }
        Ok(())
    }

    /// Removes keys and appends what they held to a column.
    pub fn take_many(&mut self, keys: Keys<'_>, out: &mut ValueColumn) -> Result<(), StoreError> {
        keys.check()?;
        for (index, key) in keys.iter().enumerate() {
            self.warm(keys, index);
            let value = self.take(key)?;
            out.push(value.as_deref())?;
        }
        Ok(())
    }

    /// Sets keys to the values of the same index.
    pub fn put_many(&mut self, keys: Keys<'_>, values: Values<'_>) -> Result<(), StoreError> {
        keys.check()?;
        values.check()?;
        if keys.len() != values.len() {
            return Err(ArgumentError::Counts {
                keys: keys.len(),
                values: values.len(),
            }
            .into());
        }
        for (index, (key, value)) in keys.iter().zip(values.iter()).enumerate() {
            self.warm(keys, index);
            self.put(key, value)?;
        }
        Ok(())
    }

    /// Removes keys.
    pub fn delete_many(&mut self, keys: Keys<'_>) -> Result<(), StoreError> {
        keys.check()?;
        for (index, key) in keys.iter().enumerate() {
            self.warm(keys, index);
            self.delete(key)?;
        }
        Ok(())
    }

    /// Touches the entries of the keys from `index` on, at every so many of them.
    #[inline]
    fn warm(&self, keys: Keys<'_>, index: usize) {
        if index.is_multiple_of(WARM) {
            self.overlay
                .warm((index..index + WARM).map_while(|index| keys.get(index)));
        }
    }

    /// Reads keys that only the disk knows into memory, on two threads, so that the next `get` or `take` of them does not
    /// wait. What is not found is remembered too. Counted in [`dirty_bytes`](Self::dirty_bytes) until the next flush.
    pub fn prefetch(&mut self, keys: Keys<'_>) -> Result<(), StoreError> {
        keys.check()?;
        if self.overlay.disk_empty() {
            return Ok(());
        }
        let mut missing: Vec<&[u8]> = keys
            .iter()
            .filter(|key| check_key(key).is_ok() && self.overlay.get(key) == Lookup::Unknown)
            .collect();
        // In the order of the disk, so that a piece of a filter or an index is looked at once for all its keys.
        missing.sort_unstable();
        let state = &self.disk;
        let read = |keys: &[&[u8]]| {
            keys.iter()
                .map(|key| state.get(key))
                .collect::<Result<Vec<_>, _>>()
        };
        let found = if missing.len() < PREFETCH_SPLIT {
            read(&missing)?
        } else {
            let (first, second) = missing.split_at(missing.len() / 2);
            std::thread::scope(|scope| {
                let other = scope.spawn(|| read(second));
                let mut found = read(first)?;
                found.extend(
                    other
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?,
                );
                Ok::<_, StoreError>(found)
            })?
        };
        for (key, value) in missing.iter().zip(found) {
            self.overlay.load(key, value.as_deref());
        }
        Ok(())
    }

    /// The entries whose keys begin with `prefix`, in order, after the key `after` when one is given, with the open
    /// block's changes: at most `limit_entries` and about `limit_bytes`, but at least one where there is one.
    pub fn scan(
        &mut self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit_entries: usize,
        limit_bytes: usize,
    ) -> Result<ScanPage, StoreError> {
        self.overlay.order();
        let (from, to) = prefix_range(prefix, after);
        let memory_from = match &from {
            Bound::Included(key) => Bound::Included(key.as_slice()),
            Bound::Excluded(key) => Bound::Excluded(key.as_slice()),
            Bound::Unbounded => Bound::Unbounded,
        };
        let mut memory = self
            .overlay
            .range(memory_from)
            .take_while(|(key, _)| key.starts_with(prefix))
            .peekable();
        let mut disk = (!self.overlay.disk_empty())
            .then(|| self.disk.range((from.clone(), to)))
            .into_iter()
            .flatten()
            .map(fjall::Guard::into_inner)
            .filter(|entry| entry.as_ref().map_or(true, |(key, _)| key.len() <= MAX_KEY))
            .peekable();
        let mut page = ScanPage::default();
        loop {
            let before = match (memory.peek(), disk.peek()) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (_, Some(Err(_))) | (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((memory, _)), Some(Ok((disk, _)))) => (*memory).cmp(disk),
            };
            let fits = if before.is_gt() {
                let Some(entry) = disk.next() else { break };
                let (key, value) = entry?;
                page.push(&key, &value, limit_entries, limit_bytes)?
            } else {
                if before.is_eq() {
                    // What the overlay says of a key covers the disk.
                    disk.next();
                }
                match memory.next() {
                    Some((key, Some(value))) => {
                        page.push(key, value, limit_entries, limit_bytes)?
                    }
                    Some((_, None)) => true,
                    None => break,
                }
            };
            if !fits {
                break;
            }
        }
        Ok(page)
    }

    /// Closes the block and keeps its changes. With `journal` its undo record is kept, so that it can be rewound.
    pub fn commit_block(&mut self, cursor: Cursor, journal: bool) -> Result<(), StoreError> {
        if let Some(last) = self.cursor
            && last.height.checked_add(1) != Some(cursor.height)
        {
            return Err(StoreError::OutOfOrder {
                last: last.height,
                next: cursor.height,
            });
        }
        if journal {
            let record = self.undo_record()?;
            self.pending_undo_bytes += record.len();
            self.pending_undo.insert(cursor.height, record);
            // What a flush would not write need not be kept.
            let oldest = oldest_kept(cursor.height, self.undo_depth);
            while let Some(entry) = self
                .pending_undo
                .first_entry()
                .filter(|entry| *entry.key() < oldest)
            {
                self.pending_undo_bytes -= entry.remove().len();
            }
        }
        self.overlay.commit();
        self.cursor = Some(cursor);
        self.in_block = false;
        self.writes_left = None;
        if self.overlay.unsure_count() > MAX_UNSURE
            && let Err(error) = self.settle()
        {
            // The block is in; the next flush tries again and reports.
            tracing::warn!(plugin = self.name, error = %error, "state could not be looked up");
        }
        Ok(())
    }

    /// Closes a block that is none: what a plugin wrote when it started. The cursor stays, and nothing is journaled.
    pub fn commit_start(&mut self) {
        self.overlay.commit();
        self.in_block = false;
    }

    /// Closes the block and drops its changes: the state is what it was before [`begin_block`](Self::begin_block).
    pub fn abort_block(&mut self) {
        self.overlay.abort();
        self.in_block = false;
        self.writes_left = None;
    }

    /// What the open block's keys held before it.
    fn undo_record(&mut self) -> Result<Vec<u8>, StoreError> {
        let mut record = UndoWriter::new(self.cursor);
        let mut learned = Vec::new();
        for (at, key, prior) in self.overlay.changes() {
            match prior {
                Lookup::Value(value) => record.change(key, Some(value)),
                Lookup::Absent => record.change(key, None),
                Lookup::Unknown => {
                    let value = self.disk.get(key)?;
                    learned.push((at, value.is_some()));
                    record.change(key, value.as_deref());
                }
            }
        }
        for (at, on_disk) in learned {
            self.overlay.learn(at, on_disk);
        }
        Ok(record.finish())
    }

    /// Drops everything that is not flushed and gives the cursor that is left.
    pub fn discard_unflushed(&mut self) -> Option<Cursor> {
        self.in_block = false;
        self.overlay.clear(self.flushed.is_none());
        self.pending_undo.clear();
        self.pending_undo_bytes = 0;
        self.cursor = self.flushed;
        self.cursor
    }

    /// Empties the state. The cursor goes first: when this is interrupted, the next opening finishes it.
    pub fn reset(&mut self) -> Result<(), StoreError> {
        self.remove_cursor()?;
        self.flushed = None;
        self.discard_unflushed();
        self.disk_undo.clear();
        if !self.disk.is_fork() {
            self.disk = Disk::Lane(self.shared.recreate(&self.name)?);
        }
        Ok(())
    }

    /// The first step of a reset, durable.
    pub(super) fn remove_cursor(&self) -> Result<(), StoreError> {
        if self.disk.is_fork() {
            return Ok(());
        }
        let mut batch = self.shared.db.batch();
        batch.remove(&self.disk.keyspaces().state, CURSOR_KEY);
        Ok(batch.durability(Some(PersistMode::SyncAll)).commit()?)
    }

    fn check_write(&mut self, key: &[u8]) -> Result<(), StoreError> {
        if !self.in_block {
            return Err(ArgumentError::NoOpenBlock.into());
        }
        if let Some(left) = &mut self.writes_left {
            *left = left.checked_sub(1).ok_or(StoreError::Cut)?;
        }
        if self.overlay.bytes() > MAX_OVERLAY {
            return Err(StoreError::OverlayFull {
                bytes: self.overlay.bytes(),
            });
        }
        Ok(check_key(key)?)
    }
}

impl Drop for LaneState {
    fn drop(&mut self) {
        if !self.disk.is_fork() {
            self.shared.release(&self.name);
        }
    }
}

/// The lowest height whose undo record is kept when the cursor is at `height`.
fn oldest_kept(height: u32, depth: u32) -> u32 {
    (height + 1).saturating_sub(depth)
}

/// Whether bytes can be a key.
pub(crate) fn check_key(key: &[u8]) -> Result<(), ArgumentError> {
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(ArgumentError::Key {
            len: key.len(),
            max: MAX_KEY,
        });
    }
    Ok(())
}

/// Whether bytes can be a value.
pub(crate) fn check_value(value: &[u8]) -> Result<(), ArgumentError> {
    if value.len() > MAX_VALUE {
        return Err(ArgumentError::Value {
            len: value.len(),
            max: MAX_VALUE,
        });
    }
    Ok(())
}
