//! Finding the transactions of a compact block (BIP152).

use std::collections::HashMap;

use bitcoin::bip152::ShortId;
use bytes::Bytes;

use super::Mempool;

impl Mempool {
    /// For each short id, the serialised transaction that has it, among the entries and the orphans. Where two have
    /// the same, or the same is wanted twice, there is none: only the block's merkle root could tell them apart.
    pub fn by_short_ids(&self, keys: (u64, u64), wanted: &[ShortId]) -> Vec<Option<Bytes>> {
        let mut found = vec![None; wanted.len()];
        let mut places: HashMap<ShortId, Option<usize>> = HashMap::with_capacity(wanted.len());
        for (place, id) in wanted.iter().enumerate() {
            places
                .entry(*id)
                .and_modify(|place| *place = None)
                .or_insert(Some(place));
        }
        let entries = self.graph.entries().map(|entry| (entry.wtxid, &entry.raw));
        for (wtxid, raw) in entries.chain(self.orphans.iter()) {
            let id = ShortId::with_siphash_keys(&wtxid, keys);
            let Some(place) = places.get_mut(&id) else {
                continue;
            };
            let Some(slot) = place.and_then(|place| found.get_mut(place)) else {
                continue;
            };
            if slot.is_none() {
                *slot = Some(raw.clone());
            } else {
                *slot = None;
                *place = None;
            }
        }
        found
    }
}
