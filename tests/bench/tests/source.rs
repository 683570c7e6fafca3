//! The measurement of a sync from a folder measures what it says.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use blockmill_bench::blocks::Chain;
use blockmill_bench::report::Report;
use blockmill_bench::source::{From, measure};
use std::path::Path;

#[test]
fn a_small_chain_comes_from_a_peer_and_from_the_folder_which_is_not_stored_again() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = xtask::workspace::target(&root).canonicalize().unwrap();
    let programs = target.join("debug");
    let folder = tempfile::tempdir().unwrap();
    let file = root.join("tests/data/regtest/main.dat");
    let chain = Chain::find(Some(&file), folder.path()).unwrap();
    assert_eq!(chain.height(), 130);
    let mut report = Report::default();
    let rows = measure(&target, &programs, folder.path(), &chain, 1, &mut report)
        .expect("the programs and the plugins: cargo xtask build");
    let kinds: Vec<(From, usize)> = rows.iter().map(|row| (row.from, row.plugins)).collect();
    let all = [From::Peer, From::Folder, From::Masked];
    let expected = [3, 0].map(|plugins| all.map(|from| (from, plugins)));
    assert_eq!(kinds, expected.concat());
    for row in &rows {
        assert!(row.usages.len() == 1 && row.usages.iter().all(|usage| usage.wall > 0.0));
        assert!(row.data > row.own_blocks);
        // Of the folder's blocks none but the genesis block is stored.
        let stored = row.own_blocks >= chain.bytes as u64;
        assert_eq!(stored, row.from == From::Peer, "{row:?}");
    }
}
