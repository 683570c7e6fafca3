//! Our plugins stay small.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::fs;

use xtask::{plugins, workspace};

/// Most bytes of a plugin, with the names of its functions.
const MOST: u64 = 150_000;

/// watch has regular expressions, addresses both ways, two tables and settings that queries change: docs/performance.md says
/// what takes how much.
const MOST_OF_WATCH: u64 = 240_000;

#[test]
fn no_plugin_of_ours_is_larger_than_it_may_be() {
    let root = workspace::root();
    let mut seen = 0;
    for plugin in plugins::find(&root).unwrap() {
        if plugin.test {
            continue;
        }
        let path = plugin.path(&root);
        let size = fs::metadata(&path).unwrap().len();
        let most = match plugin.name.as_str() {
            "watch" => MOST_OF_WATCH,
            _ => MOST,
        };
        assert!(size < most, "{} has {size} bytes of {most}", path.display());
        seen += 1;
    }
    assert_eq!(seen, 6);
}
