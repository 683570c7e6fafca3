//! Plugins that know the same thing say the same thing: statistics and rows, histories and coins, watched scripts and rows;
//! with a pool, after a reorg, and after a restart.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::time::Duration;

use blockmill_tests::host::{Host, Installation};
use blockmill_tests::rows;
use devnet::{Config, Devnet};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

/// Everything on, and a collection of all witness key hashes.
const PLUGINS: &str = r#"
[plugins.utxo-tracker.settings]
index = true
[plugins.tx-writer.settings]
inputs = true
outputs = true
[plugins.block-stats]
enabled = true
[plugins.address-history]
enabled = true
[plugins.watch.settings.collections.keyhashes]
patterns = ["^0014"]
"#;

fn query(installation: &Installation, sql: &str) -> rows::Table {
    rows::query(&installation.database(), sql).unwrap()
}

/// Block statistics are those that the rows of blocks, transactions and outputs give.
fn check_stats(host: &Host) {
    let installation = host.installation();
    let stats = query(
        installation,
        "SELECT height, txs, outputs, fees, inputs, size, weight, segwit_txs, fee_rate_min, fee_rate_max,
                p2wpkh, p2tr, op_return FROM block_stats ORDER BY height",
    );
    let theirs = query(
        installation,
        "SELECT block.height, tx_count,
                (SELECT sum(outputs) FROM tx WHERE tx.height = block.height),
                total_fees,
                coalesce(sum(inputs), 0), coalesce(sum(tx.size), 0), coalesce(sum(tx.weight), 0),
                coalesce(sum(tx.weight < 4 * tx.size), 0),
                coalesce(min(fee * 4 / tx.weight), 0), coalesce(max(fee * 4 / tx.weight), 0),
                (SELECT count(*) FROM output WHERE output.height = block.height AND length(script) = 22
                        AND hex(substr(script, 1, 2)) = '0014'),
                (SELECT count(*) FROM output WHERE output.height = block.height AND length(script) = 34
                        AND hex(substr(script, 1, 2)) = '5120'),
                (SELECT count(*) FROM output WHERE output.height = block.height AND hex(substr(script, 1, 1)) = '6A')
           FROM block LEFT JOIN tx ON tx.height = block.height AND tx.position > 0
          GROUP BY block.height ORDER BY block.height",
    );
    assert_eq!(stats, theirs);
    let fees: i64 = stats.iter().map(|row| row[3].parse::<i64>().unwrap()).sum();
    assert!(fees > 0, "nobody paid anything");

    // Each percentile by its definition.
    for row in stats.iter().rev().take(10) {
        let rates = query(
            installation,
            &format!(
                "SELECT fee * 4 / weight, weight FROM tx WHERE height = {} AND position > 0",
                row[0]
            ),
        );
        let rates: Vec<(u64, u64)> = rates
            .iter()
            .map(|row| (row[0].parse().unwrap(), row[1].parse().unwrap()))
            .collect();
        let total: u64 = rates.iter().map(|(_, weight)| weight).sum();
        let answer = host
            .get(&format!(
                "plugins/block-stats/query/block?height={}",
                row[0]
            ))
            .unwrap();
        for (place, percent) in [10, 25, 50, 75, 90].into_iter().enumerate() {
            let percentile = answer["fee_rate_percentiles"][place].as_u64().unwrap();
            let weight = |fits: &dyn Fn(u64) -> bool| -> u64 {
                rates
                    .iter()
                    .filter(|(rate, _)| fits(*rate))
                    .map(|(_, weight)| weight)
                    .sum()
            };
            assert!(weight(&|rate| rate <= percentile) * 100 >= total * percent);
            assert!(total == 0 || weight(&|rate| rate < percentile) * 100 < total * percent);
        }
    }
}

/// The scripts with most outputs, in hexadecimal.
fn scripts(host: &Host) -> Vec<String> {
    let sql = "SELECT lower(hex(script)) FROM output WHERE address IS NOT NULL \
               GROUP BY script ORDER BY count(*) DESC, script LIMIT 60";
    let scripts: Vec<String> = query(host.installation(), sql)
        .into_iter()
        .flatten()
        .collect();
    assert!(scripts.len() > 20, "{} scripts", scripts.len());
    scripts
}

