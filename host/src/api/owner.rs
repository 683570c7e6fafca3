//! The token that only the host's owner can read.
//!
//! Reading is open to whoever can connect. Changing is for who can read a file of the host's user: a web page that the owner
//! looks at, or another user of the machine, can send requests to loopback but does not know the token.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Random bytes of a token.
const LENGTH: usize = 32;

/// A token, in hexadecimal. Each start of the host makes a new one.
pub struct OwnerToken(String);

impl OwnerToken {
    /// Where it lies in a network's data folder.
    pub fn path(network_dir: &Path) -> PathBuf {
        network_dir.join("owner-token")
    }

    /// Makes one and writes it into the data folder, readable by the host's user alone.
    ///
    /// # Errors
    ///
    /// When there are no random bytes, or it cannot be written.
    pub fn create(network_dir: &Path) -> Result<Self> {
        let mut bytes = [0; LENGTH];
        File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut bytes))
            .context("failed to read random bytes")?;
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = Self::path(network_dir);
        let unfinished = path.with_extension("tmp");
        let written = || -> std::io::Result<()> {
            // One that was left behind may have other permissions.
            let _ = std::fs::remove_file(&unfinished);
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o600);
            options.open(&unfinished)?.write_all(token.as_bytes())?;
            std::fs::rename(&unfinished, &path)
        };
        written().with_context(|| format!("failed to write {}", path.display()))?;
        Ok(Self(token))
    }

    /// That of a running host, for a program of the same user.
    ///
    /// # Errors
    ///
    /// When it is not there or may not be read.
    pub fn read(network_dir: &Path) -> Result<String> {
        let path = Self::path(network_dir);
        std::fs::read_to_string(&path)
            .map(|token| token.trim().to_owned())
            .with_context(|| {
                format!(
                    "failed to read {}: only the user of the host can, on its machine",
                    path.display()
                )
            })
    }

    /// Whether `given` is this token. Takes as long for any text of its length.
    pub fn is(&self, given: &str) -> bool {
        let same = self.0.bytes().zip(given.bytes());
        self.0.len() == given.len() && same.fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_is_new_each_time_and_for_the_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let first = OwnerToken::create(folder.path()).unwrap();
        let text = OwnerToken::read(folder.path()).unwrap();
        assert!(first.is(&text) && text.len() == 2 * LENGTH);
        assert!(
            !first.is("") && !first.is(&text[1..]) && !first.is(&text.replace(&text[..1], "x"))
        );
        let mode = std::fs::metadata(OwnerToken::path(folder.path()))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = OwnerToken::create(folder.path()).unwrap();
        assert!(
            !second.is(&text),
            "a token of an earlier run is worth nothing"
        );
    }
}
