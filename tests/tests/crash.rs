//! A host that is killed at any moment goes on where it was: nothing is lost and nothing comes twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::thread;
use std::time::Duration;

use bitcoin::Network;
use blockmill_tests::data;
use blockmill_tests::host::{ALL_ROWS, Host, Installation};
use blockmill_tests::rows;
use devnet::{Behaviour, Config, Devnet, Mining};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const LIMIT: Duration = Duration::from_secs(120);

/// Kills in both tests together: at least 50.
const KILLS_WHILE_SYNCING: u32 = 32;
const KILLS_IN_REORGS: u32 = 20;

/// One whose changes reach the disk in many small flushes, so that a kill finds them half done.
fn installation(devnet: &Devnet) -> Installation {
    Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .key("database", "flush_interval = \"20ms\"")
        .key("database", "state_cache = \"1 MB\"")
        .plugins(ALL_ROWS)
}

/// Starts a host and waits until its stores are open.
fn started(installation: &Installation, start: u32) -> Host {
    let mut host = installation.spawn(&[]).unwrap();
    host.wait_for_lines("api address", start, LIMIT).unwrap();
    host
}

/// Coins and rows are those of a host that nobody disturbed.
fn assert_undisturbed(installation: &Installation, devnet: &Devnet) {
    let calm = Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .plugins(ALL_ROWS);
    calm.run_to_height(devnet.status().height, LIMIT).unwrap();
    let coins = installation.txoutset().unwrap();
    assert_eq!(coins, calm.txoutset().unwrap());
    assert_eq!(coins["muhash"], devnet.utxo_set().unwrap().muhash);
    let ours = rows::anchored(&installation.database()).unwrap();
    let theirs = rows::anchored(&calm.database()).unwrap();
    rows::same(&ours, &theirs).unwrap();
}

#[test]
fn killed_at_random_moments_of_the_sync_it_ends_with_the_coins_and_rows_of_an_undisturbed_run() {
    let seed = 5;
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let devnet = Devnet::start(Config {
        files: vec![data::regtest("main.dat")],
        // A slow line, so that the sync lasts for many kills.
        behaviour: Behaviour {
            latency_ms: 60,
            ..Behaviour::default()
        },
        ..Config::default()
    })
    .unwrap();
    let tip = devnet.status().tip.to_string();
    let mut kills = 0;
    while kills < KILLS_WHILE_SYNCING {
        let installation = installation(&devnet)
            .key("chain", "download_window = 2")
            .key("chain", "blocks_per_peer = 1");
        // A kill before the first flush, in the first blocks, in the full ones.
        for start in 1..=16 {
            let host = started(&installation, start);
            let pause = rng.random_range(0..500);
            thread::sleep(Duration::from_millis(pause));
            let height = host
                .get("tip")
                .map_or_else(|_| 0.into(), |tip| tip["height"].clone());
            host.kill9().unwrap();
            kills += 1;
            println!("kill {kills} after {pause} ms at {height}");
        }
        let mut host = installation.start().unwrap();
        host.wait_for_tip(&tip, LIMIT).unwrap();
        host.stop().unwrap();
        assert_undisturbed(&installation, &devnet);
    }
}

#[test]
fn killed_at_random_moments_of_reorgs_it_ends_with_the_coins_and_rows_of_an_undisturbed_run() {
    let seed = 6;
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let devnet = Devnet::start(Config {
        seed,
        network: Network::Regtest,
        mining: Mining {
            txs_per_block: 20,
            ..Config::default().mining
        },
        behaviour: Behaviour {
            latency_ms: 5,
            ..Behaviour::default()
        },
        ..Config::default()
    })
    .unwrap();
    devnet.mine(125).unwrap();
    let installation = installation(&devnet);
    for kill in 1..=KILLS_IN_REORGS {
        let mut host = started(&installation, kill);
        // Every other time the reorg begins at rest, otherwise in the recovery from the kill before.
        if kill % 2 == 1 {
            host.wait_for_tip(&devnet.status().tip.to_string(), LIMIT)
                .unwrap();
        }
        let depth = rng.random_range(1..10);
        devnet.reorg(depth, depth + 1).unwrap();
        let pause = rng.random_range(0..400);
        thread::sleep(Duration::from_millis(pause));
        host.kill9().unwrap();
        println!("kill {kill} {pause} ms after a reorg of {depth}");
    }
    let mut host = installation.start().unwrap();
    host.wait_for_tip(&devnet.status().tip.to_string(), LIMIT)
        .unwrap();
    host.stop().unwrap();
    assert_undisturbed(&installation, &devnet);
}
