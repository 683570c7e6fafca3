//! What came since the pool was saved: appended every few seconds, so that a kill loses no more than those.
//!
//! ```text
//! header   "BMPJNL\0\0"  version u32  network magic (4)
//! record   length u32  CRC-32 of the body u32  body
//! body     0  first seen u64  transaction (network serialization)
//!          1  unix milliseconds u64  entries of the pool u64        after each batch of transactions
//! ```
//!
//! Numbers are little endian. What left is not written: it is refused when it is offered again, or enters and leaves again.
//! Nothing is synced: the system has what was written once the process is gone, only a power cut may lose half a minute. A
//! record cut short, and what follows one with a wrong checksum, is left aside.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes};

use super::entry::Entry;
use super::file::{PoolFileError, load};

const TAG: &[u8; 8] = b"BMPJNL\0\0";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 16;
const RECORD_BYTES: usize = 8;

/// A larger one is not written on: the whole pool is to be saved instead.
const MAX_BYTES: u64 = 256_000_000;

/// Where the journal of a saved pool lies.
fn path_of(pool: &Path) -> PathBuf {
    pool.with_extension("journal")
}

/// The journal being written.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    magic: [u8; 4],
    file: Option<File>,
    bytes: u64,
}

impl Journal {
    /// The journal beside the saved pool `pool`. Nothing is written yet.
    pub fn new(pool: &Path, magic: [u8; 4]) -> Self {
        Self {
            path: path_of(pool),
            magic,
            file: None,
            bytes: 0,
        }
    }

    /// The pool was saved as a whole: what came before is in it.
    ///
    /// # Errors
    ///
    /// [`PoolFileError::Io`]; a journal that stays does no harm.
    pub fn clear(&mut self) -> Result<(), PoolFileError> {
        self.file = None;
        self.bytes = 0;
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(PoolFileError::Io {
                doing: "remove",
                path: self.path.clone(),
                source: error,
            }),
            _ => Ok(()),
        }
    }

    /// Whether it is so long that the whole pool is better saved.
    pub fn is_long(&self) -> bool {
        self.bytes > MAX_BYTES
    }

    /// Appends entries that came, and that the pool holds `txs` now (`at`: unix milliseconds). Answers with the bytes
    /// written.
    ///
    /// # Errors
    ///
    /// [`PoolFileError::Io`].
    pub fn append(
        &mut self,
        entries: &[Arc<Entry>],
        txs: u64,
        at: u64,
    ) -> Result<u64, PoolFileError> {
        let mut bytes = Vec::new();
        if self.file.is_none() {
            bytes.put_slice(TAG);
            bytes.put_u32_le(VERSION);
            bytes.put_slice(&self.magic);
        }
        for entry in entries {
            let mut body = Vec::with_capacity(9 + entry.raw.len());
            body.put_u8(0);
            body.put_u64_le(entry.first_seen);
            body.put_slice(&entry.raw);
            put_record(&mut bytes, &body);
        }
        let mut mark = Vec::with_capacity(17);
        mark.put_u8(1);
        mark.put_u64_le(at);
        mark.put_u64_le(txs);
        put_record(&mut bytes, &mark);
        self.write(&bytes).map_err(|source| PoolFileError::Io {
            doing: "append to",
            path: self.path.clone(),
            source,
        })?;
        self.bytes += bytes.len() as u64;
        Ok(bytes.len() as u64)
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            // What an earlier run left is in the pool by now, or was refused.
            None => self.file.insert(
                OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .open(&self.path)?,
            ),
        };
        file.write_all(bytes)
    }
}

fn put_record(bytes: &mut Vec<u8>, body: &[u8]) {
    bytes.put_u32_le(body.len() as u32);
    bytes.put_u32_le(crc32fast::hash(body));
    bytes.put_slice(body);
}

/// What the last run left of its pool.
#[derive(Debug, Default)]
pub struct Restored {
    /// Transactions, parents before children, and when each was first seen (unix seconds).
    pub entries: Vec<(Bytes, u64)>,
    /// Set when the last run did not end by itself.
    pub killed: Option<Killed>,
}

/// What is known of a run that did not end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Killed {
    /// Unix milliseconds of what it wrote last.
    pub saved: u64,
    /// Entries that its pool had then.
    pub txs: u64,
    /// Transactions that it journaled since the pool was saved as a whole, and unix milliseconds of its first mark: the
    /// rate at which they came.
    pub journaled: u64,
    /// See `journaled`.
    pub from: u64,
}

impl Killed {
    /// How many came, at the rate of the journal, within so many milliseconds: about so many are lost.
    pub fn rate(&self, milliseconds: u64) -> u64 {
        let span = self.saved.saturating_sub(self.from).max(1_000);
        self.journaled.saturating_mul(milliseconds).div_ceil(span)
    }
}

