//! Writing a snapshot.

use std::fs::File;
use std::io::{BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::SnapshotError;
use super::format::{ChunkWriter, HEADER_BYTES, Header};
use crate::store::{COIN_PREFIX, CoinHash, LaneState};

/// Entries, and bytes, that are read at a time.
const PAGE_ENTRIES: usize = 10_000;
const PAGE_BYTES: usize = 4 << 20;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// Height of the last block in it.
    pub height: u32,
    /// Hash of that block, as displayed.
    pub block: String,
    /// Number of keys.
    pub entries: u64,
    /// SHA-256 of all entries, hexadecimal.
    pub state_hash: String,
    /// Bitcoin Core's `hash_serialized_3` of the coins, for a plugin with that role, as displayed.
    pub hash_serialized_3: Option<String>,
    /// Bytes of the file.
    pub bytes: u64,
}

/// What the header says besides what the state itself does.
pub struct About {
    /// Of the network, in wire order.
    pub magic: [u8; 4],
    /// The plugin's name.
    pub plugin: String,
    /// Its state version.
    pub state_version: u32,
    /// SHA-256 of its component.
    pub component: [u8; 32],
    /// Whether it has the role `coins`.
    pub coins: bool,
}

/// Writes what a fork of a plugin's state holds, at its cursor or, with `at`, at a block below it that can still be taken back
/// to. The file appears whole under its name, or not at all; `go_on` is asked now and then.
///
/// # Errors
///
/// When there is no state, `at` cannot be reached, something fails, or `go_on` says no.
pub fn export(
    mut fork: LaneState,
    about: About,
    file: &Path,
    at: Option<u32>,
    go_on: impl FnMut() -> bool,
) -> Result<Exported, SnapshotError> {
    let other = SnapshotError::Other;
    let cursor = fork.cursor();
    let top = cursor
        .ok_or_else(|| other(format!("{} has not stored a block yet", about.plugin)))?
        .height;
    let wanted = at.unwrap_or(top);
    if wanted > top {
        return Err(other(format!(
            "{} has stored blocks up to {top}, not {wanted}",
            about.plugin
        )));
    }
    let lowest = top - fork.undoable(top);
    if wanted < lowest {
        return Err(other(format!(
            "{} can be taken back to block {lowest} from {top}, not to {wanted}: chain.undo_depth says how far; or sync a host \
             with `run --stop-at-height {wanted}`",
            about.plugin
        )));
    }
    fork.rewind(wanted)?;
    let unfinished = file.with_extension("unfinished");
    let written = write(fork, about, &unfinished, go_on).and_then(|exported| {
        std::fs::rename(&unfinished, file).map_err(SnapshotError::writing)?;
        Ok(exported)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&unfinished);
    }
    written
}

fn write(
    mut fork: LaneState,
    about: About,
    path: &Path,
    mut go_on: impl FnMut() -> bool,
) -> Result<Exported, SnapshotError> {
    let writing = SnapshotError::writing;
    let cursor = fork
        .cursor()
        .ok_or_else(|| SnapshotError::Other("no block is left".to_owned()))?;
    let file = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(path)
        .map_err(writing)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    out.write_all(&[0; HEADER_BYTES]).map_err(writing)?;
    let mut chunks = ChunkWriter::new(out);
    let mut coins = about.coins.then(CoinHash::default);
    let mut after: Option<Vec<u8>> = None;
    loop {
        if !go_on() {
            return Err(SnapshotError::Other("the host is ending".to_owned()));
        }
        let page = fork.scan(&[], after.as_deref(), PAGE_ENTRIES, PAGE_BYTES)?;
        for (key, value) in page.iter() {
            chunks.put(key, value)?;
            if let Some(coins) = &mut coins
                && key.first() == Some(&COIN_PREFIX)
            {
                coins.push(key, value)?;
            }
        }
        after = page.iter().last().map(|(key, _)| key.to_vec()).or(after);
        if !page.more {
            break;
        }
    }
    let (out, entries, state_hash) = chunks.finish()?;
    let hash_serialized_3 = coins.map(CoinHash::finish);
    let header = Header {
        magic: about.magic,
        plugin: about.plugin,
        state_version: about.state_version,
        component: about.component,
        cursor,
        entries,
        state_hash,
        coins: hash_serialized_3.as_deref().and_then(internal),
    };
    let mut file = out
        .into_inner()
        .map_err(|error| writing(error.into_error()))?;
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.write_all(&header.encode()))
        .map_err(writing)?;
    // The hash of the whole is that of the bytes as they stand: it is read once more.
    file.seek(SeekFrom::Start(0)).map_err(writing)?;
    let mut all = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 32;
    loop {
        if !go_on() {
            return Err(SnapshotError::Other("the host is ending".to_owned()));
        }
        let read = file
            .read(&mut buffer)
            .map_err(SnapshotError::reading("its chunks"))?;
        if read == 0 {
            break;
        }
        all.update(buffer.get(..read).unwrap_or_default());
        bytes += read as u64;
    }
    file.write_all(&all.finalize())
        .and_then(|()| file.sync_all())
        .map_err(writing)?;
    Ok(Exported {
        height: cursor.height,
        block: displayed(cursor.hash),
        entries,
        state_hash: hex(state_hash),
        hash_serialized_3,
        bytes,
    })
}

/// 32 bytes as hexadecimal digits.
pub(super) fn hex(bytes: [u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A hash in internal byte order as it is displayed.
pub(super) fn displayed(mut hash: [u8; 32]) -> String {
    hash.reverse();
    hex(hash)
}

/// A hash as displayed in internal byte order.
pub(super) fn internal(text: &str) -> Option<[u8; 32]> {
    let mut hash = unhex(text)?;
    hash.reverse();
    Some(hash)
}

/// 64 hexadecimal digits as bytes.
pub fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}
