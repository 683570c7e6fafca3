//! The changes of a lane that are not on disk yet, and what was read ahead for it.
//!
//! A block writes straight into the overlay; a log of the entries it replaced undoes it when it is aborted, and tells a
//! commit what the keys held before.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};
use std::ops::Bound;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::arena::{Arena, At};

/// The entry holds a value; without this flag the key is known to hold nothing.
const VALUE: u8 = 1;
/// The entry differs from the disk.
const DIRTY: u8 = 2;
/// The entry was written in the open block.
const OPEN: u8 = 4;
/// The disk is known to hold the key.
const ON_DISK: u8 = 8;
/// The disk is known not to hold the key.
const NOT_ON_DISK: u8 = 16;
/// Written and removed within the open block, where nothing was before: no trace is needed.
const CANCELLED: u8 = 32;

/// Keys whose entries are touched ahead of a bulk operation at once.
pub(super) const WARM: usize = 32;
/// Entries of an overlay that outgrows the processor's caches.
const WARM_FROM: usize = 1 << 13;
/// Memory kept by an overlay that was flushed, in bytes.
const KEEP: usize = 4 << 20;

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Half of the key's hash: enough to place the slot again and to tell nearly all keys apart without reading them.
    hash: u32,
    at: At,
}

impl Slot {
    fn place(&self) -> u64 {
        place(self.hash)
    }
}

/// Spreads half a hash over the bits that the table looks at.
fn place(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// One change of the open block: the entry written (or none: removed) and the entry it replaced (or none).
#[derive(Debug, Clone, Copy)]
struct Change {
    new: At,
    old: At,
}

/// What the overlay knows of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup<T> {
    /// It holds this.
    Value(T),
    /// It holds nothing, on disk either.
    Absent,
    /// The disk decides.
    Unknown,
}

/// A change to be flushed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dirty {
    /// The first eight bytes of the key, for sorting.
    prefix: u64,
    /// The entry.
    pub(super) at: At,
}

/// Unflushed changes and clean entries of a lane.
#[derive(Debug)]
pub(super) struct Overlay {
    table: HashTable<Slot>,
    arena: Arena,
    log: Vec<Change>,
    hasher: foldhash::fast::RandomState,
    /// The table's keys in order, made by the first scan since the last flush and kept up from then on. It may hold keys
    /// that are gone.
    ordered: Option<BTreeSet<Box<[u8]>>>,
    /// Whether the disk holds nothing at all, so that no key needs to be looked up there.
    disk_empty: bool,
    /// Removals of keys that the disk may or may not hold, since they were last looked up there; at most too high.
    unsure: usize,
}

impl Overlay {
    pub(super) fn new(disk_empty: bool) -> Self {
        Self {
            table: HashTable::new(),
            arena: Arena::new(),
            log: Vec::new(),
            hasher: foldhash::fast::RandomState::default(),
            ordered: None,
            disk_empty,
            unsure: 0,
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self, disk_empty: bool) {
        self.table.clear();
        self.table.shrink_to(KEEP / 64, Slot::place);
        self.arena.clear(KEEP);
        self.log = Vec::new();
        self.ordered = None;
        self.disk_empty = disk_empty;
        self.unsure = 0;
    }

    pub(super) fn disk_empty(&self) -> bool {
        self.disk_empty
    }

    /// Memory it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let ordered = self.ordered.as_ref().map_or(0, |keys| keys.len() * 80);
        self.arena.len()
            + self.table.allocation_size()
            + self.log.capacity() * size_of::<Change>()
            + ordered
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        (hasher.finish() >> 32) as u32
    }

    #[inline]
    fn find(&self, key: &[u8]) -> Option<At> {
        let hash = self.hash(key);
        self.table
            .find(place(hash), |slot| {
                slot.hash == hash && self.arena.key(slot.at) == key
            })
            .map(|slot| slot.at)
    }

    /// Where a missing entry is looked for.
    fn beyond<T>(&self) -> Lookup<T> {
        if self.disk_empty {
            Lookup::Absent
        } else {
            Lookup::Unknown
        }
    }

