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
        Ok(())
    }

    /// Appends headers.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn append(&mut self, headers: &[Header]) -> Result<()> {
        let bytes: Vec<u8> = headers.iter().flat_map(consensus::serialize).collect();
        self.file
            .write_all(&bytes)
            .with_context(|| format!("failed to write {}", self.path.display()))
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
