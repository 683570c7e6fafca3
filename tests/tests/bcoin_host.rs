//! The host against bcoin: what a node that nobody here wrote says about its chain, its pool and its coins is what we say.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::time::{Duration, Instant};

use bitcoin::{Amount, Block, Txid};
use blockmill_tests::bcoin::{self, Bcoin};
use blockmill_tests::host::Host;
use blockmill_tests::miner::Miner;
use blockmill_tests::pool_cost::{self, PoolCost};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const FEE: Amount = Amount::from_sat(12_345);
const PLUGINS: [&str; 2] = ["utxo-tracker", "tx-writer"];
const PAYMENTS: u64 = 5;

fn mine(node: &Bcoin, miner: &mut Miner, blocks: u32) {
    for hash in node.generate(blocks, &miner.key_hash()).unwrap() {
        miner.see(&node.block(&hash).unwrap());
    }
}

/// As `mine`, and the blocks.
fn mined(node: &Bcoin, miner: &mut Miner, blocks: u32) -> Vec<Block> {
    let hashes = node.generate(blocks, &miner.key_hash()).unwrap();
    let blocks: Vec<Block> = hashes
        .iter()
        .map(|hash| node.block(hash).unwrap())
        .collect();
    blocks.iter().for_each(|block| miner.see(block));
    blocks
}

