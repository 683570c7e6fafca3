//! Accepted headers on disk: 80 bytes each, parents before children, nothing else. A torn tail is cut at the start.

use anyhow::{Context, Result};
use bitcoin::block::Header;
use bitcoin::consensus;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const LEN: usize = 80;

/// The open file.
pub struct HeadersFile {
    file: File,
    path: PathBuf,
    /// Bytes of whole headers in it.
    end: u64,
}

impl HeadersFile {
    /// Opens or creates the file and reads what it holds.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, read or cut.
    pub fn open(path: &Path) -> Result<(Self, Vec<Header>)> {
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .with_context(|| format!("failed to open {}", path.display()))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .with_context(|| format!("failed to read {}", path.display()))?;
        let (whole, torn) = bytes.as_chunks::<LEN>();
        let headers: Vec<Header> = whole
            .iter()
            .map_while(|bytes| consensus::deserialize(bytes).ok())
            .collect();
        let mut open = Self {
            file,
            path: path.to_owned(),
            end: 0,
        };
        if !torn.is_empty() || headers.len() < whole.len() {
            tracing::warn!(path = %path.display(), bytes = torn.len(), "the end of the headers file was torn");
        }
        open.cut(headers.len())?;
        Ok((open, headers))
    }

    /// Keeps the first `count` headers and forgets the rest.
    ///
    /// # Errors
    ///
    /// When the file cannot be cut.
    pub fn cut(&mut self, count: usize) -> Result<()> {
        let end = (count * LEN) as u64;
        self.file
            .set_len(end)
            .and_then(|()| self.file.seek(SeekFrom::Start(end)))
            .with_context(|| format!("failed to cut {}", self.path.display()))?;
        self.end = end;
        Ok(())
    }

    /// Appends headers, all of them or none: what a full disk has taken of them is cut off again.
    ///
    /// # Errors
    ///
    /// When the file cannot be written. They may be appended again.
    pub fn append(&mut self, headers: &[Header]) -> Result<()> {
        let bytes: Vec<u8> = headers.iter().flat_map(consensus::serialize).collect();
        let (file, end) = (&mut self.file, self.end);
        let written = file
            .seek(SeekFrom::Start(end))
            .and_then(|_| file.write_all(&bytes));
        if let Err(error) = written {
            // A torn end that cannot be cut off now is written over by the next try, or cut at the next start.
            let _ = file.set_len(end);
            return Err(error).with_context(|| format!("failed to write {}", self.path.display()));
        }
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Makes what was appended durable.
    ///
    /// # Errors
    ///
    /// When the file cannot be synced.
    pub fn sync(&mut self) -> Result<()> {
        self.file
            .sync_data()
            .with_context(|| format!("failed to sync {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use bitcoin::Network;
    use bitcoin::constants::genesis_block;

    fn headers(count: u32) -> Vec<Header> {
        let mut header = genesis_block(Network::Regtest).header;
        (0..count)
            .map(|nonce| {
                header.nonce = nonce;
                header
            })
            .collect()
    }

    #[test]
    fn a_tail_torn_at_any_byte_is_cut_and_appending_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headers.dat");
        let all = headers(4);
        for length in 0..=3 * LEN {
            let whole: Vec<u8> = all.iter().flat_map(consensus::serialize).collect();
            std::fs::write(&path, &whole[..length]).unwrap();
            let (mut file, kept) = HeadersFile::open(&path).unwrap();
            assert_eq!(kept, all[..length / LEN]);
            file.append(&all[3..]).unwrap();
            file.sync().unwrap();
            let (_, kept) = HeadersFile::open(&path).unwrap();
            assert_eq!(kept.len(), length / LEN + 1);
            assert_eq!(kept.last(), all.last());
        }
    }

    #[test]
    fn headers_behind_a_cut_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headers.dat");
        let all = headers(3);
        let (mut file, _) = HeadersFile::open(&path).unwrap();
        file.append(&all).unwrap();
        file.cut(1).unwrap();
        file.append(&all[2..]).unwrap();
        let (_, kept) = HeadersFile::open(&path).unwrap();
        assert_eq!(kept, [all[0], all[2]]);
    }
}
