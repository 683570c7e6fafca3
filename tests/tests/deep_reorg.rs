//! Reorgs deeper than the undo journal: what cannot be taken back is built anew from the kept blocks, and comes out the
//! same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use blockmill_tests::host::Host;
use devnet::Devnet;

const LIMIT: Duration = Duration::from_secs(90);

const TABLES: &str = "\n[plugins.utxo-tracker]\n\n[plugins.tx-writer]\n\n[plugins.fee-estimator]\n";

/// Waits for the devnet's tip and compares the coin sets.
fn agrees(host: &mut Host, devnet: &Devnet) {
    let theirs = devnet.utxo_set().unwrap();
    host.wait_for_height(theirs.height, LIMIT).unwrap();
    let what = "the devnet's tip in every plugin";
    let hash = theirs.bestblock.to_string();
    host.wait_for(what, LIMIT, |status| {
        let plugins = status["plugins"].as_array()?;
        plugins
            .iter()
            .all(|plugin| plugin["hash"] == hash)
            .then_some(())
    })
    .unwrap();
    // The last block may still be on its way to the disk, which is what is asked here.
    let until = Instant::now() + LIMIT;
    let ours = loop {
        match host.txoutset() {
            Ok(ours) if ours["bestblock"] == hash => break ours,
            other => assert!(Instant::now() < until, "{other:?}\n{}", host.log()),
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(ours["muhash"], theirs.muhash);
    assert_eq!(ours["hash_serialized_3"], theirs.hash_serialized_3);
    assert_eq!(ours["txouts"], theirs.txouts);
}

#[test]
fn a_reorg_deeper_than_the_undo_journal_is_followed_from_the_kept_blocks() {
    let devnet = Devnet::new(11).unwrap();
    devnet.mine(130).unwrap();
    let toml = format!("{TABLES}\n[chain]\nundo_depth = 3\n");
    let mut host = Host::start_with(&[devnet.p2p_addr()], &toml).unwrap();
    agrees(&mut host, &devnet);

    devnet.reorg(2, 3).unwrap();
    agrees(&mut host, &devnet);
    assert!(
        !host.log().contains("built anew"),
        "two blocks are in the journal"
    );

    devnet.reorg(12, 14).unwrap();
    agrees(&mut host, &devnet);
    assert!(host.log().contains("built anew"), "twelve blocks are not");
    host.stop().unwrap();
}
