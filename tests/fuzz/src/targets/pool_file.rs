//! The saved pool and its journal.

use std::sync::Arc;

use blockmill::mempool::{Entry, Journal, restore, save};

use super::Verdict;
use crate::{Input, memory, shapes};

/// Flags and the length of the saved pool, the saved pool, then its journal.
pub fn run(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    let flags = input.byte();
    let mut saved = input.chunk().to_vec();
    let mut journal = input.rest().to_vec();
    if flags & 1 == 0 {
        shapes::put_crc_right(&mut saved);
        put_records_right(&mut journal);
    }
    let path = shapes::scratch().join("mempool.dat");
    std::fs::write(&path, &saved).expect("a file");
    std::fs::write(path.with_extension("journal"), &journal).expect("a file");
    let restored = memory::bounded((1 << 20) + 64 * data.len(), || {
        restore(&path, shapes::MAGIC)
    });
    let Ok(restored) = restored else {
        return Verdict::Refused;
    };
    let bytes: usize = restored.entries.iter().map(|(raw, _)| raw.len()).sum();
    assert!(bytes <= data.len());
    if let Some(killed) = restored.killed {
        assert!(killed.rate(2_000) <= killed.journaled.saturating_mul(2) + 1);
    }
    written_again(&restored.entries);
    Verdict::taken(!restored.entries.is_empty())
}

/// Saved as a whole, and in a journal, the same entries come back.
fn written_again(entries: &[(bytes::Bytes, u64)]) {
    let told: Vec<Arc<Entry>> = entries
        .iter()
        .filter_map(|(raw, seen)| Entry::told(raw.clone(), 1, 1, None, *seen, Vec::new()).ok())
        .map(Arc::new)
        .collect();
    let (first, second) = told.split_at(told.len() / 2);
    let path = shapes::scratch().join("again.dat");
    save(&path, shapes::MAGIC, first).expect("room for a file");
    let mut journal = Journal::new(&path, shapes::MAGIC);
    journal
        .append(second, told.len() as u64, 5_000)
        .expect("room for a file");
    let again = restore(&path, shapes::MAGIC).expect("it was written by us");
    assert_eq!(again.entries.len(), told.len());
    for (entry, (raw, seen)) in told.iter().zip(&again.entries) {
        assert_eq!((&entry.raw, entry.first_seen), (raw, *seen));
    }
    assert_eq!(
        again.killed.map(|killed| killed.txs),
        Some(told.len() as u64)
    );
}

fn put_records_right(journal: &mut [u8]) {
    let mut at = 16;
    while let Some(record) = journal.get_mut(at..).filter(|rest| rest.len() >= 8) {
        let length = u32::from_le_bytes([record[0], record[1], record[2], record[3]]) as usize;
        let Some(body) = record.get(8..).and_then(|rest| rest.get(..length)) else {
            return;
        };
        let crc = crc32fast::hash(body);
        record[4..8].copy_from_slice(&crc.to_le_bytes());
        at += 8 + length;
    }
}