/// Reads a saved pool and its journal.
///
/// # Errors
///
/// Whatever is wrong with the saved pool; what is wrong with the journal only ends it.
pub fn restore(pool: &Path, magic: [u8; 4]) -> Result<Restored, PoolFileError> {
    let saved = load(pool, magic);
    let journal = read(&path_of(pool), magic);
    let mut restored = Restored {
        killed: journal.as_ref().and_then(|journal| journal.killed),
        ..Restored::default()
    };
    let journal = journal.map(|journal| journal.entries).unwrap_or_default();
    match saved {
        Ok(entries) => restored.entries = entries,
        Err(error) if journal.is_empty() => return Err(error),
        Err(error) => {
            tracing::warn!(path = %pool.display(), %error, "only the journal of the memory pool is used")
        }
    }
    restored.entries.extend(journal);
    Ok(restored)
}

fn read(path: &Path, magic: [u8; 4]) -> Option<Restored> {
    let length = std::fs::metadata(path).ok()?.len();
    if length > MAX_BYTES * 2 {
        return None;
    }
    let mut bytes = Bytes::from(std::fs::read(path).ok()?);
    if bytes.len() < HEADER_BYTES
        || bytes.split_to(8) != TAG.as_slice()
        || bytes.get_u32_le() != VERSION
        || bytes.split_to(4) != magic.as_slice()
    {
        return None;
    }
    let mut restored = Restored::default();
    let mut from = None;
    while bytes.len() >= RECORD_BYTES {
        let length = bytes.get_u32_le() as usize;
        let crc = bytes.get_u32_le();
        if bytes.len() < length {
            break;
        }
        let mut body = bytes.split_to(length);
        if crc32fast::hash(&body) != crc {
            break;
        }
        match body.try_get_u8() {
            Ok(0) if body.len() > 8 => {
                let first_seen = body.get_u64_le();
                restored.entries.push((body, first_seen));
            }
            Ok(1) if body.len() == 16 => {
                let saved = body.get_u64_le();
                restored.killed = Some(Killed {
                    saved,
                    txs: body.get_u64_le(),
                    journaled: restored.entries.len() as u64,
                    from: *from.get_or_insert(saved),
                });
            }
            _ => break,
        }
    }
    Some(restored)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::super::tests::NOW;
    use super::super::tests::chain::{Chain, raw, spend};
    use super::super::{Mempool, MempoolConfig, save};
    use super::*;

    #[test]
    fn a_journal_cut_anywhere_gives_back_what_came_before_the_cut() {
        let (chain, coins) = Chain::with_coins(200, 4, 100_000);
        let mut pool = Mempool::new(MempoolConfig::default());
        for coin in &coins {
            let tx = spend(&[*coin], &[90_000]);
            pool.accept(raw(&tx), NOW, &chain, chain.tip()).unwrap();
        }
        let entries = pool.snapshot();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mempool.dat");
        let magic = [1, 2, 3, 4];
        assert!(restore(&path, magic).unwrap().killed.is_none());
        save(&path, magic, &entries[..1]).unwrap();
        let mut journal = Journal::new(&path, magic);
        journal.append(&entries[1..3], 3, 5_000_000).unwrap();
        journal.append(&entries[3..], 4, 5_002_000).unwrap();
        let restored = restore(&path, magic).unwrap();
        assert_eq!(restored.entries.len(), 4);
        assert!(
            restored
                .entries
                .iter()
                .zip(&entries)
                .all(|((raw, seen), entry)| *raw == entry.raw && *seen == NOW)
        );
        let killed = restored.killed.unwrap();
        assert_eq!(
            (killed.saved, killed.txs, killed.rate(2_000)),
            (5_002_000, 4, 3)
        );

        let whole = std::fs::read(path_of(&path)).unwrap();
        let mut before = 1;
        for cut in 0..whole.len() {
            std::fs::write(path_of(&path), &whole[..cut]).unwrap();
            let found = restore(&path, magic).unwrap().entries.len();
            assert!(found >= before && found <= 4, "{found} after {before}");
            before = found;
        }
        let mut bent = whole.clone();
        let last = bent.len() - 1;
        bent[last] ^= 1;
        std::fs::write(path_of(&path), &bent).unwrap();
        assert_eq!(
            restore(&path, magic).unwrap().killed.unwrap().saved,
            5_000_000
        );
        assert!(restore(&path, [9; 4]).is_err());
        journal.clear().unwrap();
        assert_eq!(restore(&path, magic).unwrap().entries.len(), 1);
    }
}