    /// Touches the memory of at most [`WARM`] keys' entries. One lookup waits for memory three times in a row; here the
    /// waits of many lookups overlap, which halves the time of a bulk operation.
    pub(super) fn warm<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) {
        if self.table.len() < WARM_FROM {
            return;
        }
        let mut found = [At::NONE; WARM];
        for (at, key) in found.iter_mut().zip(keys) {
            let hash = self.hash(key);
            if let Some(slot) = self.table.find(place(hash), |slot| slot.hash == hash) {
                *at = slot.at;
            }
        }
        let touched = found
            .iter()
            .filter(|at| at.is_some())
            .fold(0, |sum, at| sum ^ self.arena.touch(*at));
        std::hint::black_box(touched);
    }

    pub(super) fn get(&self, key: &[u8]) -> Lookup<&[u8]> {
        match self.find(key) {
            Some(at) if self.arena.flags(at) & VALUE != 0 => Lookup::Value(self.arena.value(at)),
            Some(_) => Lookup::Absent,
            None => self.beyond(),
        }
    }

    pub(super) fn value(&self, at: At) -> &[u8] {
        self.arena.value(at)
    }

    pub(super) fn key(&self, at: At) -> &[u8] {
        self.arena.key(at)
    }

    pub(super) fn holds_value(&self, at: At) -> bool {
        self.arena.flags(at) & VALUE != 0
    }

    /// Number of removals that [`unsure`](Self::unsure) gives, or more.
    pub(super) fn unsure_count(&self) -> usize {
        self.unsure
    }

    /// The removals of keys that the disk may or may not hold, in the order of their keys.
    pub(super) fn unsure(&self) -> Vec<Dirty> {
        self.sorted(|flags| flags & (VALUE | DIRTY | ON_DISK | NOT_ON_DISK) == DIRTY)
    }

    /// Notes that [`unsure`](Self::unsure) removals were looked up: those that the disk does not hold are forgotten. No
    /// block may be open.
    pub(super) fn settle(&mut self, removals: &[Dirty], on_disk: &[bool]) {
        for (removal, on_disk) in removals.iter().zip(on_disk) {
            if *on_disk {
                self.learn(removal.at, true);
                continue;
            }
            let key = self.arena.key(removal.at);
            let hash = self.hash(key);
            if let Ok(slot) = self
                .table
                .find_entry(place(hash), |slot| slot.at == removal.at)
            {
                slot.remove();
                self.arena.remove(removal.at);
            }
        }
        self.unsure = 0;
    }

    /// Notes whether the disk holds the entry's key.
    pub(super) fn learn(&mut self, at: At, on_disk: bool) {
        let flags = self.arena.flags(at) & !(ON_DISK | NOT_ON_DISK);
        self.arena
            .set_flags(at, flags | if on_disk { ON_DISK } else { NOT_ON_DISK });
    }

    /// Adds what the disk holds for a key that the overlay does not have: no change, and not undone by an abort.
    pub(super) fn load(&mut self, key: &[u8], value: Option<&[u8]>) -> At {
        let hash = self.hash(key);
        let arena = &mut self.arena;
        match self.table.entry(
            place(hash),
            |slot| slot.hash == hash && arena.key(slot.at) == key,
            Slot::place,
        ) {
            Entry::Occupied(slot) => slot.get().at,
            Entry::Vacant(slot) => {
                let flags = if value.is_some() {
                    VALUE | ON_DISK
                } else {
                    NOT_ON_DISK
                };
                let at = self.arena.add(key, value.unwrap_or_default(), flags);
                slot.insert(Slot { hash, at });
                if let Some(ordered) = &mut self.ordered {
                    ordered.insert(key.into());
                }
                at
            }
        }
    }

    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) {
        let hash = self.hash(key);
        let arena = &mut self.arena;
        match self.table.entry(
            place(hash),
            |slot| slot.hash == hash && arena.key(slot.at) == key,
            Slot::place,
        ) {
            Entry::Occupied(mut slot) => {
                let old = slot.get().at;
                let flags = arena.flags(old);
                if flags & (OPEN | VALUE) == OPEN | VALUE && arena.overwrite(old, value) {
                    return;
                }
                let known = flags & (ON_DISK | NOT_ON_DISK);
                let new = arena.add(key, value, VALUE | DIRTY | OPEN | known);
                slot.get_mut().at = new;
                self.log.push(Change { new, old });
            }
            Entry::Vacant(slot) => {
                let known = if self.disk_empty { NOT_ON_DISK } else { 0 };
                let new = arena.add(key, value, VALUE | DIRTY | OPEN | known);
                slot.insert(Slot { hash, at: new });
                self.log.push(Change { new, old: At::NONE });
                if let Some(ordered) = &mut self.ordered {
                    ordered.insert(key.into());
                }
            }
        }
    }

    /// Removes a key and gives the entry that held its value, which stays readable until the block is closed.
    /// `Unknown` means that nothing was done: the caller reads the disk, and calls [`load`](Self::load) and this again,
    /// or [`bury`](Self::bury).
    pub(super) fn take(&mut self, key: &[u8]) -> Lookup<At> {
        let hash = self.hash(key);
        let arena = &mut self.arena;
        let entry = self.table.find_entry(place(hash), |slot| {
            slot.hash == hash && arena.key(slot.at) == key
        });
        let Ok(mut slot) = entry else {
            return self.beyond();
        };
        let old = slot.get().at;
        let flags = arena.flags(old);
        if flags & VALUE == 0 {
            return Lookup::Absent;
        }
        if flags & NOT_ON_DISK != 0 {
            slot.remove();
            arena.set_flags(old, flags | CANCELLED);
            self.log.push(Change { new: At::NONE, old });
        } else {
            self.unsure += usize::from(flags & ON_DISK == 0);
            let new = arena.add(key, &[], DIRTY | OPEN | (flags & ON_DISK));
            slot.get_mut().at = new;
            self.log.push(Change { new, old });
        }
        Lookup::Value(old)
    }

    /// Removes a key that the overlay does not have, without asking the disk.
    pub(super) fn bury(&mut self, key: &[u8]) {
        let hash = self.hash(key);
        let arena = &mut self.arena;
        let entry = self.table.entry(
            place(hash),
            |slot| slot.hash == hash && arena.key(slot.at) == key,
            Slot::place,
        );
        if let Entry::Vacant(slot) = entry {
            self.unsure += 1;
            let new = arena.add(key, &[], DIRTY | OPEN);
            slot.insert(Slot { hash, at: new });
            self.log.push(Change { new, old: At::NONE });
            if let Some(ordered) = &mut self.ordered {
                ordered.insert(key.into());
            }
        }
    }

    /// What each key that the open block changed held before it: the entry to learn about when the disk decides, the key,
    /// and the value. A key may come twice; its first mention counts.
    pub(super) fn changes(&self) -> impl Iterator<Item = (At, &[u8], Lookup<&[u8]>)> {
        self.log.iter().filter_map(|change| {
            let arena = &self.arena;
            if change.old.is_some() {
                let flags = arena.flags(change.old);
                // Replaced what this block itself had written: the first change of the key has said what was before.
                if flags & OPEN != 0 {
                    return None;
                }
                let prior = if flags & VALUE != 0 {
                    Lookup::Value(arena.value(change.old))
                } else {
                    Lookup::Absent
                };
                return Some((change.new, arena.key(change.old), prior));
            }
            let flags = arena.flags(change.new);
            match flags & NOT_ON_DISK {
                0 => Some((change.new, arena.key(change.new), Lookup::Unknown)),
                _ if flags & CANCELLED != 0 => None,
                _ => Some((change.new, arena.key(change.new), Lookup::Absent)),
            }
        })
    }

    /// Keeps the open block's changes.
    pub(super) fn commit(&mut self) {
        let closed = !(OPEN | CANCELLED);
        for change in &self.log {
            if change.new.is_some() {
                self.arena
                    .set_flags(change.new, self.arena.flags(change.new) & closed);
            }
        }
        for change in &self.log {
            if change.old.is_some() {
                self.arena.remove(change.old);
            }
        }
        self.log.clear();
        self.log.shrink_to(1 << 16);
    }

    /// Drops the open block's changes: the overlay holds what it held before the block.
    pub(super) fn abort(&mut self) {
        let mut log = std::mem::take(&mut self.log);
        while let Some(Change { new, old }) = log.pop() {
            let arena = &mut self.arena;
            let key = arena.key(if new.is_some() { new } else { old });
            let hash = {
                let mut hasher = self.hasher.build_hasher();
                hasher.write(key);
                (hasher.finish() >> 32) as u32
            };
            let entry = self.table.entry(
                place(hash),
                |slot| slot.hash == hash && arena.key(slot.at) == key,
                Slot::place,
            );
            match (entry, old.is_some()) {
                (Entry::Occupied(mut slot), true) => slot.get_mut().at = old,
                (Entry::Occupied(slot), false) => {
                    slot.remove();
                }
                (Entry::Vacant(slot), true) => {
                    slot.insert(Slot { hash, at: old });
                }
                (Entry::Vacant(_), false) => {}
            }
            if old.is_some() {
                arena.set_flags(old, arena.flags(old) & !CANCELLED);
            }
            if new.is_some() {
                arena.remove(new);
            }
        }
        self.log = log;
    }

    /// The entries that differ from the disk, in the order of their keys.
    pub(super) fn dirty(&self) -> Vec<Dirty> {
        self.sorted(|flags| flags & DIRTY != 0)
    }

    fn sorted(&self, wanted: impl Fn(u8) -> bool) -> Vec<Dirty> {
        let arena = &self.arena;
        let mut sorted: Vec<Dirty> = Vec::new();
        for slot in self
            .table
            .iter()
            .filter(|slot| wanted(arena.flags(slot.at)))
        {
            let mut first = [0u8; 8];
            first
                .iter_mut()
                .zip(arena.key(slot.at))
                .for_each(|(to, from)| *to = *from);
            sorted.push(Dirty {
                prefix: u64::from_be_bytes(first),
                at: slot.at,
            });
        }
        sorted.sort_unstable_by(|a, b| {
            a.prefix
                .cmp(&b.prefix)
                .then_with(|| arena.key(a.at).cmp(arena.key(b.at)))
        });
        sorted
    }

    /// Puts the keys in order, for [`range`](Self::range).
    pub(super) fn order(&mut self) {
        if self.ordered.is_none() {
            self.ordered = Some(
                self.table
                    .iter()
                    .map(|slot| self.arena.key(slot.at).into())
                    .collect(),
            );
        }
    }

    /// The keys from a bound on, in order, with what they hold. Call [`order`](Self::order) first.
    pub(super) fn range<'a>(
        &'a self,
        from: Bound<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + 'a {
        self.ordered
            .iter()
            .flat_map(move |keys| keys.range::<[u8], _>((from, Bound::Unbounded)))
            .filter_map(|key| {
                let at = self.find(key)?;
                Some((self.key(at), self.holds_value(at).then(|| self.value(at))))
            })
    }
}
