//! The state version that each plugin's state was made with, in `state-versions.json` in the data folder.
//!
//! A plugin that comes with another number gets an empty state and empty tables, and starts with the first block.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The file.
#[derive(Debug, Clone)]
pub struct StateVersions {
    path: PathBuf,
}

impl StateVersions {
    /// The file at this place; it need not be there.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The version of a plugin's state; none when it has no state yet.
    ///
    /// # Errors
    ///
    /// When the file is there and cannot be read: which state is of which version is not known then.
    pub fn get(&self, plugin: &str) -> Result<Option<u32>> {
        Ok(self.read()?.get(plugin).copied())
    }

    /// Notes the version of a plugin's state.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or written.
    pub fn set(&self, plugin: &str, version: u32) -> Result<()> {
        let mut versions = self.read()?;
        if versions.insert(plugin.to_owned(), version) == Some(version) {
            return Ok(());
        }
        let unfinished = self.path.with_extension("tmp");
        let text = serde_json::to_vec_pretty(&versions)?;
        std::fs::write(&unfinished, text)
            .and_then(|()| std::fs::rename(&unfinished, &self.path))
            .with_context(|| format!("failed to write {}", self.path.display()))
    }

    fn read(&self) -> Result<BTreeMap<String, u32>> {
        match std::fs::read(&self.path) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{} is damaged", self.path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => {
                Err(error).with_context(|| format!("failed to read {}", self.path.display()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn versions_are_kept_by_plugin_and_a_damaged_file_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let versions = StateVersions::new(folder.path().join("state-versions.json"));
        assert_eq!(versions.get("a").unwrap(), None);
        versions.set("a", 1).unwrap();
        versions.set("b", 2).unwrap();
        versions.set("a", 3).unwrap();
        assert_eq!(versions.get("a").unwrap(), Some(3));
        assert_eq!(versions.get("b").unwrap(), Some(2));
        std::fs::write(folder.path().join("state-versions.json"), "{").unwrap();
        assert!(
            versions
                .get("a")
                .unwrap_err()
                .to_string()
                .contains("damaged")
        );
    }
}