/// Waits until a transaction is in the host's pool.
fn wait_for_payment(host: &mut Host, txid: Txid) {
    let end = Instant::now() + LIMIT;
    loop {
        let answer = host.get(&format!("mempool/tx/{txid}")).unwrap();
        if answer.get("error").is_none() {
            return;
        }
        assert!(Instant::now() < end, "{answer}\n{}", host.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn wait_for_empty_pool(host: &mut Host) {
    host.wait_for("an empty pool", LIMIT, |status| {
        let pool = status.get("mempool").and_then(|pool| pool.get("txs"));
        (pool.and_then(Value::as_u64) == Some(0)).then_some(())
    })
    .unwrap();
}

/// The coin set of the host is that of bcoin.
fn assert_same_coins(host: &mut Host, node: &Bcoin) {
    let theirs = node.coin_totals().unwrap();
    let ours = host.coins_at(&theirs.best.to_string(), LIMIT).unwrap();
    assert_eq!(ours["height"], theirs.height);
    assert_eq!(ours["bestblock"], theirs.best.to_string());
    assert_eq!(ours["txouts"], theirs.txouts);
    assert_eq!(ours["total_sats"], theirs.total.to_sat());
}

#[test]
fn our_pool_sees_what_bcoin_was_sent_and_our_coins_are_its_coins_once_it_confirms() {
    let Some(node) = Bcoin::start().unwrap() else {
        return;
    };
    let mut miner = Miner::new(7, bcoin::NETWORK).unwrap();
    mine(&node, &mut miner, 110);
    let mut host = Host::start(&[node.peer_address()], &PLUGINS).unwrap();
    host.wait_for_height(110, LIMIT).unwrap();
    assert_same_coins(&mut host, &node);

    for outputs in 1..=PAYMENTS {
        node.send(&miner.split(outputs, FEE).unwrap()).unwrap();
    }
    host.wait_for("the payments in its pool", LIMIT, |status| {
        let pool = status.get("mempool")?;
        (pool.get("txs")?.as_u64()? == PAYMENTS).then_some(())
    })
    .unwrap();

    mine(&node, &mut miner, 1);
    host.wait_for_height(111, LIMIT).unwrap();
    wait_for_empty_pool(&mut host);
    assert_same_coins(&mut host, &node);
    assert_eq!(
        node.coin_totals().unwrap().total,
        Amount::from_int_btc(50) * 111
    );
    host.stop().unwrap();
    node.stop().unwrap();
}

#[test]
fn a_branch_that_bcoin_gives_up_is_given_up_here_too() {
    let Some(node) = Bcoin::start().unwrap() else {
        return;
    };
    let mut miner = Miner::new(8, bcoin::NETWORK).unwrap();
    mine(&node, &mut miner, 108);
    let mut host = Host::start(&[node.peer_address()], &PLUGINS).unwrap();
    node.send(&miner.split(3, FEE).unwrap()).unwrap();
    let abandoned = node.generate(2, &miner.key_hash()).unwrap();
    host.wait_for_height(110, LIMIT).unwrap();
    assert_same_coins(&mut host, &node);

    node.invalidate(&abandoned[0]).unwrap();
    assert_eq!(node.height().unwrap(), 108);
    // Another key, so that the new blocks are not the old ones again.
    let other = Miner::new(9, bcoin::NETWORK).unwrap();
    node.generate(3, &other.key_hash()).unwrap();
    host.wait_for_height(111, LIMIT).unwrap();
    assert_same_coins(&mut host, &node);
    host.stop().unwrap();
}

#[test]
fn two_nodes_that_mined_apart_and_meet_late_take_us_with_them_from_the_branch_that_loses() {
    let (Some(ahead), Some(behind)) = (Bcoin::start().unwrap(), Bcoin::start().unwrap()) else {
        return;
    };
    let mut miner = Miner::new(10, bcoin::NETWORK).unwrap();
    for block in mined(&ahead, &mut miner, 108) {
        behind.submit(&block).unwrap();
    }
    // Each part confirms a payment that the other does not know.
    let (there, here) = (miner.split(2, FEE).unwrap(), miner.split(3, FEE).unwrap());
    ahead.send(&there).unwrap();
    behind.send(&here).unwrap();
    let other = Miner::new(11, bcoin::NETWORK).unwrap();
    ahead.generate(4, &other.key_hash()).unwrap();
    behind.generate(2, &miner.key_hash()).unwrap();
    let waiting = miner.split(4, FEE).unwrap();
    behind.send(&waiting).unwrap();

    let mut host = Host::start(&[behind.peer_address()], &PLUGINS).unwrap();
    host.wait_for_height(110, LIMIT).unwrap();
    assert_same_coins(&mut host, &behind);
    wait_for_payment(&mut host, waiting.compute_txid());
    assert_eq!(host.get("status").unwrap()["reorgs"], 0);

    behind.join(&ahead).unwrap();
    host.wait_for_height(112, LIMIT).unwrap();
    assert_eq!(behind.coin_totals().unwrap(), ahead.coin_totals().unwrap());
    assert_same_coins(&mut host, &ahead);
    // The figures are looked up now and then.
    host.wait_for("one reorg", LIMIT, |status| {
        (status["reorgs"] == 1).then_some(())
    })
    .unwrap();
    // What only the losing branch had confirmed waits again. bcoin drops it, and all else that spends a mined coin, as Core does not.
    wait_for_payment(&mut host, here.compute_txid());
    wait_for_payment(&mut host, waiting.compute_txid());
    behind.send(&here).unwrap();
    behind.send(&waiting).unwrap();
    behind.generate(1, &other.key_hash()).unwrap();
    host.wait_for_height(113, LIMIT).unwrap();
    wait_for_empty_pool(&mut host);
    assert_same_coins(&mut host, &behind);
    host.stop().unwrap();
    behind.stop().unwrap();
    ahead.stop().unwrap();
}

#[test]
fn a_node_that_is_started_anew_at_the_same_port_is_connected_to_again_and_followed_on() {
    let Some(node) = Bcoin::start().unwrap() else {
        return;
    };
    let mut miner = Miner::new(12, bcoin::NETWORK).unwrap();
    let blocks = mined(&node, &mut miner, 110);
    let mut host = Host::start(&[node.peer_address()], &PLUGINS).unwrap();
    host.wait_for_height(110, LIMIT).unwrap();
    assert_same_coins(&mut host, &node);

    let node = node.restart().unwrap();
    // It has nothing yet, which is no reason to leave it, or our chain.
    assert_eq!(node.height().unwrap(), 0);
    host.wait_for("the node without a chain", LIMIT, |status| {
        (status["peers"].get(0)?["start_height"] == 0).then_some(())
    })
    .unwrap();
    assert_eq!(host.get("status").unwrap()["tip"]["height"], 110);
    for block in &blocks {
        node.submit(block).unwrap();
    }
    let txid = node.send(&miner.split(3, FEE).unwrap()).unwrap();
    wait_for_payment(&mut host, txid);
    mine(&node, &mut miner, 2);
    host.wait_for_height(112, LIMIT).unwrap();
    wait_for_empty_pool(&mut host);
    assert_same_coins(&mut host, &node);
    assert_eq!(host.get("status").unwrap()["reorgs"], 0);
    host.stop().unwrap();
    node.stop().unwrap();
}

/// What docs/performance.md says of bcoin's pool: `cargo test --release -- --ignored --nocapture twenty_thousand`.
#[test]
#[ignore = "a measurement: bcoin needs a minute to check so many signatures"]
fn twenty_thousand_transactions_of_bcoin() {
    const WANTED: usize = 20_000;
    const OUTPUTS: u64 = 1_000;
    let Some(node) = Bcoin::start().unwrap() else {
        return;
    };
    let mut miner = Miner::new(10, bcoin::NETWORK).unwrap();
    mine(&node, &mut miner, 130);
    // Coins of their own, so that no payment depends on another: bcoin takes chains of 25 only.
    for _ in 0..WANTED as u64 / OUTPUTS {
        let fee = Amount::from_sat(1_000_000);
        node.send(&miner.split(OUTPUTS, fee).unwrap()).unwrap();
    }
    while !node.mempool().unwrap().is_empty() {
        mine(&node, &mut miner, 1);
    }
    let height = node.height().unwrap();
    let mut host = Host::start(&[node.peer_address()], &["utxo-tracker"]).unwrap();
    host.wait_for_height(height, LIMIT).unwrap();
    let installation = host.installation().clone();
    host.stop().unwrap();

    let start = Instant::now();
    let payments = miner.pay_each(WANTED, FEE).unwrap();
    assert_eq!(payments.len(), WANTED);
    node.send_all(&payments, WANTED).unwrap();
    println!("{WANTED} transactions into bcoin in {:?}", start.elapsed());

    // It tells its pool when it is asked (BIP35), once.
    let mut host = installation.start().unwrap();
    let cost = PoolCost::from_the_start(&host).unwrap();
    pool_cost::wait_for_pool(&mut host, WANTED, || ()).unwrap();
    let took = cost.elapsed();
    cost.print(&mut host, WANTED, took).unwrap();
    let ours = host.get("status").unwrap();
    assert_eq!(ours["mempool"]["fees_sats"], FEE.to_sat() * WANTED as u64);
    host.stop().unwrap();
    node.stop().unwrap();
}
