//! What peers announce is what the status counts and what the table shows, with Core's fees and sizes, until it confirms.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use bitcoin::Network;
use blockmill_tests::data;
use blockmill_tests::host::{ALL_ROWS, Host, Installation};
use blockmill_tests::rows;
use devnet::{Behaviour, Config, Devnet};

const LIMIT: Duration = Duration::from_secs(120);
const POOL: &str = "SELECT lower(hex(txid)), fee, vsize FROM mempool";

/// txid to fee in sat and virtual bytes.
type Pool = BTreeMap<String, (String, String)>;

/// What Core said of the 60 transactions.
fn oracle() -> Pool {
    let text = fs::read_to_string(data::regtest("mempool.tsv")).unwrap();
    text.lines()
        .skip(1)
        .map(|line| {
            let mut cells = line.split('\t').map(str::to_owned);
            let mut cell = || cells.next().unwrap();
            (cell(), (cell(), cell()))
        })
        .collect()
}

/// The rows of the table `mempool`.
fn table(installation: &Installation) -> Pool {
    rows::query(&installation.database(), POOL)
        .unwrap()
        .into_iter()
        .map(|row| (row[0].clone(), (row[1].clone(), row[2].clone())))
        .collect()
}

fn wait_for_pool(host: &mut Host, txs: usize) {
    host.wait_for(
        &format!("{txs} transactions in its pool"),
        LIMIT,
        |status| (status["mempool"]["txs"] == txs).then_some(()),
    )
    .unwrap();
}

/// Waits until the table has what it should, and says what it has when it does not come to that.
fn wait_for_table(host: &mut Host, wanted: &Pool) {
    let installation = host.installation().clone();
    let outcome = host.wait_for("the table of the pool", LIMIT, |_| {
        (table(&installation) == *wanted).then_some(())
    });
    if let Err(error) = outcome {
        assert_eq!(&table(&installation), wanted, "{error:#}");
    }
}

#[test]
fn sixty_transactions_have_the_fees_and_sizes_of_core_and_are_there_again_after_a_restart() {
    let oracle = oracle();
    assert_eq!(oracle.len(), 60);
    let devnet = Devnet::start(Config {
        network: Network::Regtest,
        files: vec![data::regtest("main.dat")],
        announce_pool: false,
        ..Config::default()
    })
    .unwrap();
    let installation = Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .plugins(ALL_ROWS);
    let mut host = installation.start().unwrap();
    host.wait_for("the tip", LIMIT, |status| {
        (status["synced"] == true).then_some(())
    })
    .unwrap();
    devnet.submit_file(data::regtest("mempool.hex")).unwrap();
    wait_for_pool(&mut host, 60);
    wait_for_table(&mut host, &oracle);
    let status = host.get("status").unwrap();
    assert_eq!(status["mempool"]["fees_sats"], 108_003);
    assert_eq!(status["mempool"]["vbytes"], 12_548);
    let seen = "SELECT count(*) FROM mempool WHERE abs(first_seen - unixepoch()) < 600 \
                AND abs(fee_rate - 1.0 * fee / vsize) < 1e-9";
    assert_eq!(
        rows::query(&installation.database(), seen).unwrap(),
        [["60"]]
    );
    let first_seen = "SELECT lower(hex(txid)), first_seen FROM mempool ORDER BY txid";
    let before = rows::query(&installation.database(), first_seen).unwrap();
    host.stop().unwrap();

    // Nobody announces them again: they come from our own disk.
    let mut host = installation.start().unwrap();
    wait_for_pool(&mut host, 60);
    wait_for_table(&mut host, &oracle);
    let after = rows::query(&installation.database(), first_seen).unwrap();
    assert_eq!(before, after, "first seen before the restart");

    host.wait_for("the tip", LIMIT, |status| {
        (status["synced"] == true).then_some(())
    })
    .unwrap();
    // Once confirmed they are gone from the pool and are rows of the chain.
    let block = devnet.mine_block().unwrap();
    host.wait_for_tip(&block.to_string(), LIMIT).unwrap();
    wait_for_pool(&mut host, 0);
    wait_for_table(&mut host, &Pool::new());
    // The block came as the short ids of what was here already.
    let (_, metrics) = host.get_text("/metrics").unwrap();
    for line in [
        "blockmill_compact_blocks_total 1",
        "blockmill_compact_transactions_total 60",
        "blockmill_compact_transactions_from_pool_total 60",
    ] {
        assert!(
            metrics.lines().any(|other| other == line),
            "{line} is not in\n{metrics}"
        );
    }
    host.stop().unwrap();
    let confirmed = "SELECT lower(hex(txid)), fee, (weight + 3) / 4 FROM tx WHERE height = 131 AND position > 0";
    let confirmed: Pool = rows::query(&installation.database(), confirmed)
        .unwrap()
        .into_iter()
        .map(|row| (row[0].clone(), (row[1].clone(), row[2].clone())))
        .collect();
    assert_eq!(confirmed, oracle);
}

#[test]
fn replaced_transactions_leave_and_those_of_abandoned_blocks_come_back() {
    let devnet = Devnet::start(Config {
        seed: 21,
        behaviour: Behaviour::default(),
        ..Config::default()
    })
    .unwrap();
    devnet.mine(115).unwrap();
    let installation = Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .plugins(ALL_ROWS);
    let mut host = installation.start().unwrap();
    host.wait_for("the tip", LIMIT, |status| {
        (status["synced"] == true).then_some(())
    })
    .unwrap();
    devnet.fill_mempool(30);
    let pool = devnet.status().mempool;
    assert!(pool >= 20, "{pool} transactions");
    wait_for_pool(&mut host, pool);

    let replaced = devnet.replace(5);
    assert!(!replaced.is_empty());
    host.wait_for("the replacements", LIMIT, |_| {
        let ours = table(&installation);
        let right = |(old, new): &(bitcoin::Txid, bitcoin::Txid)| {
            !ours.contains_key(&old.to_string()) && ours.contains_key(&new.to_string())
        };
        replaced.iter().all(right).then_some(())
    })
    .unwrap();

    let reorg = devnet.reorg(2, 3).unwrap();
    let tip = devnet.status().tip.to_string();
    host.wait_for_tip(&tip, LIMIT).unwrap();
    assert!(!reorg.returned.is_empty());
    host.wait_for("what the abandoned blocks gave back", LIMIT, |_| {
        let ours = table(&installation);
        let back = |txid: &bitcoin::Txid| ours.contains_key(&txid.to_string());
        let gone = |(old, _): &(bitcoin::Txid, bitcoin::Txid)| !ours.contains_key(&old.to_string());
        (reorg.returned.iter().all(back) && reorg.replaced.iter().all(gone)).then_some(())
    })
    .unwrap();
    host.stop().unwrap();
}
