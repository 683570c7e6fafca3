//! The saved pool.
//!
//! ```text
//! header   "BMPOOL\0\0"  version u32  network magic (4)  entries u64
//! entry    first seen u64  length u32  transaction (network serialization)
//! trailer  CRC-32 of all before it, u32
//! ```
//!
//! Numbers are little endian; entries come parents before children.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};

use super::entry::Entry;

const TAG: &[u8; 8] = b"BMPOOL\0\0";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
const TRAILER_BYTES: usize = 4;

/// The largest file read: the pool's own default limit counts more than the transactions' bytes.
const MAX_FILE_BYTES: u64 = 1_000_000_000;

/// Why a saved pool could not be written or read. Nothing depends on it: a pool that cannot be read
/// is heard again from peers.
#[derive(Debug, thiserror::Error)]
pub enum PoolFileError {
    /// The system refused.
    #[error("failed to {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not what was written.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// It is of another network.
    #[error("{} is another network's pool (magic {found:02x?})", path.display())]
    WrongNetwork {
        /// The file.
        path: PathBuf,
        /// Magic found in it.
        found: [u8; 4],
    },
}

fn io_error<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> PoolFileError + 'a {
    move |source| PoolFileError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// Writes a [`snapshot`](super::Mempool::snapshot) to `path`, whole or not at all.
///
/// `magic` is the network's, in wire order.
///
/// # Errors
///
/// [`PoolFileError::Io`]; what was at `path` before is still there.
pub fn save(path: &Path, magic: [u8; 4], entries: &[Arc<Entry>]) -> Result<(), PoolFileError> {
    let temporary = path.with_extension("new");
    let written = write(&temporary, magic, entries);
    if written.is_err() {
        // On a full disk it would take the room that is left.
        let _ = std::fs::remove_file(&temporary);
    }
    written?;
    std::fs::rename(&temporary, path).map_err(io_error("rename", path))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io_error("sync the folder of", path))
}

/// Writes the file, durably.
fn write(temporary: &Path, magic: [u8; 4], entries: &[Arc<Entry>]) -> Result<(), PoolFileError> {
    let file = File::create(temporary).map_err(io_error("create", temporary))?;
    let mut out = Checksummed {
        inner: BufWriter::with_capacity(1 << 18, file),
        crc: crc32fast::Hasher::new(),
    };
    write_entries(&mut out, magic, entries).map_err(io_error("write", temporary))?;
    let crc = out.crc.clone().finalize();
    out.write_all(&crc.to_le_bytes())
        .map_err(io_error("write", temporary))?;
    let file = out
        .inner
        .into_inner()
        .map_err(|error| io_error("write", temporary)(error.into_error()))?;
    file.sync_all().map_err(io_error("sync", temporary))
}

fn write_entries(
    out: &mut impl Write,
    magic: [u8; 4],
    entries: &[Arc<Entry>],
) -> std::io::Result<()> {
    out.write_all(TAG)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(&magic)?;
    out.write_all(&(entries.len() as u64).to_le_bytes())?;
    for entry in entries {
        out.write_all(&entry.first_seen.to_le_bytes())?;
        out.write_all(&(entry.raw.len() as u32).to_le_bytes())?;
        out.write_all(&entry.raw)?;
    }
    Ok(())
}

/// Reads a saved pool: transactions and when each was first seen (unix seconds), to be offered
/// through [`Mempool::reload`](super::Mempool::reload) in this order. No file is an empty pool.
///
/// # Errors
///
/// Whatever is wrong with the file; go on without it.
pub fn load(path: &Path, magic: [u8; 4]) -> Result<Vec<(Bytes, u64)>, PoolFileError> {
    let damaged = |what| PoolFileError::Damaged {
        path: path.to_owned(),
        what,
    };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("look at", path)(error)),
        Ok(metadata) if metadata.len() > MAX_FILE_BYTES => {
            return Err(damaged("it is far too large"));
        }
        Ok(_) => {}
    }
    let mut bytes = Bytes::from(std::fs::read(path).map_err(io_error("read", path))?);
    if bytes.len() < HEADER_BYTES + TRAILER_BYTES {
        return Err(damaged("it is cut short"));
    }
    let mut trailer = bytes.split_off(bytes.len() - TRAILER_BYTES);
    if crc32fast::hash(&bytes) != trailer.get_u32_le() {
        return Err(damaged("its checksum is wrong"));
    }
    if bytes.split_to(TAG.len()) != TAG.as_slice() {
        return Err(damaged("it is no saved pool"));
    }
    if bytes.get_u32_le() != VERSION {
        return Err(damaged("its version is not known"));
    }
    let mut found = [0; 4];
    bytes.copy_to_slice(&mut found);
    if found != magic {
        return Err(PoolFileError::WrongNetwork {
            path: path.to_owned(),
            found,
        });
    }
    let count = bytes.get_u64_le();
    let mut entries = Vec::new();
    for _ in 0..count {
        if bytes.len() < 12 {
            return Err(damaged("it ends before its last entry"));
        }
        let first_seen = bytes.get_u64_le();
        let length = bytes.get_u32_le() as usize;
        if bytes.len() < length {
            return Err(damaged("it ends inside of an entry"));
        }
        entries.push((bytes.split_to(length), first_seen));
    }
    if bytes.is_empty() {
        Ok(entries)
    } else {
        Err(damaged("bytes are left over"))
    }
}

struct Checksummed<W> {
    inner: W,
    crc: crc32fast::Hasher,
}

impl<W: Write> Write for Checksummed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.crc.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
