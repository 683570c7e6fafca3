//! The coin set's commitments against those that Bitcoin Core printed for the same blocks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

use bitcoin::Network;
use devnet::{Config, Devnet};

fn regtest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../data/regtest")
        .join(name)
}

/// Public chain data, which is not in the repository.
fn public(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("BLOCKMILL_TEST_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    let path = folder.join(name);
    if !path.exists() {
        println!("skipped: no {}", path.display());
        return None;
    }
    Some(path)
}

fn assert_set(devnet: &Devnet, height: u32, txouts: u64, btc: u64, hashes: &[&str]) {
    let set = devnet.utxo_set().unwrap();
    assert_eq!(set.height, height);
    assert_eq!(set.txouts, txouts, "txouts at {height}");
    assert_eq!(set.total_sats, btc * 100_000_000, "total at {height}");
    assert_eq!(set.muhash, hashes[0], "muhash at {height}");
    if let Some(serialized) = hashes.get(1) {
        assert_eq!(
            set.hash_serialized_3, *serialized,
            "hash_serialized_3 at {height}"
        );
    }
}

#[test]
fn the_empty_set_has_cores_muhash() {
    let devnet = Devnet::new(1).unwrap();
    assert_set(
        &devnet,
        0,
        0,
        0,
        &["dd5ad2a105c2d29495f577245c357409002329b9f4d6182c0af3dc2f462555c8"],
    );
}

#[test]
fn mainnet_coin_sets_are_cores() {
    let Some(path) = public("blocks/mainnet-0-4312.dat") else {
        return;
    };
    let devnet = Devnet::start(Config {
        network: Network::Bitcoin,
        files: vec![path],
        max_height: Some(170),
        ..Config::default()
    })
    .unwrap();
    assert_set(
        &devnet,
        170,
        171,
        8_500,
        &["b497ee695f714fb45632085fda981c5828816d0e181d55be45227654db948e30"],
    );
    devnet.limit_height(Some(255)).unwrap();
    assert_set(
        &devnet,
        255,
        260,
        12_750,
        &[
            "60e29020ee287387a5b311fa9d665e232d41fb14f6243342cf1bdd967cc82117",
            "507108bd18e2319f0a7102cfa1c7ffea10c9b1a47ff061d8098bc51a92e40241",
        ],
    );
    devnet.limit_height(Some(1_000)).unwrap();
    assert_set(
        &devnet,
        1_000,
        998,
        50_000,
        &["96c396fb1d497fe3738ee204d73ea314680ba6529ccca5fe2023a600ce6a9cc7"],
    );
    devnet.limit_height(None).unwrap();
    assert_set(
        &devnet,
        4_312,
        4_149,
        215_600,
        &["8ddda2747fb03d2bf57e08a23d4cab90f9e062c28bf5822760edc5238128a7e5"],
    );
}

const AT_101: &[&str] = &["35c2767802270a5d0fc0083090f9bac0c6fcc60d7e6b595b279475a703a90330"];
const AT_124: &[&str] = &["ce8d7ef686cb5e4659d5211a62c480f7b475ad13d43f95e1720aad7fd90eb009"];
const AT_130: &[&str] = &[
    "f91b74827a4a0d17ccaf68f65aaab0a18266dc7e2c745f1a859dc9951c34307e",
    "5698000273f33031dbef8e62c4dd942ff28045b8e7ca911424e4e9179b9cf052",
];
const AT_132: &[&str] = &[
    "4f9e4e6f2dfac3ea10770abdde44160ecad39d96f819c92be3d8ecf9289312ea",
    "10ee3deda43b5376c42476ad49cded34689ac2b91dfa6da7c1a76120c88f93a7",
];

#[test]
fn regtest_coin_sets_are_cores_on_the_way_up_down_and_over_the_reorg() {
    let devnet = Devnet::start(Config {
        files: vec![regtest("main.dat")],
        max_height: Some(101),
        ..Config::default()
    })
    .unwrap();
    assert_set(&devnet, 101, 400, 5_050, AT_101);
    devnet.limit_height(Some(124)).unwrap();
    assert_set(&devnet, 124, 13_860, 6_200, AT_124);
    devnet.limit_height(None).unwrap();
    assert_set(&devnet, 130, 17_470, 6_500, AT_130);
    devnet.limit_height(Some(124)).unwrap();
    assert_set(&devnet, 124, 13_860, 6_200, AT_124);
    devnet.limit_height(None).unwrap();
    assert_set(&devnet, 130, 17_470, 6_500, AT_130);

    devnet.load(regtest("branch.dat")).unwrap();
    let status = devnet.status();
    assert_eq!(
        status.tip.to_string(),
        "14d7bfd71eed2bc3a9823a5d6e53271dffef5da8021ef818649af79ac0088e59"
    );
    assert_set(&devnet, 132, 16_377, 6_600, AT_132);
}

#[test]
fn the_pool_after_the_reorg_is_as_large_as_cores() {
    let devnet = Devnet::serve_file(regtest("main.dat"), Network::Regtest).unwrap();
    let txids = devnet.submit_file(regtest("mempool.hex")).unwrap();
    assert_eq!(txids.len(), 60);
    let table = std::fs::read_to_string(regtest("mempool.tsv")).unwrap();
    {
        let state = devnet.node().state();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split('\t').collect();
            let entry = state.pool().get(&fields[0].parse().unwrap()).unwrap();
            assert_eq!(entry.fee.to_string(), fields[1], "fee of {}", fields[0]);
            assert_eq!(
                entry.vsize().to_string(),
                fields[2],
                "size of {}",
                fields[0]
            );
        }
    }
    devnet.load(regtest("branch.dat")).unwrap();
    assert_eq!(devnet.status().mempool, 1_319);
}

#[test]
fn a_branch_that_is_read_before_its_parents_waits_for_them() {
    let devnet = Devnet::serve_file(regtest("branch.dat"), Network::Regtest).unwrap();
    assert_eq!(devnet.status().height, 0);
    assert_eq!(devnet.node().state().chain().orphans(), 8);
    devnet.load(regtest("main.dat")).unwrap();
    assert_eq!(devnet.node().state().chain().orphans(), 0);
    assert_set(&devnet, 132, 16_377, 6_600, AT_132);
}
