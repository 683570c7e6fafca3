//! Everything a log holds, in memory.

use std::collections::{BTreeMap, HashMap};

use super::index_file::Record;

/// Where a payload lies. Offsets fit: a frame begins below the segment limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
    pub(super) height: u32,
    pub(super) crc: u32,
}

/// What is known of one segment.
#[derive(Debug, Default)]
pub(super) struct Segment {
    pub(super) bytes: u64,
    pub(super) max_height: Option<u32>,
}

/// Everything held, in memory.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    pub(super) places: HashMap<[u8; 32], Place, foldhash::fast::RandomState>,
    /// How many blocks of each height are held: side branches share heights.
    pub(super) heights: BTreeMap<u32, u32>,
    pub(super) segments: BTreeMap<u32, Segment>,
    pub(super) bytes: u64,
}

impl Catalog {
    pub(super) fn height_of(&self, hash: &[u8; 32]) -> Option<u32> {
        self.places.get(hash).map(|place| place.height)
    }

    /// Takes a record; a second one for the same hash stands for the first.
    pub(super) fn insert(&mut self, record: &Record) {
        let Ok(offset) = u32::try_from(record.offset) else {
            return;
        };
        let place = Place {
            segment: record.segment,
            offset,
            length: record.length,
            height: record.height,
            crc: record.crc,
        };
        self.forget(&record.hash);
        self.places.insert(record.hash, place);
        *self.heights.entry(record.height).or_default() += 1;
        let segment = self.segments.entry(record.segment).or_default();
        segment.max_height = segment.max_height.max(Some(record.height));
    }

    pub(super) fn forget(&mut self, hash: &[u8; 32]) {
        if let Some(place) = self.places.remove(hash) {
            self.forget_height(place.height);
        }
    }

    fn forget_height(&mut self, height: u32) {
        if let Some(count) = self.heights.get_mut(&height) {
            *count -= 1;
            if *count == 0 {
                self.heights.remove(&height);
            }
        }
    }

    pub(super) fn grow(&mut self, segment: u32, bytes: u64) {
        self.segments.entry(segment).or_default().bytes += bytes;
        self.bytes += bytes;
    }

    /// The lowest height from which every height up to `top` is held.
    pub(super) fn contiguous_from(&self, top: u32) -> Option<u32> {
        let mut lowest = None;
        let mut expected = Some(top);
        for (&height, _) in self.heights.range(..=top).rev() {
            if Some(height) != expected {
                break;
            }
            lowest = Some(height);
            expected = height.checked_sub(1);
        }
        lowest
    }

    /// Forgets one segment.
    pub(super) fn forget_segment(&mut self, segment: u32) {
        let mut gone = Vec::new();
        self.places.retain(|_, place| {
            let stays = place.segment != segment;
            if !stays {
                gone.push(place.height);
            }
            stays
        });
        for height in gone {
            self.forget_height(height);
        }
        if let Some(segment) = self.segments.remove(&segment) {
            self.bytes = self.bytes.saturating_sub(segment.bytes);
        }
    }

    /// Forgets every segment up to `last`, and answers how many blocks were in them.
    pub(super) fn forget_segments_until(&mut self, last: u32) -> u64 {
        let mut gone = Vec::new();
        self.places.retain(|_, place| {
            let stays = place.segment > last;
            if !stays {
                gone.push(place.height);
            }
            stays
        });
        for height in &gone {
            self.forget_height(*height);
        }
        self.segments = self.segments.split_off(&last.saturating_add(1));
        self.bytes = self.segments.values().map(|segment| segment.bytes).sum();
        gone.len() as u64
    }
}
