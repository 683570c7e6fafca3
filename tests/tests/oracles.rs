//! The coin set is Bitcoin Core's: real blocks from a peer, through the plugins, and the hash that Core printed of the same blocks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::time::Duration;

use bitcoin::Network;
use blockmill_tests::data;
use blockmill_tests::host::Installation;
use blockmill_tests::rows;
use devnet::{Config, Devnet};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(180);
const PLUGINS: &str = "\n[plugins.utxo-tracker]\n\n[plugins.tx-writer]\n";

/// A line of Core's `gettxoutsetinfo`.
struct Oracle {
    height: u32,
    txouts: u64,
    total_btc: u64,
    muhash: &'static str,
    hash_serialized_3: Option<&'static str>,
}

impl Oracle {
    fn check(&self, set: &Value) {
        assert_eq!(set["height"], self.height);
        assert_eq!(set["txouts"], self.txouts, "at {}", self.height);
        assert_eq!(set["total_sats"], self.total_btc * 100_000_000);
        assert_eq!(set["muhash"], self.muhash, "at {}", self.height);
        if let Some(hash) = self.hash_serialized_3 {
            assert_eq!(set["hash_serialized_3"], hash, "at {}", self.height);
        }
    }
}

const fn oracle(height: u32, txouts: u64, total_btc: u64, muhash: &'static str) -> Oracle {
    Oracle {
        height,
        txouts,
        total_btc,
        muhash,
        hash_serialized_3: None,
    }
}

#[test]
fn the_first_4312_blocks_of_mainnet_leave_the_coins_that_core_counts_at_each_height_to_stop_at() {
    let Some(file) = data::shared("blocks/mainnet-0-4312.dat") else {
        return;
    };
    let devnet = Devnet::start(Config {
        network: Network::Bitcoin,
        files: vec![file],
        keep_coins: false,
        ..Config::default()
    })
    .unwrap();
    let installation = Installation::new("mainnet", &[devnet.p2p_addr()])
        .unwrap()
        .key("chain", "minimum_work = \"0x00\"")
        .plugins(PLUGINS);
    let oracles = [
        oracle(
            170,
            171,
            8_500,
            "b497ee695f714fb45632085fda981c5828816d0e181d55be45227654db948e30",
        ),
        Oracle {
            hash_serialized_3: Some(
                "507108bd18e2319f0a7102cfa1c7ffea10c9b1a47ff061d8098bc51a92e40241",
            ),
            ..oracle(
                255,
                260,
                12_750,
                "60e29020ee287387a5b311fa9d665e232d41fb14f6243342cf1bdd967cc82117",
            )
        },
        oracle(
            1_000,
            998,
            50_000,
            "96c396fb1d497fe3738ee204d73ea314680ba6529ccca5fe2023a600ce6a9cc7",
        ),
        oracle(
            4_312,
            4_149,
            215_600,
            "8ddda2747fb03d2bf57e08a23d4cab90f9e062c28bf5822760edc5238128a7e5",
        ),
    ];
    for oracle in oracles {
        installation.run_to_height(oracle.height, LIMIT).unwrap();
        oracle.check(&installation.txoutset().unwrap());
        let blocks = rows::query(
            &installation.database(),
            "SELECT count(*), min(height), max(height) FROM block",
        )
        .unwrap();
        let height = oracle.height.to_string();
        assert_eq!(
            blocks,
            [[(oracle.height + 1).to_string(), "0".into(), height]]
        );
    }
    // The first payment there ever was, as an explorer shows it.
    let payment = "SELECT height, position, fee, total_out FROM tx WHERE lower(hex(txid)) = \
                   'f4184fc596403b9d638783cf57adfe4c75c605f6356fbc91338530e9831e9e16'";
    assert_eq!(
        rows::query(&installation.database(), payment).unwrap(),
        [["170", "1", "0", "5000000000"]]
    );
}

#[test]
fn blocks_of_regtest_with_every_kind_of_script_leave_the_coins_that_core_counts() {
    let devnet = Devnet::serve_file(data::regtest("main.dat"), Network::Regtest).unwrap();
    let installation = Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .plugins(PLUGINS);
    let oracles = [
        oracle(
            101,
            400,
            5_050,
            "35c2767802270a5d0fc0083090f9bac0c6fcc60d7e6b595b279475a703a90330",
        ),
        oracle(
            124,
            13_860,
            6_200,
            "ce8d7ef686cb5e4659d5211a62c480f7b475ad13d43f95e1720aad7fd90eb009",
        ),
        Oracle {
            hash_serialized_3: Some(
                "5698000273f33031dbef8e62c4dd942ff28045b8e7ca911424e4e9179b9cf052",
            ),
            ..oracle(
                130,
                17_470,
                6_500,
                "f91b74827a4a0d17ccaf68f65aaab0a18266dc7e2c745f1a859dc9951c34307e",
            )
        },
    ];
    for oracle in oracles {
        installation.run_to_height(oracle.height, LIMIT).unwrap();
        oracle.check(&installation.txoutset().unwrap());
    }
    let totals = "SELECT sum(tx_count), sum(total_fees) FROM block";
    assert_eq!(
        rows::query(&installation.database(), totals).unwrap(),
        [["7573", "25899628"]]
    );
}
