//! The folder of capsules: one file a failure, a bounded number of them a plugin.

use super::capsule::Capsule;
use crate::config::Config;
use anyhow::{Context, Result};
use bitcoin::hashes::{Hash, sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// What tells one failure from another: a capsule of the same one takes the place of the earlier.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Failure {
    pub plugin: String,
    /// SHA-256 of the plugin's file.
    pub component: String,
    /// The kind of failure in a word.
    pub class: String,
    pub cause: String,
    /// The block's hash, or what was asked.
    pub given: String,
    /// The block's height.
    pub height: Option<u32>,
}

impl Failure {
    /// The name of its file.
    fn file(&self) -> String {
        let parts = [&self.component, &self.class, &self.cause, &self.given];
        let text: Vec<u8> = parts
            .iter()
            .flat_map(|part| part.bytes().chain([0]))
            .collect();
        let id: String = sha256::Hash::hash(&text)
            .to_string()
            .chars()
            .take(8)
            .collect();
        let place = self.height.map_or("query".to_owned(), |at| at.to_string());
        format!("{}.{place}.{}.{id}.capsule", self.plugin, self.class)
    }
}

/// The folder, and how much may be in it.
pub struct Capsules {
    folder: PathBuf,
    /// Files of each plugin.
    most: usize,
    max_bytes: usize,
    /// Failures of this run that have a capsule, and whether it holds what the plugin read.
    known: Mutex<HashMap<Failure, bool>>,
}

/// Failures of this run that are remembered.
const MAX_KNOWN: usize = 1_000;

impl Capsules {
    /// The folder `capsules` in the network's data, unless the configuration wants none.
    pub fn of(config: &Config) -> Option<Arc<Self>> {
        let plugins = &config.plugins;
        (plugins.capsules > 0).then(|| {
            let folder = config.network_dir().join("capsules");
            let most = plugins.capsules as usize;
            let max_bytes = usize::try_from(plugins.capsule_size_limit).unwrap_or(usize::MAX);
            Arc::new(Self::new(folder, most, max_bytes))
        })
    }

    /// A folder of up to `most` capsules a plugin, each of at most `max_bytes`. It is made with the first of them.
    pub fn new(folder: PathBuf, most: usize, max_bytes: usize) -> Self {
        Self {
            folder,
            most,
            max_bytes,
            known: Mutex::default(),
        }
    }

    /// The most bytes of one capsule.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// Whether the failure has a capsule already, and whether that one holds what the plugin read.
    pub fn known(&self, failure: &Failure) -> Option<bool> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(failure).copied()
    }

    /// Where the capsule of a failure is.
    pub fn path(&self, failure: &Failure) -> PathBuf {
        self.folder.join(failure.file())
    }

    /// Writes a capsule, whole or not at all, and removes the oldest of the plugin when there are too many.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn keep(&self, failure: &Failure, capsule: &Capsule) -> Result<PathBuf> {
        let path = self.path(failure);
        let bytes = capsule.encode(self.max_bytes)?;
        std::fs::create_dir_all(&self.folder)
            .and_then(|()| crate::whole_file::replace(&path, &bytes))
            .with_context(|| format!("failed to write {}", path.display()))?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(failure.clone(), capsule.header.recorded);
        drop(known);
        self.remove_oldest(&failure.plugin, &path)
            .context("failed to remove old capsules")?;
        Ok(path)
    }

    fn remove_oldest(&self, plugin: &str, newest: &Path) -> std::io::Result<()> {
        let prefix = format!("{plugin}.");
        let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(&prefix) && name.ends_with(".capsule") && entry.path() != newest {
                files.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        files.sort();
        let too_many = (files.len() + 1).saturating_sub(self.most);
        for (_, path) in files.into_iter().take(too_many) {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::super::capsule::{Given, tests::example};
    use super::*;

    fn failure(plugin: &str, height: u32) -> Failure {
        Failure {
            plugin: plugin.to_owned(),
            component: "c".to_owned(),
            class: "trap".to_owned(),
            cause: "unreachable".to_owned(),
            given: height.to_string(),
            height: Some(height),
        }
    }

    fn files(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_failure_has_one_file_and_a_plugin_a_bounded_number_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let capsules = Capsules::new(folder.path().join("capsules"), 3, 1 << 20);
        let capsule = example(Given::Start);
        for height in 0..5 {
            let failure = failure("one", height);
            assert_eq!(capsules.known(&failure), None);
            let path = capsules.keep(&failure, &capsule).unwrap();
            // The order of the files is that of their times.
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(height.into());
            let file = std::fs::File::options().append(true).open(&path).unwrap();
            file.set_modified(time).unwrap();
            assert_eq!(capsules.keep(&failure, &capsule).unwrap(), path);
            file.set_modified(time).ok();
            std::fs::File::options()
                .append(true)
                .open(&path)
                .unwrap()
                .set_modified(time)
                .unwrap();
            assert_eq!(capsules.known(&failure), Some(true));
        }
        capsules.keep(&failure("one-b", 0), &capsule).unwrap();
        let names = files(&folder.path().join("capsules"));
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(names[0].starts_with("one-b.0.trap."), "{names:?}");
        assert!(names[1].starts_with("one.2.trap."), "{names:?}");
    }
}