fn ask(host: &Host, question: &str, script: &str) -> Value {
    let answer = host
        .get(&format!("plugins/{question}?script={script}"))
        .unwrap();
    assert!(
        answer.get("error").is_none(),
        "{question} {script}: {answer}"
    );
    answer
}

/// Histories and balances are those of the coins and of the rows.
fn check_histories(host: &Host) {
    for script in scripts(host) {
        let ours = ask(host, "address-history/query/balance", &script);
        let coins = ask(host, "utxo-tracker/query/balance", &script);
        assert_eq!(ours["balance_sats"], coins["balance_sats"], "{script}");
        let sums = query(
            host.installation(),
            &format!(
                "SELECT (SELECT coalesce(sum(value), 0) FROM output WHERE script = x'{script}'),
                        (SELECT coalesce(sum(value), 0) FROM input WHERE script = x'{script}'),
                        (SELECT count(*) FROM (SELECT height, tx_position FROM output WHERE script = x'{script}'
                          UNION SELECT height, tx_position FROM input WHERE script = x'{script}'))"
            ),
        );
        let text = |name: &str| ours[name].to_string();
        assert_eq!(
            sums[0],
            [
                text("received_sats"),
                text("sent_sats"),
                text("transactions")
            ]
        );
        let history = ask(host, "address-history/query/history", &script);
        let newest = &history["transactions"][0];
        let txid = query(
            host.installation(),
            &format!(
                "SELECT lower(hex(txid)), tx.height FROM tx JOIN (SELECT height, tx_position FROM output WHERE script = x'{script}'
                  UNION SELECT height, tx_position FROM input WHERE script = x'{script}') AS seen
                  ON tx.height = seen.height AND tx.position = tx_position
                  ORDER BY tx.height DESC, tx.position DESC LIMIT 1"
            ),
        );
        assert_eq!(
            txid[0],
            [
                newest["txid"].as_str().unwrap().to_owned(),
                newest["height"].to_string()
            ]
        );
    }
}

/// The pattern's matches are the rows whose script it fits.
fn check_watch(host: &Host) {
    let count = |sql: &str| {
        query(host.installation(), sql)[0][0]
            .parse::<u64>()
            .unwrap()
    };
    let matches = |direction: &str| {
        count(&format!(
            "SELECT count(*) FROM watch_match WHERE collection = 'keyhashes' AND direction = '{direction}'"
        ))
    };
    let fits = "hex(substr(script, 1, 2)) = '0014'";
    let (ins, outs) = (matches("in"), matches("out"));
    assert!(ins > 0 && outs > 0);
    assert_eq!(
        ins,
        count(&format!("SELECT count(*) FROM output WHERE {fits}"))
    );
    assert_eq!(
        outs,
        count(&format!("SELECT count(*) FROM input WHERE {fits}"))
    );
    let answer = host
        .get("plugins/watch/query/collections?collection=keyhashes")
        .unwrap();
    assert_eq!(answer["collections"][0]["matches"], ins + outs);
}

