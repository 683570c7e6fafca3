//! Where the corpora are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Bytes of a target's corpus at most: it is kept with the source.
pub const MOST_BYTES: usize = 64 << 10;

/// The folder with a folder for each target.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The files of a target's corpus, by name.
///
/// # Errors
///
/// When they cannot be read.
pub fn files(target: &str) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let folder = folder().join(target);
    let mut files = Vec::new();
    let entries = std::fs::read_dir(&folder)
        .with_context(|| format!("failed to list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let bytes =
            std::fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
        files.push((path, bytes));
    }
    files.sort();
    Ok(files)
}
