//! What a plugin reads during a call, kept so that the call can be run again elsewhere.
//!
//! Recording is off while nothing fails: a read then costs one look at a flag. It is switched on for the retry of a block
//! that failed, and off again as soon as the block is taken.

use crate::lane::Position;
use crate::store::{Keys, ScanPage, ValueColumn};
use bitcoin::BlockHash;
use bitcoin::block::Header;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A part of the key space of which everything is known: the keys from `from` on, below `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRange {
    pub from: Vec<u8>,
    /// None: to the end of all keys.
    pub to: Option<Vec<u8>>,
    /// A key that the scan would have shown next lies behind `to`.
    pub continues: bool,
}

/// A header that a plugin asked for, and the median time of its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownHeader {
    pub hash: BlockHash,
    pub header: Header,
    pub median_time: u32,
}

/// What was read: the state as it was before the call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recording {
    /// Keys that were read, with what they held.
    pub values: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// What scans went over.
    pub ranges: Vec<KnownRange>,
    /// Keys of the volatile space that were read.
    pub volatile: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Headers that were asked for, by height; none where there is none.
    pub headers: BTreeMap<u32, Option<KnownHeader>>,
    /// There was more than may be kept: what came after is missing.
    pub truncated: bool,
    /// Keys that the call itself has written: what they hold now is not what they held before.
    written: HashSet<Vec<u8>>,
    volatile_written: HashSet<Vec<u8>>,
    bytes: usize,
}

impl Recording {
    /// Bytes that are kept, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is room for so many bytes more.
    fn grow(&mut self, more: usize, limit: usize) -> bool {
        self.bytes += more;
        self.truncated |= self.bytes > limit;
        !self.truncated
    }

    fn read(&mut self, key: &[u8], value: Option<&[u8]>, limit: usize) {
        if self.written.contains(key) || self.values.contains_key(key) {
            return;
        }
        if self.grow(key.len() + value.map_or(0, <[u8]>::len) + 16, limit) {
            self.values.insert(key.to_vec(), value.map(<[u8]>::to_vec));
        }
    }

    fn wrote(&mut self, key: &[u8], limit: usize) {
        if !self.written.contains(key) && self.grow(key.len() + 16, limit) {
            self.written.insert(key.to_vec());
        }
    }

    fn scanned(&mut self, prefix: &[u8], after: Option<&[u8]>, page: &ScanPage, limit: usize) {
        for (key, value) in page.iter() {
            self.read(key, Some(value), limit);
        }
        let from = match after {
            Some(after) if after >= prefix => successor(after),
            _ => prefix.to_vec(),
        };
        let to = match page.last_key() {
            Some(last) if page.more => Some(successor(last)),
            _ => end_of(prefix),
        };
        if self.grow(from.len() + to.as_ref().map_or(0, Vec::len) + 16, limit) {
            self.ranges.push(KnownRange {
                from,
                to,
                continues: page.more,
            });
        }
    }
}

/// The first key behind a key.
fn successor(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// The first key behind all that begin with a prefix.
fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// Records the reads of a plugin's instances while it is armed.
#[derive(Default)]
pub struct Recorder {
    armed: AtomicBool,
    recording: Mutex<(Recording, usize)>,
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, (Recording, usize)> {
        self.recording
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Records from now on, up to so many bytes; what was recorded before is dropped.
    pub fn arm(&self, limit: usize) {
        *self.lock() = (Recording::default(), limit);
        self.armed.store(true, Ordering::Relaxed);
    }

    /// Records no more, and drops what was recorded.
    pub fn disarm(&self) {
        if self.armed.swap(false, Ordering::Relaxed) {
            *self.lock() = Default::default();
        }
    }

    /// Whether it records.
    pub fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    /// What was recorded, if it records; it records no more.
    pub fn take(&self) -> Option<Recording> {
        let armed = self.armed.swap(false, Ordering::Relaxed);
        armed.then(|| std::mem::take(&mut *self.lock()).0)
    }

    fn with(&self, record: impl FnOnce(&mut Recording, usize)) {
        if self.is_armed() {
            let (recording, limit) = &mut *self.lock();
            if !recording.truncated {
                record(recording, *limit);
            }
        }
    }

    pub(super) fn read(&self, key: &[u8], value: Option<&[u8]>) {
        self.with(|recording, limit| recording.read(key, value, limit));
    }

    pub(super) fn wrote(&self, key: &[u8]) {
        self.with(|recording, limit| recording.wrote(key, limit));
    }

    pub(super) fn read_many(&self, keys: Keys<'_>, values: &ValueColumn) {
        self.with(|recording, limit| {
            for (index, key) in keys.iter().enumerate() {
                recording.read(key, values.get(index), limit);
            }
        });
    }

    pub(super) fn wrote_many(&self, keys: Keys<'_>) {
        self.with(|recording, limit| keys.iter().for_each(|key| recording.wrote(key, limit)));
    }

    /// Of two equal keys the second is not there any more: it is not what was there before.
    pub(super) fn took_many(&self, keys: Keys<'_>, values: &ValueColumn) {
        self.with(|recording, limit| {
            for (index, key) in keys.iter().enumerate() {
                recording.read(key, values.get(index), limit);
                recording.wrote(key, limit);
            }
        });
    }

    pub(super) fn scanned(&self, prefix: &[u8], after: Option<&[u8]>, page: &ScanPage) {
        self.with(|recording, limit| recording.scanned(prefix, after, page, limit));
    }

    pub(super) fn read_volatile(&self, key: &[u8], value: Option<&[u8]>) {
        self.with(|recording, limit| {
            let known =
                recording.volatile_written.contains(key) || recording.volatile.contains_key(key);
            let bytes = key.len() + value.map_or(0, <[u8]>::len) + 16;
            if !known && recording.grow(bytes, limit) {
                let value = value.map(<[u8]>::to_vec);
                recording.volatile.insert(key.to_vec(), value);
            }
        });
    }

    pub(super) fn wrote_volatile(&self, key: &[u8]) {
        self.with(|recording, limit| {
            if recording.grow(key.len() + 16, limit) {
                recording.volatile_written.insert(key.to_vec());
            }
        });
    }

    pub(super) fn header(&self, height: u32, header: Option<KnownHeader>) {
        self.with(|recording, limit| {
            if recording.grow(128, limit) {
                recording.headers.insert(height, header);
            }
        });
    }
}

/// Where a plugin's view of the chain comes from: the host's feed, or a capsule.
pub trait HeaderSource: Send + Sync {
    /// The header at a height of the chain that `tip` is in, not above it.
    fn header(&self, tip: Position, height: u32) -> Option<KnownHeader>;

    /// Whether no header means that there is none: a capsule may not know.
    fn tells(&self, _height: u32) -> bool {
        true
    }

    /// The time in the header of a block, in unix seconds, also of one whose branch was left.
    fn time_of(&self, block: Position) -> Option<u32> {
        let known = self.header(block, block.height)?;
        Some(known.header.time)
    }
}

impl HeaderSource for crate::lane::Feed {
    fn header(&self, tip: Position, height: u32) -> Option<KnownHeader> {
        let chain = self.chain();
        // A lane that has not yet followed a reorg must not see the other branch.
        if height > tip.height || !chain.contains(tip) {
            return None;
        }
        let hash = chain.hash_at(height)?;
        let (header, median_time) = chain.header_at(height)?;
        Some(KnownHeader {
            hash,
            header,
            median_time,
        })
    }

    fn time_of(&self, block: Position) -> Option<u32> {
        if let Some(known) = self.header(block, block.height) {
            return Some(known.header.time);
        }
        // A branch that was left, and the plugin was not told yet.
        let raw = self.raw(block).ok()?;
        let header: Header = bitcoin::consensus::deserialize(raw.get(..80)?).ok()?;
        Some(header.time)
    }
}

impl HeaderSource for BTreeMap<u32, Option<KnownHeader>> {
    fn header(&self, tip: Position, height: u32) -> Option<KnownHeader> {
        self.get(&height)
            .copied()
            .flatten()
            .filter(|_| height <= tip.height)
    }

    fn tells(&self, height: u32) -> bool {
        self.contains_key(&height)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn what_is_recorded_is_the_state_before_the_call() {
        let recorder = Recorder::default();
        recorder.read(b"early", Some(b"1"));
        assert!(recorder.take().is_none(), "it was not armed");
        recorder.arm(1_000);
        recorder.read(b"a", Some(b"1"));
        recorder.read(b"a", Some(b"2"));
        recorder.wrote(b"b");
        recorder.read(b"b", Some(b"mine"));
        recorder.read(b"c", None);
        let recording = recorder.take().unwrap();
        assert_eq!(recording.values.len(), 2);
        assert_eq!(recording.values[&b"a"[..]].as_deref(), Some(&b"1"[..]));
        assert_eq!(recording.values[&b"c"[..]], None);
        assert!(!recorder.is_armed());
    }

    #[test]
    fn more_than_the_bound_is_not_kept_and_said() {
        let recorder = Recorder::default();
        recorder.arm(100);
        recorder.read(b"a", Some(&[0; 50]));
        recorder.read(b"b", Some(&[0; 50]));
        let recording = recorder.take().unwrap();
        assert!(recording.truncated);
        assert_eq!(recording.values.len(), 1);
    }

    #[test]
    fn the_end_of_a_prefix_is_behind_all_its_keys() {
        assert_eq!(end_of(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(end_of(&[1, 255]), Some(vec![2]));
        assert_eq!(end_of(&[255]), None);
        assert_eq!(end_of(b""), None);
    }
}
