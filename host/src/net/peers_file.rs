//! The peer book on the disk: read at the start, written now and then and at the end.

use crate::chain::sync::book::{BookFile, MAX_FILE};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Its name in the network's data folder.
pub const NAME: &str = "peers.jsonl";

/// The file.
#[derive(Clone, Debug)]
pub struct PeersFile {
    path: PathBuf,
    network: &'static str,
    /// The number of the last write; held while one is under way.
    written: Arc<Mutex<u64>>,
}

impl PeersFile {
    /// That of a network's data folder.
    pub fn new(folder: &Path, network: &'static str) -> Self {
        Self {
            path: folder.join(NAME),
            network,
            written: Arc::default(),
        }
    }

    /// What was kept. A file that cannot be used is set aside: addresses are heard again, everything else is untouched.
    pub fn read(&self) -> Option<BookFile> {
        let read = self.read_file();
        match read {
            Ok(file) => file,
            Err(error) => {
                let aside = self.path.with_extension("jsonl.damaged");
                let moved = std::fs::rename(&self.path, &aside);
                tracing::warn!(
                    path = %self.path.display(),
                    error = format!("{error:#}"),
                    aside = %aside.display(),
                    moved = moved.is_ok(),
                    "the peer book cannot be used and is set aside: bans are gone, addresses are heard again"
                );
                None
            }
        }
    }

    fn read_file(&self) -> Result<Option<BookFile>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        ensure!(bytes.len() as u64 <= MAX_FILE, "it is too long");
        Ok(Some(BookFile::decode(self.network, &bytes)?))
    }

    /// Writes it anew, whole or not at all, unless a later `number` was written before.
    ///
    /// # Errors
    ///
    /// When it cannot be written; the file before stays then.
    pub fn write(&self, number: u64, bytes: &[u8]) -> Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if number < *written {
            return Ok(());
        }
        *written = number;
        crate::whole_file::replace(&self.path, bytes)
            .with_context(|| format!("failed to write {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use crate::chain::sync::bans::Bans;
    use crate::chain::sync::book::Book;

    #[test]
    fn a_file_that_cannot_be_used_is_set_aside_and_a_new_one_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = PeersFile::new(folder.path(), "regtest");
        assert!(file.read().is_none(), "there is none yet");
        let mut bans = Bans::default();
        bans.ban("10.0.0.0/8".parse().unwrap(), None, "test", 5);
        let bytes = BookFile::encode("regtest", &Book::new([1, 2]), &bans, &[]);
        file.write(7, &bytes).unwrap();
        file.write(6, b"older").unwrap();
        assert_eq!(file.read().unwrap().bans.all().count(), 1);

        let path = folder.path().join(NAME);
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(file.read().is_none());
        let aside = folder.path().join("peers.jsonl.damaged");
        assert_eq!(std::fs::read(&aside).unwrap(), &bytes[..bytes.len() / 2]);
        assert!(!path.exists());
        file.write(8, &bytes).unwrap();
        assert!(file.read().is_some());
        assert!(!folder.path().join("peers.jsonl.tmp").exists());
    }
}
