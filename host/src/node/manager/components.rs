//! Copies of the components that ran, by hash: to go back to, and to go on with while a new one is made ready.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// The folder `components` in the data folder.
pub(crate) struct Components(PathBuf);

impl Components {
    pub(crate) fn new(folder: &Path) -> Self {
        Self(folder.join("components"))
    }

    fn path(&self, sha256: &str) -> PathBuf {
        self.0.join(format!("{sha256}.wasm"))
    }

    /// Keeps a component.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(crate) fn keep(&self, sha256: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(sha256);
        if path.exists() {
            return Ok(());
        }
        std::fs::create_dir_all(&self.0)
            .and_then(|()| crate::whole_file::replace(&path, bytes))
            .with_context(|| format!("failed to keep the component as {}", path.display()))
    }

    /// The bytes of a component that was kept.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub(crate) fn get(&self, sha256: &str) -> Result<Vec<u8>> {
        let path = self.path(sha256);
        std::fs::read(&path)
            .with_context(|| format!("the component {} is not kept any more", path.display()))
    }

    /// Forgets the components that nobody wants.
    pub(crate) fn retain(&self, wanted: impl Fn(&str) -> bool) {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        for entry in entries {
            let path = entry.path();
            let name = path.file_stem().and_then(|name| name.to_str());
            if name.is_some_and(|name| !wanted(name)) {
                // One that stays is only some bytes.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn components_are_kept_by_hash_until_nobody_wants_them() {
        let folder = tempfile::tempdir().unwrap();
        let components = Components::new(folder.path());
        assert!(components.get("aa").is_err());
        components.keep("aa", b"one").unwrap();
        components.keep("bb", b"two").unwrap();
        components.retain(|sha256| sha256 == "bb");
        assert!(components.get("aa").is_err());
        assert_eq!(components.get("bb").unwrap(), b"two");
    }
}
