//! A plugin that was built against an earlier version of `wit/plugin.wit` still runs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::time::Duration;

use blockmill_tests::host::Installation;
use blockmill_tests::rows;
use devnet::{Config, Devnet};

const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn a_plugin_of_the_first_version_loads_follows_blocks_and_pool_and_answers() {
    let devnet = Devnet::start(Config {
        seed: 35,
        ..Config::default()
    })
    .unwrap();
    devnet.mine(110).unwrap();
    let installation = Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .plugins(
            "\n[plugins.utxo-tracker]\n[plugins.tx-writer]\n[plugins.v0-1-0]\nfile = \"test/v0-1-0.wasm\"\n",
        );
    let mut host = installation.start().unwrap();
    host.wait_for_tip(&devnet.status().tip.to_string(), LIMIT)
        .unwrap();
    devnet.fill_mempool(10);
    let count = |sql: &str| rows::query(&installation.database(), sql).unwrap()[0][0].clone();
    host.wait_for("the pool", LIMIT, |_| {
        let pool = count("SELECT count(*) FROM old_pool");
        (pool != "0" && pool == count("SELECT count(*) FROM mempool")).then_some(())
    })
    .unwrap();
    devnet.reorg(3, 5).unwrap();
    let tip = devnet.status().tip.to_string();
    host.coins_at(&tip, LIMIT).unwrap();
    host.wait_for("its rows", LIMIT, |_| {
        let same = "SELECT (SELECT group_concat(hex(txid)) FROM (SELECT txid FROM old_tx ORDER BY height, txid))
                         = (SELECT group_concat(hex(txid)) FROM (SELECT txid FROM tx ORDER BY height, txid))";
        (count(same) == "1").then_some(())
    })
    .unwrap();
    let answer = host.get("plugins/v0-1-0/query/count").unwrap();
    assert_eq!(
        answer["transactions"].to_string(),
        count("SELECT count(*) FROM tx")
    );
    // A fresh instance after the reorg is told of the pool again.
    let asked = "plugins/v0-1-0/query/count";
    let told = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        host.get(asked).unwrap()["pool"] == true
    });
    assert!(told);
    let missing = host.get("plugins/v0-1-0/query/nothing").unwrap();
    assert_eq!(missing["error"]["code"], "not_found");
    assert!(!host.log().contains("plugin failed"), "{}", host.log());
    host.stop().unwrap();
}