/// Waits until the rows are those of the tip: they reach the disk with every block.
fn at_tip(host: &mut Host, devnet: &Devnet) {
    let status = devnet.status();
    host.coins_at(&status.tip.to_string(), LIMIT).unwrap();
    let installation = host.installation().clone();
    host.wait_for("rows of the tip", LIMIT, |_| {
        ["block", "block_stats"]
            .iter()
            .all(|table| {
                query(&installation, &format!("SELECT max(height) FROM {table}"))[0][0]
                    == status.height.to_string()
            })
            .then_some(())
    })
    .unwrap();
    for plugin in [
        "address-history/query/status",
        "watch/query/collections",
        "block-stats/query/status",
    ] {
        let path = format!("plugins/{plugin}");
        for _ in 0..100 {
            if host.get(&path).unwrap()["height"] == status.height {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(
            host.get(&path).unwrap()["height"],
            status.height,
            "{plugin}"
        );
    }
}

fn wait_for_pool(host: &mut Host, devnet: &Devnet) {
    let txs = devnet.status().mempool;
    host.wait_for("the pool", LIMIT, |status| {
        (status["mempool"]["txs"] == txs).then_some(())
    })
    .unwrap();
    let installation = host.installation().clone();
    host.wait_for("the rows of the pool", LIMIT, |_| {
        (query(&installation, "SELECT count(*) FROM mempool")[0][0] == txs.to_string())
            .then_some(())
    })
    .unwrap();
}

#[test]
fn statistics_histories_and_watched_scripts_agree_with_coins_and_rows_whatever_happens() {
    let devnet = Devnet::start(Config {
        seed: 33,
        ..Config::default()
    })
    .unwrap();
    devnet.mine(125).unwrap();
    let installation = Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .plugins(PLUGINS);
    let mut host = installation.start().unwrap();
    at_tip(&mut host, &devnet);
    check_stats(&host);
    check_histories(&host);
    check_watch(&host);

    // With a pool: what is unconfirmed is what the next block adds.
    devnet.fill_mempool(25);
    wait_for_pool(&mut host, &devnet);
    let before: Vec<(String, Value)> = scripts(&host)
        .into_iter()
        .map(|script| {
            let balance = ask(&host, "address-history/query/balance", &script);
            (script, balance)
        })
        .collect();
    let touched = |balance: &Value| balance["unconfirmed"]["transactions"].as_u64().unwrap();
    assert!(before.iter().any(|(_, balance)| touched(balance) > 0));
    let unconfirmed = host
        .get("plugins/watch/query/unconfirmed?collection=keyhashes")
        .unwrap();
    let count = unconfirmed["count"].as_u64().unwrap();
    assert!(count > 0);
    let pool = "SELECT count(*), sum(direction = 'in') FROM watch_pool";
    let pool = query(&installation, pool)[0].clone();
    assert_eq!(pool[0], count.to_string());

    let block = devnet.mine_block().unwrap();
    host.wait_for_tip(&block.to_string(), LIMIT).unwrap();
    at_tip(&mut host, &devnet);
    wait_for_pool(&mut host, &devnet);
    for (script, before) in &before {
        let after = ask(&host, "address-history/query/balance", script);
        // A coinbase may be another transaction to the same script.
        if touched(before) + before["transactions"].as_u64().unwrap() != after["transactions"] {
            continue;
        }
        let number = |value: &Value| value.as_u64().unwrap();
        assert_eq!(
            number(&after["received_sats"]),
            number(&before["received_sats"]) + number(&before["unconfirmed"]["received_sats"]),
            "{script}"
        );
        assert_eq!(
            number(&after["sent_sats"]),
            number(&before["sent_sats"]) + number(&before["unconfirmed"]["sent_sats"]),
            "{script}"
        );
        assert_eq!(touched(&after), 0, "{script}");
    }
    assert_eq!(
        query(&installation, "SELECT count(*) FROM watch_pool"),
        [["0"]]
    );
    check_stats(&host);
    check_histories(&host);
    check_watch(&host);

    // What left blocks had is gone, and in the pool again.
    let reorg = devnet.reorg(3, 4).unwrap();
    assert!(!reorg.returned.is_empty());
    at_tip(&mut host, &devnet);
    wait_for_pool(&mut host, &devnet);
    check_stats(&host);
    check_histories(&host);
    check_watch(&host);
    let left = "SELECT count(*) FROM watch_match WHERE NOT EXISTS \
                (SELECT 1 FROM tx WHERE tx.height = watch_match.height AND tx.txid = watch_match.txid)";
    assert_eq!(
        query(&installation, left),
        [["0"]],
        "matches of blocks that were left"
    );
    let both = "SELECT count(*) FROM watch_pool JOIN tx USING (txid)";
    assert_eq!(
        query(&installation, both),
        [["0"]],
        "confirmed and unconfirmed at once"
    );
    assert_ne!(
        query(&installation, "SELECT count(*) FROM watch_pool"),
        [["0"]]
    );

    // And the same after a restart.
    host.stop().unwrap();
    let mut host = installation.start().unwrap();
    devnet.mine(2).unwrap();
    at_tip(&mut host, &devnet);
    check_stats(&host);
    check_histories(&host);
    check_watch(&host);
    host.stop().unwrap();
}

#[test]
fn the_owner_adds_a_watch_while_blocks_flow_and_it_outlives_reorgs_and_restarts() {
    let devnet = Devnet::start(Config {
        seed: 34,
        ..Config::default()
    })
    .unwrap();
    devnet.mine(115).unwrap();
    let installation = Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .plugins(PLUGINS);
    let mut host = installation.start().unwrap();
    at_tip(&mut host, &devnet);
    devnet.fill_mempool(20);
    wait_for_pool(&mut host, &devnet);

    // Nobody else may, and what makes no sense changes nothing.
    let add = "watch/query/add?collection=taproot&pattern=%5E5120";
    let (code, answer) = host.change(add, Some("00")).unwrap();
    assert_eq!((code, &answer["error"]["code"]), (403, &"forbidden".into()));
    let refused = host.get(&format!("plugins/{add}")).unwrap();
    assert_eq!(refused["error"]["code"], "forbidden", "{refused}");
    let (code, answer) = host
        .change("watch/query/add?collection=taproot&pattern=(", None)
        .unwrap();
    assert_eq!(code, 400, "{answer}");
    let (code, answer) = host
        .change("watch/query/add?collection=taproot&script=xyz", None)
        .unwrap();
    assert!(
        code == 400 && answer["error"]["message"].as_str().unwrap().contains("xyz"),
        "{answer}"
    );
    assert_eq!(
        host.get("plugins/watch/query/matches?collection=taproot")
            .unwrap()["error"]["code"],
        "not_found"
    );

    let (code, answer) = host.change(add, None).unwrap();
    assert_eq!(
        (code, &answer["collection"]),
        (200, &"taproot".into()),
        "{answer}"
    );
    // The command does the same.
    let output = installation
        .command(&[
            "plugin",
            "query",
            "watch",
            "add",
            "collection=mine",
            "script=51",
            "--change",
        ])
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let output = installation
        .command(&["plugin", "query", "watch", "remove", "collection=mine"])
        .unwrap();
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("--change")
    );

    // What is in the pool already is looked at again.
    let found = installation.clone();
    host.wait_for("the new collection's matches in the pool", LIMIT, |_| {
        let sql = "SELECT count(*) FROM watch_pool WHERE collection = 'taproot'";
        (query(&found, sql)[0][0] != "0").then_some(())
    })
    .unwrap();
    let from = devnet.status().height;
    devnet.mine(3).unwrap();
    at_tip(&mut host, &devnet);
    let check = |from: u32| {
        let sql = format!(
            "SELECT (SELECT count(*) FROM watch_match WHERE collection = 'taproot' AND direction = 'in' AND height > {from}),
                    (SELECT count(*) FROM output WHERE hex(substr(script, 1, 2)) = '5120' AND height > {from}),
                    (SELECT count(*) FROM watch_match WHERE collection = 'taproot' AND height <= {from})"
        );
        let counts = query(&installation, &sql)[0].clone();
        assert!(counts[0] == counts[1] && counts[0] != "0", "{counts:?}");
        assert_eq!(counts[2], "0", "blocks from before are not looked at again");
    };
    check(from);
    devnet.reorg(2, 4).unwrap();
    at_tip(&mut host, &devnet);
    check(from);
    host.stop().unwrap();
    let mut host = installation.start().unwrap();
    devnet.mine(1).unwrap();
    at_tip(&mut host, &devnet);
    check(from);
    let collections = host.get("plugins/watch/query/collections").unwrap();
    assert_eq!(
        collections["collections"].as_array().unwrap().len(),
        4,
        "{collections}"
    );
    let (code, _) = host
        .change("watch/query/remove?collection=taproot", None)
        .unwrap();
    assert_eq!(code, 200);
    assert_eq!(
        host.get("plugins/watch/query/matches?collection=taproot")
            .unwrap()["error"]["code"],
        "not_found"
    );
    host.stop().unwrap();
}
