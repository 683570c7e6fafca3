//! Where a compiled plugin goes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::names;

/// Puts a copy of `built` at `path`, with shorter names of functions unless it is to be `as_it_is`; returns its size in bytes.
///
/// A file that did not change is not touched, so that a host which watches the folder is not disturbed; one that did is
/// replaced by a rename, so that nobody reads half of it.
///
/// # Errors
///
/// When a file cannot be read or written.
pub fn place(built: &Path, path: &Path, as_it_is: bool) -> Result<usize> {
    let mut bytes =
        fs::read(built).with_context(|| format!("failed to read {}", built.display()))?;
    if !as_it_is {
        bytes = names::shorten(&bytes);
    }
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(bytes.len());
    }
    let folder = path.parent().context("a plugin's path has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let partial = path.with_extension(format!("wasm.{}", std::process::id()));
    fs::write(&partial, &bytes)
        .with_context(|| format!("failed to write {}", partial.display()))?;
    fs::rename(&partial, path).with_context(|| format!("failed to write {}", path.display()))?;
    Ok(bytes.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn a_file_that_did_not_change_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let built = folder.path().join("built");
        let path = folder.path().join("plugins/a.wasm");
        fs::write(&built, b"one").unwrap();
        assert_eq!(place(&built, &path, false).unwrap(), 3);
        let first = fs::metadata(&path).unwrap().modified().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        place(&built, &path, false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), first);
        fs::write(&built, b"other").unwrap();
        assert_eq!(place(&built, &path, false).unwrap(), 5);
        assert_eq!(fs::read(&path).unwrap(), b"other");
        let files = fs::read_dir(folder.path().join("plugins")).unwrap().count();
        assert_eq!(files, 1, "nothing partial is left behind");
    }
}
