//! The pool as far as a projection needs it: fees, weights, signature operations, and who depends on whom.
//!
//! Kept in slots, 256 to a page. A page that changed is left in the volatile space, so that a query, which runs on an
//! instance that was told nothing, reads the pool back without one write for each transaction.
//!
//! ```text
//! volatile  'P' page(u32 LE)  → slots in use: place(u8) generation(u32) fee(u64) weight(u32) sigops(u16) parents(u16)
//!                               then for each parent slot(u32) generation(u32)
//!           'N'               → pages
//! ```
//!
//! A slot is used again when its transaction leaves, with the next generation: a child that names the old one has a
//! confirmed parent.

use blockmill_sdk::prelude::*;
use blockmill_sdk::{HashTable, ValueBytes};

use crate::projection::{Tx, size};

/// Slots of a page.
const PAGE: usize = 256;

/// Transactions kept at most: what the volatile space has room for. The host's pool has room for fewer.
const MAX: usize = 500_000;

/// Parents kept of one transaction: Core has no more in a cluster.
const MAX_PARENTS: usize = 64;

#[derive(Clone, Debug, Default)]
struct Slot {
    used: bool,
    generation: u32,
    fee: u64,
    weight: u32,
    /// What its signature operations cost. The host's pool takes nothing above 16,000.
    sigops: u16,
    /// Slot and generation of each.
    parents: Vec<(u32, u32)>,
}

/// The pool.
#[derive(Debug, Default)]
pub struct Pool {
    places: HashTable<[u8; 32], u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// By page.
    changed: Vec<bool>,
}

fn key(page: u32) -> [u8; 5] {
    let [a, b, c, d] = page.to_le_bytes();
    [b'P', a, b, c, d]
}

impl Pool {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether a transaction is in it.
    pub fn contains(&self, txid: &[u8; 32]) -> bool {
        self.places.contains_key(txid)
    }

    /// Forgets all. The volatile space is empty by then.
    pub fn clear(&mut self) {
        *self = Pool::default();
    }

    /// A transaction came. Parents that are not known are confirmed.
    pub fn insert(
        &mut self,
        txid: &[u8; 32],
        fee: u64,
        weight: u32,
        sigops: u32,
        parents: &[[u8; 32]],
    ) {
        if self.contains(txid) || self.len() >= MAX {
            return;
        }
        let parents = parents
            .iter()
            .take(MAX_PARENTS)
            .filter_map(|parent| {
                let place = *self.places.get(parent)?;
                let slot = self.slots.get(place as usize)?;
                Some((place, slot.generation))
            })
            .collect();
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        if let Some(slot) = self.slots.get_mut(place as usize) {
            slot.used = true;
            slot.fee = fee;
            slot.weight = weight.max(1);
            slot.sigops = sigops.min(u32::from(u16::MAX)) as u16;
            slot.parents = parents;
        }
        self.places.insert(*txid, place);
        self.mark(place);
    }

    fn mark(&mut self, place: u32) {
        let page = place as usize / PAGE;
        if self.changed.len() <= page {
            self.changed.resize(page + 1, false);
        }
        if let Some(changed) = self.changed.get_mut(page) {
            *changed = true;
        }
    }

    /// A transaction left. Answers its fee and the weight that it was measured by.
    pub fn remove(&mut self, txid: &[u8; 32]) -> Option<(u64, u64)> {
        let place = self.places.remove(txid)?;
        let slot = self.slots.get_mut(place as usize)?;
        slot.used = false;
        slot.generation = slot.generation.wrapping_add(1);
        slot.parents = Vec::new();
        let found = (slot.fee, size(slot.weight, slot.sigops.into()));
        self.free.push(place);
        self.mark(place);
        Some(found)
    }

    /// Leaves what changed in the volatile space.
    pub fn put(&mut self) {
        let changed = std::mem::take(&mut self.changed);
        if !changed.contains(&true) {
            return;
        }
        for (page, _) in changed.iter().enumerate().filter(|(_, changed)| **changed) {
            let mut bytes = Vec::with_capacity(PAGE * 24);
            let start = page * PAGE;
            for (at, slot) in self.slots.iter().skip(start).take(PAGE).enumerate() {
                if slot.used {
                    (at as u8, slot.generation, slot.fee).write(&mut bytes);
                    let parents = slot.parents.len() as u16;
                    (slot.weight, slot.sigops, parents).write(&mut bytes);
                    for parent in &slot.parents {
                        parent.write(&mut bytes);
                    }
                }
            }
            volatile::put(&key(page as u32), &bytes);
        }
        let pages = self.slots.len().div_ceil(PAGE) as u32;
        volatile::put(b"N", &pages.to_le_bytes());
    }

    /// Reads the pool back from the volatile space, in the order of the slots.
    pub fn get() -> Option<Vec<Tx>> {
        let pages = u32::from_le_bytes(volatile::get(b"N")?.try_into().ok()?);
        let mut slots: Vec<Slot> = Vec::new();
        for page in 0..pages {
            slots.resize(slots.len() + PAGE, Slot::default());
            let bytes = volatile::get(&key(page)).unwrap_or_default();
            let mut from = bytes.as_slice();
            while !from.is_empty() {
                let (at, generation, fee): (u8, u32, u64) = ValueBytes::read(&mut from)?;
                let (weight, sigops, count): (u32, u16, u16) = ValueBytes::read(&mut from)?;
                let mut parents = Vec::with_capacity(usize::from(count));
                for _ in 0..count {
                    parents.push(<(u32, u32) as ValueBytes>::read(&mut from)?);
                }
                let slot = slots.get_mut(page as usize * PAGE + usize::from(at))?;
                *slot = Slot {
                    used: true,
                    generation,
                    fee,
                    weight,
                    sigops,
                    parents,
                };
            }
        }
        let mut places = vec![None; slots.len()];
        let mut count = 0u32;
        for (slot, place) in slots.iter().zip(&mut places) {
            if slot.used {
                *place = Some(count);
                count += 1;
            }
        }
        let there = |(place, generation): &(u32, u32)| {
            let slot = slots.get(*place as usize)?;
            (slot.used && slot.generation == *generation)
                .then(|| places.get(*place as usize).copied().flatten())
                .flatten()
        };
        let txs = slots.iter().filter(|slot| slot.used).map(|slot| Tx {
            fee: slot.fee,
            weight: slot.weight,
            sigops: slot.sigops.into(),
            parents: slot.parents.iter().filter_map(there).collect(),
        });
        Some(txs.collect())
    }
}
