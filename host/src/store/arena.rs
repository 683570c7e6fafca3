//! The memory behind an overlay: keys with their values, one after the other in one buffer.
//!
//! A map with one heap block a key and one a value spends most of its time in the allocator. Here an entry is a span of
//! the buffer, freed spans are kept in lists by size, and coins, which are nearly all of a few sizes, reuse the spans of
//! the coins spent before them.
//!
//! An entry, in units of 8 bytes: value length u32, key length u16, flags u8, one spare byte, key, value.

// Offsets come from this file alone and never from outside data.
#![allow(clippy::indexing_slicing)]

/// Bytes of a unit: offsets count units, so that 32 bits reach 32 GiB.
const UNIT: usize = 8;
/// Bytes before the key.
const HEADER: usize = 8;
/// Up to this many units every size has a free list of its own; larger spans are rounded to powers of two.
const EXACT: usize = 64;
/// Free lists: exact sizes, then powers of two up to 2^32 units.
const CLASSES: usize = EXACT + 27;

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At(u32);

impl At {
    /// No entry.
    pub(super) const NONE: Self = Self(0);

    fn byte(self) -> usize {
        self.0 as usize * UNIT
    }

    /// Whether this is an entry.
    pub(super) fn is_some(self) -> bool {
        self.0 != 0
    }
}

/// The buffer and its free lists.
#[derive(Debug)]
pub(super) struct Arena {
    bytes: Vec<u8>,
    /// First free span of each class; a free span's first four bytes name the next one.
    free: [u32; CLASSES],
}

/// The free list of a span, and its units.
fn class(bytes: usize) -> (usize, usize) {
    let units = bytes.div_ceil(UNIT);
    if units <= EXACT {
        return (units, units);
    }
    let rounded = units.next_power_of_two();
    (
        EXACT + rounded.trailing_zeros() as usize - EXACT.trailing_zeros() as usize,
        rounded,
    )
}

impl Arena {
    /// An arena without memory.
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            free: [0; CLASSES],
        }
    }

    /// Bytes that the arena holds, freed spans included: what it costs.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets everything, and gives memory beyond `keep` bytes back.
    pub(super) fn clear(&mut self, keep: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(keep);
        self.free = [0; CLASSES];
    }

    /// Stores an entry. The caller bounds keys to `u16` and values to `u32` lengths, and the whole below 32 GiB.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8], flags: u8) -> At {
        let used = HEADER + key.len() + value.len();
        let (class, units) = class(used);
        let mut header = [0u8; HEADER];
        header[..4].copy_from_slice(&(value.len() as u32).to_le_bytes());
        header[4..6].copy_from_slice(&(key.len() as u16).to_le_bytes());
        header[6] = flags;
        let head = self.free[class];
        if head != 0 {
            let at = At(head);
            let span = &mut self.bytes[at.byte()..at.byte() + used];
            self.free[class] = u32::from_le_bytes([span[0], span[1], span[2], span[3]]);
            span[..HEADER].copy_from_slice(&header);
            span[HEADER..HEADER + key.len()].copy_from_slice(key);
            span[HEADER + key.len()..].copy_from_slice(value);
            return at;
        }
        if self.bytes.is_empty() {
            // Offset 0 stands for no entry.
            self.bytes.resize(UNIT, 0);
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.bytes.resize(start + units * UNIT, 0);
        At((start / UNIT) as u32)
    }

    /// Gives an entry's span back.
    pub(super) fn remove(&mut self, at: At) {
        let (key, value) = self.lengths(at);
        let (class, _) = class(HEADER + key + value);
        let start = at.byte();
        self.bytes[start..start + 4].copy_from_slice(&self.free[class].to_le_bytes());
        self.free[class] = at.0;
    }

    fn lengths(&self, at: At) -> (usize, usize) {
        let h = &self.bytes[at.byte()..at.byte() + HEADER];
        (
            u16::from_le_bytes([h[4], h[5]]) as usize,
            u32::from_le_bytes([h[0], h[1], h[2], h[3]]) as usize,
        )
    }

    /// An entry's key.
    #[inline]
    pub(super) fn key(&self, at: At) -> &[u8] {
        let (key, _) = self.lengths(at);
        let start = at.byte() + HEADER;
        &self.bytes[start..start + key]
    }

    /// An entry's value.
    #[inline]
    pub(super) fn value(&self, at: At) -> &[u8] {
        let (key, value) = self.lengths(at);
        let start = at.byte() + HEADER + key;
        &self.bytes[start..start + value]
    }

    /// Replaces a value by one of the same length; says whether the length was the same.
    pub(super) fn overwrite(&mut self, at: At, with: &[u8]) -> bool {
        let (key, value) = self.lengths(at);
        if value != with.len() {
            return false;
        }
        let start = at.byte() + HEADER + key;
        self.bytes[start..start + value].copy_from_slice(with);
        true
    }

    /// An entry's flags.
    #[inline]
    pub(super) fn flags(&self, at: At) -> u8 {
        self.bytes[at.byte() + 6]
    }

    /// Reads a little of an entry, so that its memory is near when it is used.
    #[inline]
    pub(super) fn touch(&self, at: At) -> u8 {
        let byte = at.byte();
        self.bytes[byte] ^ self.bytes.get(byte + 64).copied().unwrap_or(0)
    }

    /// Sets an entry's flags.
    pub(super) fn set_flags(&mut self, at: At, flags: u8) {
        let byte = at.byte() + 6;
        self.bytes[byte] = flags;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_spans_are_used_again_and_entries_keep_their_bytes() {
        let mut arena = Arena::new();
        let small = arena.add(b"key", b"value", 3);
        let large = arena.add(b"large", &[7; 5000], 1);
        assert_eq!(
            (arena.key(small), arena.value(small), arena.flags(small)),
            (&b"key"[..], &b"value"[..], 3)
        );
        let before = arena.len();
        arena.remove(large);
        arena.remove(small);
        let again = arena.add(b"larg2", &[8; 4900], 1);
        let other = arena.add(b"abc", b"other", 0);
        assert_eq!((again, other), (large, small));
        assert_eq!(arena.len(), before);
        assert_eq!(arena.value(again), &[8; 4900]);
        assert!(arena.overwrite(other, b"OTHER") && !arena.overwrite(other, b"longer"));
        assert_eq!(
            (arena.key(other), arena.value(other)),
            (&b"abc"[..], &b"OTHER"[..])
        );
    }
}
