//! The data of tests: what is in `tests/data`, and what is too large for the repository.

use std::path::{Path, PathBuf};

use xtask::workspace;

/// A file of `tests/data/regtest`.
pub fn regtest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("data/regtest")
        .join(name)
}

/// A file of the shared test data, which `BLOCKMILL_TEST_DATA` names; `None`, with a line that says so, where it is missing.
pub fn shared(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("BLOCKMILL_TEST_DATA")
        .map_or_else(|| workspace::root().join("../shared/data"), PathBuf::from);
    let path = folder.join(name);
    if path.is_file() {
        return Some(path);
    }
    crate::skipped(&format!(
        "{} is not there (BLOCKMILL_TEST_DATA names its folder)",
        path.display()
    ));
    None
}
