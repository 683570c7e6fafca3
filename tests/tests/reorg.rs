//! Whatever the chain does, state and rows are those of a host that has only ever seen the branch that won.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::time::Duration;

use bitcoin::Network;
use blockmill_tests::data;
use blockmill_tests::host::{ALL_ROWS, Installation};
use blockmill_tests::rows;
use devnet::{Config, Devnet, Mining};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const LIMIT: Duration = Duration::from_secs(120);

/// Coins and rows are those of a host that syncs the chain as it is now.
fn assert_as_a_fresh_sync(installation: &Installation, devnet: &Devnet) {
    let status = devnet.status();
    let fresh = Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .plugins(ALL_ROWS);
    fresh.run_to_height(status.height, LIMIT).unwrap();
    let coins = fresh.txoutset().unwrap();
    assert_eq!(coins["bestblock"], status.tip.to_string());
    assert_eq!(coins, installation.txoutset().unwrap());
    assert_eq!(coins["muhash"], devnet.utxo_set().unwrap().muhash);
    let theirs = rows::anchored(&fresh.database()).unwrap();
    let ours = rows::anchored(&installation.database()).unwrap();
    assert_eq!(theirs["block"].len(), status.height as usize + 1);
    for table in ["tx", "input", "output"] {
        assert!(theirs[table].len() > status.height as usize, "{table}");
    }
    rows::same(&ours, &theirs).unwrap();
}

#[test]
fn after_a_reorg_of_six_blocks_coins_are_those_of_core_and_rows_those_of_a_fresh_sync() {
    let devnet = Devnet::serve_file(data::regtest("main.dat"), Network::Regtest).unwrap();
    let installation = Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .plugins(ALL_ROWS);
    let mut host = installation.start().unwrap();
    let before = host
        .coins_at(&devnet.status().tip.to_string(), LIMIT)
        .unwrap();
    assert_eq!(
        before["muhash"],
        "f91b74827a4a0d17ccaf68f65aaab0a18266dc7e2c745f1a859dc9951c34307e"
    );

    devnet.load(data::regtest("branch.dat")).unwrap();
    let tip = "14d7bfd71eed2bc3a9823a5d6e53271dffef5da8021ef818649af79ac0088e59";
    host.wait_for("one reorg", LIMIT, |status| {
        (status["reorgs"] == 1).then_some(())
    })
    .unwrap();
    let after = host.coins_at(tip, LIMIT).unwrap();
    assert_eq!(after["height"], 132);
    assert_eq!(after["bestblock"], tip);
    assert_eq!(after["txouts"], 16_377);
    assert_eq!(after["total_sats"], 6_600 * 100_000_000_u64);
    assert_eq!(
        after["muhash"],
        "4f9e4e6f2dfac3ea10770abdde44160ecad39d96f819c92be3d8ecf9289312ea"
    );
    assert_eq!(
        after["hash_serialized_3"],
        "10ee3deda43b5376c42476ad49cded34689ac2b91dfa6da7c1a76120c88f93a7"
    );
    host.stop().unwrap();
    assert_as_a_fresh_sync(&installation, &devnet);
}

#[test]
fn any_sequence_of_blocks_and_reorgs_leaves_what_a_fresh_sync_of_the_surviving_chain_leaves() {
    for seed in [1, 2, 3] {
        println!("seed {seed}");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let devnet = Devnet::start(Config {
            seed,
            mining: Mining {
                txs_per_block: 8,
                ..Config::default().mining
            },
            ..Config::default()
        })
        .unwrap();
        devnet.mine(104).unwrap();
        let installation = Installation::new("regtest", &[devnet.p2p_addr()])
            .unwrap()
            .key("database", "flush_interval = \"50ms\"")
            .plugins(ALL_ROWS);
        let mut host = installation.start().unwrap();
        let mut steps = Vec::new();
        for _ in 0..12 {
            if rng.random_bool(0.5) {
                let blocks = rng.random_range(1..4);
                steps.push(format!("mine {blocks}"));
                devnet.mine(blocks).unwrap();
            } else {
                let depth = rng.random_range(1..12);
                let length = depth + rng.random_range(1..3);
                steps.push(format!("reorg {depth} {length}"));
                devnet.reorg(depth, length).unwrap();
            }
            // Now and then the next step comes while the host is at the one before.
            if rng.random_bool(0.6) {
                host.wait_for_tip(&devnet.status().tip.to_string(), LIMIT)
                    .unwrap_or_else(|error| panic!("seed {seed}, {steps:?}: {error:#}"));
            }
            if rng.random_bool(0.15) {
                steps.push("restart".to_owned());
                host.stop().unwrap();
                host = installation.start().unwrap();
            }
        }
        println!("seed {seed}: {steps:?}");
        host.wait_for_tip(&devnet.status().tip.to_string(), LIMIT)
            .unwrap_or_else(|error| panic!("seed {seed}, {steps:?}: {error:#}"));
        host.stop().unwrap();
        assert_as_a_fresh_sync(&installation, &devnet);
    }
}
