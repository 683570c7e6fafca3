//! Who may change something: whoever can read the token, a file in the data folder that only its owner can read.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use bitcoin::hex::DisplayHex;

/// Bytes of randomness in a token.
const BYTES: usize = 32;

/// The file, in the folder of a network's data.
fn path(folder: &Path) -> PathBuf {
    folder.join("api-token")
}

/// The secret that a request shows as `Authorization: Bearer TOKEN`.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A new token, in place of the one before, in a file that only its owner can read.
    ///
    /// # Errors
    ///
    /// When the system gives no randomness or the file cannot be written.
    pub fn make(folder: &Path) -> Result<Self> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).map_err(|why| anyhow!("no randomness: {why}"))?;
        let token = bytes.to_lower_hex_string();
        let (path, unfinished) = (path(folder), folder.join("api-token.tmp"));
        // A file that is there may be readable for others: its mode would stay.
        let _ = fs::remove_file(&unfinished);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)
            .and_then(|mut file| file.write_all(token.as_bytes()))
            .and_then(|()| fs::rename(&unfinished, &path))
            .with_context(|| format!("failed to write {}", path.display()))?;
        Ok(Self(token))
    }

    /// The token of a running host.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = path(folder);
        let token = fs::read_to_string(&path).with_context(|| {
            format!(
                "failed to read {}: only the user who runs the host may change its plugins",
                path.display()
            )
        })?;
        Ok(Self(token.trim().to_owned()))
    }

    /// The header's value.
    pub fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Whether a header's value shows this token; takes the same time however much of it is right.
    pub(super) fn is_in(&self, header: &[u8]) -> bool {
        let wanted = self.header();
        let differing = wanted
            .as_bytes()
            .iter()
            .zip(header)
            .fold(0, |differing, (a, b)| differing | (a ^ b));
        wanted.len() == header.len() && differing == 0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_is_made_anew_at_each_start_and_only_its_owner_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = Token::make(folder.path()).unwrap();
        let second = Token::make(folder.path()).unwrap();
        let mode = fs::metadata(path(folder.path())).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let read = Token::read(folder.path()).unwrap();
        assert!(second.is_in(read.header().as_bytes()));
        assert!(!first.is_in(read.header().as_bytes()));
        assert!(!second.is_in(b""));
        assert!(!second.is_in(format!("{} ", second.header()).as_bytes()));
    }
}
