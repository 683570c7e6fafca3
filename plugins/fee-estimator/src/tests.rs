//! The plugin in the harness: what it counts, what it keeps, what it answers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use blockmill_sdk::testing::bitcoin::{Block, BlockHash, Transaction, Txid, hashes::Hash};
use blockmill_sdk::testing::{Harness, PoolTransaction, chain};
use blockmill_sdk::{Json, QueryError, json};

use crate::FeeEstimator;

/// A chain of made-up blocks that take the whole pool.
struct Net {
    harness: Harness<FeeEstimator>,
    tip: BlockHash,
    made: u32,
}

impl Net {
    fn new() -> Self {
        let mut net = Net {
            harness: Harness::new(json!({})),
            tip: chain::hash(1),
            made: 0,
        };
        net.block(vec![]);
        net.harness.mempool(&[], &[]).unwrap();
        net
    }

    fn transaction(&mut self) -> Transaction {
        self.made += 1;
        chain::transaction(
            &[(Txid::from_byte_array([9; 32]), self.made)],
            &[(1, &[0x51])],
        )
    }

    /// Transactions of this rate in sat/vB come into the pool.
    fn pool(&mut self, rate: u64, count: usize) -> Vec<Transaction> {
        let transactions: Vec<Transaction> = (0..count).map(|_| self.transaction()).collect();
        self.give(rate, &transactions, &[]);
        transactions
    }

    fn give(&mut self, rate: u64, transactions: &[Transaction], parents: &[Txid]) {
        let entries: Vec<PoolTransaction> = transactions
            .iter()
            .map(|transaction| PoolTransaction {
                transaction: transaction.clone(),
                fee: rate * transaction.vsize() as u64,
                parents: parents.to_vec(),
            })
            .collect();
        self.harness.mempool(&[], &entries).unwrap();
    }

    fn next(&self, transactions: Vec<Transaction>) -> Block {
        chain::block(
            self.tip,
            self.harness.height().unwrap_or(0) + 1,
            50,
            transactions,
        )
    }

    fn block(&mut self, transactions: Vec<Transaction>) {
        let block = self.next(transactions);
        self.harness.block(&block).unwrap();
        self.tip = block.block_hash();
    }

    /// `blocks` blocks, each of which takes the four transactions of this rate that came before it.
    fn steady(&mut self, rate: u64, blocks: usize) {
        for _ in 0..blocks {
            let transactions = self.pool(rate, 4);
            self.block(transactions);
        }
    }

    fn estimate(&mut self, target: u32) -> Json {
        self.harness
            .query("estimate", &[("target", &target.to_string())])
            .unwrap()
    }

    fn rate(&mut self, target: u32) -> Option<f64> {
        // The estimator's own: a pool that is empty after each block lowers the answer to the floor.
        self.estimate(target)["estimator_sat_vb"].as_f64()
    }

    fn waited_for(&mut self) -> u64 {
        self.harness.query("status", &[]).unwrap()["waited_for"]
            .as_u64()
            .unwrap()
    }
}

#[test]
fn a_steady_rate_is_the_answer() {
    let mut net = Net::new();
    net.steady(25, 30);
    let answer = net.estimate(6);
    assert_eq!(answer["estimator_sat_vb"], json!(25.0));
    assert_eq!(
        (&answer["enough_data"], &answer["reason"], &answer["note"]),
        (&json!(true), &Json::Null, &Json::Null)
    );
    assert_eq!(
        (&answer["horizon"], &answer["target"]),
        (&json!("short"), &json!(6))
    );
    assert_eq!(
        (&answer["mode"], &answer["following_pool"]),
        (&json!("economical"), &json!(true))
    );
    assert_eq!(net.harness.value("fee_rate_6"), Some(25.0));
    assert_eq!(net.harness.value("fee_rate_144"), Some(25.0));

    let one = net.estimate(1);
    assert_eq!(
        (&one["answered_target"], &one["estimator_sat_vb"]),
        (&json!(2), &json!(25.0))
    );
    assert!(one["note"].as_str().unwrap().contains("never answered"));
    let far = net.estimate(1_008);
    assert_eq!(far["answered_target"], json!(14));
    assert!(far["note"].as_str().unwrap().contains("too few blocks"));
    let conservative = net
        .harness
        .query("estimate", &[("target", "6"), ("mode", "conservative")])
        .unwrap();
    assert_eq!(conservative["fee_rate_sat_vb"], json!(25.0));
}

#[test]
fn without_data_the_answer_says_why() {
    let mut net = Net::new();
    let answer = net.estimate(6);
    assert_eq!(
        (&answer["fee_rate_sat_vb"], &answer["enough_data"]),
        (&Json::Null, &json!(false))
    );
    assert!(
        answer["reason"]
            .as_str()
            .unwrap()
            .contains("no block has confirmed")
    );
    net.steady(10, 2);
    assert!(
        net.estimate(6)["reason"]
            .as_str()
            .unwrap()
            .contains("over 1 blocks")
    );
    // One that confirmed long ago is too few to tell.
    let mut net = Net::new();
    net.steady(10, 1);
    for _ in 0..60 {
        net.block(vec![]);
    }
    assert!(
        net.estimate(20)["reason"]
            .as_str()
            .unwrap()
            .contains("too few transactions")
    );
}

#[test]
fn a_fresh_instance_answers_the_same() {
    let (mut steady, mut restarted) = (Net::new(), Net::new());
    for net in [&mut steady, &mut restarted] {
        for rate in [10, 30, 20, 40, 25, 60, 15, 35] {
            net.steady(rate, 3);
        }
    }
    restarted.harness.restart();
    restarted.harness.mempool(&[], &[]).unwrap();
    for net in [&mut steady, &mut restarted] {
        net.steady(12, 3);
    }
    assert_eq!(steady.harness.state(), restarted.harness.state());
    for target in [2, 3, 6, 12] {
        let (steady, restarted) = (steady.estimate(target), restarted.estimate(target));
        for field in [
            "fee_rate_sat_vb",
            "estimator_sat_vb",
            "warming_up",
            "range",
            "basis",
        ] {
            assert_eq!(steady[field], restarted[field], "{field} of {target}");
        }
    }
}

#[test]
fn a_reorg_takes_back_what_its_blocks_taught() {
    let mut net = Net::new();
    net.steady(20, 20);
    let (state, tip, height) = (
        net.harness.state().clone(),
        net.tip,
        net.harness.height().unwrap(),
    );
    net.steady(90, 8);
    assert_ne!(net.harness.state(), &state);
    net.harness.rollback(height);
    net.tip = tip;
    assert_eq!(net.harness.state(), &state);
    net.harness.mempool(&[], &[]).unwrap();
    assert_eq!(net.rate(2), Some(20.0));
}

#[test]
fn only_transactions_that_say_something_are_waited_for() {
    let mut net = Net::new();
    let first = net.pool(10, 1);
    assert_eq!(net.waited_for(), 1);
    // With an unconfirmed parent.
    let child = net.transaction();
    net.give(10, &[child], &[first[0].compute_txid()]);
    assert_eq!(net.waited_for(), 1);
    // While the host is not at the tip.
    net.harness.current = false;
    net.pool(10, 1);
    assert_eq!(net.waited_for(), 1);
    net.harness.current = true;
    // Confirmed ones go with their block, not with the word of the pool.
    net.harness
        .mempool(&[(first[0].compute_txid(), 0)], &[])
        .unwrap();
    assert_eq!(net.waited_for(), 1);
    net.block(first);
    assert_eq!(net.waited_for(), 0);
    // Others go at once.
    let second = net.pool(10, 1);
    net.harness
        .mempool(&[(second[0].compute_txid(), 2)], &[])
        .unwrap();
    assert_eq!(net.waited_for(), 0);
}

#[test]
fn a_query_knows_what_waits_and_what_left() {
    let mut net = Net::new();
    for _ in 0..30 {
        let (mut low, high) = (net.pool(5, 4), net.pool(50, 4));
        low.extend(high);
        net.block(low);
    }
    assert_eq!(net.rate(2), Some(5.0));
    let stuck = net.pool(5, 40);
    for _ in 0..5 {
        net.block(vec![]);
    }
    assert_eq!(
        net.rate(2),
        Some(50.0),
        "those that wait for 5 blocks are known to a query"
    );
    // They leave: failed, which says the same.
    let removed: Vec<(Txid, u8)> = stuck.iter().map(|tx| (tx.compute_txid(), 4)).collect();
    net.harness.mempool(&removed, &[]).unwrap();
    assert_eq!(
        net.rate(2),
        Some(50.0),
        "so are those that left since the last block"
    );
    net.block(vec![]);
    assert_eq!(
        net.rate(2),
        Some(50.0),
        "and from then on the state has them"
    );
}

#[test]
fn the_whole_pool_after_a_restart_has_waited_since_it_was_first_seen() {
    let mut net = Net::new();
    net.steady(20, 20);
    let low = net.transaction();
    // The harness gives `time` as first seen. Block times are ten minutes apart.
    let tip_time = 1_700_000_000 + u64::from(net.harness.height().unwrap()) * 600;
    net.harness.restart();
    net.harness.time = tip_time - 2 * 600 + 5;
    net.give(1, std::slice::from_ref(&low), &[]);
    assert_eq!(net.waited_for(), 1);
    net.block(vec![low]);
    // Three blocks, not one: the row of its bucket on the short horizon starts with two zeros.
    let row =
        net.harness.state().iter().find(|(key, value)| {
            key.starts_with(&[b'R', 0]) && value[4..12] == 1.0f64.to_le_bytes()
        });
    let (_, row) = row.expect("a row with one transaction");
    assert_eq!(
        (row[20], &row[21..29]),
        (2, 0.0f64.to_le_bytes().as_slice())
    );
}

#[test]
fn what_was_learnt_more_than_60_hours_ago_is_forgotten() {
    let mut net = Net::new();
    net.steady(20, 20);
    // The host starts again and catches up: 359 blocks of ten minutes are less than 60 hours, 361 more.
    net.harness.restart();
    for _ in 0..359 {
        net.block(vec![]);
    }
    assert!(!net.harness.state().is_empty());
    net.block(vec![]);
    net.block(vec![]);
    assert!(net.harness.state().is_empty());
    assert!(
        net.estimate(6)["reason"]
            .as_str()
            .unwrap()
            .contains("no block has confirmed")
    );
}

#[test]
fn a_sync_without_a_pool_writes_nothing() {
    let mut harness = Harness::<FeeEstimator>::new(json!({}));
    for height in 1..50 {
        harness
            .block(&chain::block(chain::hash(1), height, 50, vec![]))
            .unwrap();
    }
    assert!(harness.state().is_empty() && harness.volatile().is_empty());
}

#[test]
fn questions_that_make_no_sense_are_answered_with_the_reason() {
    let mut net = Net::new();
    let mut bad = |params: &[(&str, &str)]| match net.harness.query("estimate", params) {
        Err(QueryError::BadRequest(message)) => message,
        other => panic!("{other:?}"),
    };
    assert!(bad(&[]).contains("`target` is missing"));
    assert!(bad(&[("target", "0")]).contains("1 to 1008"));
    assert!(bad(&[("target", "1009")]).contains("1 to 1008"));
    assert!(bad(&[("target", "x")]).contains("`target`"));
    assert!(bad(&[("target", "6"), ("mode", "fast")]).contains("`mode`"));
    assert!(bad(&[("target", "6"), ("made", "x")]).contains("unknown parameter"));
    assert!(matches!(
        net.harness.query("fees", &[]),
        Err(QueryError::NotFound(_))
    ));
    assert!(Harness::<FeeEstimator>::try_on("regtest", json!({ "x": 1 })).is_err());
}

#[test]
fn until_the_pool_is_known_to_be_complete_no_rate_is_told() {
    let mut net = Net::new();
    let ask = |net: &mut Net, path: &str| net.harness.query(path, &[]).unwrap();
    let cold = ask(&mut net, "recommended");
    assert_eq!(
        (&cold["warming_up"], &cold["fastest_sat_vb"]),
        (&json!(true), &Json::Null)
    );
    assert_eq!(
        cold["coverage"]["missing"].as_str().unwrap(),
        "0 of 3 blocks with transactions were heard"
    );
    assert_eq!(ask(&mut net, "projection")["blocks"], Json::Null);
    // Blocks of which half was never seen in the pool.
    for _ in 0..10 {
        let mut transactions = net.pool(20, 4);
        for _ in 0..4 {
            transactions.push(net.transaction());
        }
        net.block(transactions);
    }
    let answer = net.estimate(2);
    assert_eq!(
        (&answer["warming_up"], &answer["fee_rate_sat_vb"]),
        (&json!(true), &Json::Null)
    );
    assert!(
        answer["reason"]
            .as_str()
            .unwrap()
            .contains("50 % of their transactions"),
        "{answer:?}"
    );
    let cold = ask(&mut net, "recommended");
    assert_eq!(cold["coverage"]["percent"], json!(50.0));
    assert_eq!(cold["coverage"]["last_block"]["seen"], json!(4));
    assert!(
        cold["coverage"]["missing"]
            .as_str()
            .unwrap()
            .contains("75 % are needed")
    );
    assert_eq!(net.harness.value("coverage_percent"), Some(50.0));
    // Empty blocks say nothing.
    net.block(vec![]);
    assert_eq!(
        ask(&mut net, "recommended")["coverage"]["percent"],
        json!(50.0)
    );
    for _ in 0..12 {
        net.steady(20, 1);
    }
    let warm = ask(&mut net, "recommended");
    assert_eq!(
        (&warm["warming_up"], &warm["fastest_sat_vb"]),
        (&json!(false), &json!(1.0))
    );
    assert_eq!(warm["coverage"]["missing"], Json::Null);

    // What was learnt stays when the host starts again; the pool must be heard anew.
    net.steady(20, 60);
    net.harness.restart();
    net.harness.mempool(&[], &[]).unwrap();
    assert_eq!(ask(&mut net, "recommended")["warming_up"], json!(true));
    let answer = net.estimate(2);
    assert_eq!(
        (&answer["fee_rate_sat_vb"], &answer["pool_sat_vb"]),
        (&json!(20.0), &Json::Null)
    );
}

/// A pool of two full blocks at a rate.
fn fill(net: &mut Net, rate: u64) -> Vec<Transaction> {
    let mut transactions = Vec::new();
    for _ in 0..24 {
        net.made += 1;
        let script = vec![0x51; 90_000];
        transactions.push(chain::transaction(
            &[(Txid::from_byte_array([9; 32]), net.made)],
            &[(1, &script)],
        ));
    }
    net.give(rate, &transactions, &[]);
    transactions
}

#[test]
fn the_pool_lowers_an_economical_answer_and_raises_none() {
    let mut net = Net::new();
    net.steady(25, 30);
    let answer = net.estimate(2);
    assert_eq!(
        (
            &answer["estimator_sat_vb"],
            &answer["pool_sat_vb"],
            &answer["fee_rate_sat_vb"]
        ),
        (&json!(25.0), &json!(0.1), &json!(0.1)),
        "an empty pool has room for all"
    );
    let conservative = net
        .harness
        .query("estimate", &[("target", "2"), ("mode", "conservative")])
        .unwrap();
    assert_eq!(conservative["fee_rate_sat_vb"], json!(25.0));
    let cheap = fill(&mut net, 7);
    let answer = net.estimate(2);
    assert_eq!(
        (&answer["pool_sat_vb"], &answer["fee_rate_sat_vb"]),
        (&json!(7.0), &json!(7.0))
    );
    fill(&mut net, 90);
    let answer = net.estimate(2);
    assert_eq!(
        (&answer["pool_sat_vb"], &answer["fee_rate_sat_vb"]),
        (&json!(90.0), &json!(25.0))
    );

    let projection = net.harness.query("projection", &[]).unwrap();
    assert_eq!(projection["pool"], json!(48));
    assert_eq!(projection["blocks"][0]["median_sat_vb"], json!(90.0));
    assert_eq!(projection["blocks"][4]["median_sat_vb"], json!(7.0));
    assert_eq!(projection["left_over"], json!(0));
    let recommended = net.harness.query("recommended", &[]).unwrap();
    assert_eq!(
        (
            &recommended["fastest_sat_vb"],
            &recommended["minimum_sat_vb"]
        ),
        (&json!(90.0), &json!(1.0))
    );

    // What is evicted for its fee raises the floor, and what left is in no block.
    let evicted: Vec<(Txid, u8)> = cheap.iter().map(|tx| (tx.compute_txid(), 4)).collect();
    net.harness.mempool(&evicted, &[]).unwrap();
    let recommended = net.harness.query("recommended", &[]).unwrap();
    assert_eq!(recommended["minimum_sat_vb"], json!(7.0));
    assert_eq!(
        net.harness.query("projection", &[]).unwrap()["pool"],
        json!(24)
    );
}

#[test]
fn signature_operations_reach_the_projection_and_the_floor() {
    let mut net = Net::new();
    net.steady(10, 3);
    let heavy: Vec<Transaction> = (0..6).map(|_| net.transaction()).collect();
    let plain = net.transaction();
    for tx in &heavy {
        net.harness.sigop_costs.insert(tx.compute_txid(), 16_000);
    }
    // Each as large as 80,000 vB: by its own few bytes it would pay a thousand times as much.
    let give = |net: &mut Net, tx: &Transaction, fee| {
        let entry = PoolTransaction {
            transaction: tx.clone(),
            fee,
            parents: Vec::new(),
        };
        net.harness.mempool(&[], &[entry]).unwrap();
    };
    for tx in &heavy {
        give(&mut net, tx, 80_000 * 3);
    }
    give(&mut net, &plain, 2 * plain.vsize() as u64);
    let projection = net.harness.query("projection", &[]).unwrap();
    let blocks = &projection["blocks"];
    // Four of them have 64,000 operations, a fifth would make it 80,000.
    assert_eq!(blocks[0]["transactions"], json!(5));
    assert_eq!(blocks[0]["sigops"], json!(64_000));
    assert_eq!(blocks[0]["median_sat_vb"], json!(3.0));
    assert_eq!(blocks[0]["range_sat_vb"][0], json!(2.0));
    let weight: u64 = heavy[..4]
        .iter()
        .chain([&plain])
        .map(|tx| tx.weight().to_wu())
        .sum();
    assert_eq!(blocks[0]["weight"], json!(weight));
    assert_eq!(
        (&blocks[1]["transactions"], &blocks[1]["sigops"]),
        (&json!(2), &json!(32_000))
    );
    // What is evicted says by that size what the pool's floor is.
    net.harness
        .mempool(&[(heavy[0].compute_txid(), 4)], &[])
        .unwrap();
    let recommended = net.harness.query("recommended", &[]).unwrap();
    assert_eq!(recommended["minimum_sat_vb"], json!(3.0));
}

#[test]
fn a_child_whose_parent_is_confirmed_stands_alone_and_slots_are_used_again() {
    let mut net = Net::new();
    net.steady(10, 3);
    let parent = net.transaction();
    net.give(1, std::slice::from_ref(&parent), &[]);
    let child = net.transaction();
    net.give(50, std::slice::from_ref(&child), &[parent.compute_txid()]);
    let median = |net: &mut Net| {
        net.harness.query("projection", &[]).unwrap()["blocks"][0]["median_sat_vb"].as_f64()
    };
    assert_eq!(median(&mut net), Some(25.5));
    net.block(vec![parent.clone()]);
    net.harness
        .mempool(&[(parent.compute_txid(), 0)], &[])
        .unwrap();
    assert_eq!(median(&mut net), Some(50.0));
    // Another takes the parent's slot and is no parent of the child.
    let other = net.transaction();
    net.give(2, std::slice::from_ref(&other), &[]);
    assert_eq!(median(&mut net), Some(26.0));
}

#[test]
fn blocks_in_parts_teach_the_same_as_whole_ones() {
    for size in [1, 2, 3, 40] {
        let (mut whole, mut parts) = (Net::new(), Net::new());
        for round in 0..40u64 {
            let mut taken = Vec::new();
            for net in [&mut whole, &mut parts] {
                let mut pool = net.pool(60, 3);
                pool.extend(net.pool(25 + round % 2, 6));
                // Some wait longer, and one that nobody heard of is in the block.
                pool.truncate(5 + round as usize % 4);
                pool.push(net.transaction());
                taken = pool;
            }
            whole.block(taken.clone());
            let block = parts.next(taken);
            parts.harness.parts(&block, size, &[]).unwrap();
            parts.tip = block.block_hash();
            assert_eq!(parts.harness.volatile(), whole.harness.volatile());
        }
        assert_eq!(parts.harness.state(), whole.harness.state(), "{size}");
        assert!(whole.rate(4).is_some());
        for path in ["estimate", "status", "recommended", "projection"] {
            let params: &[(&str, &str)] = match path {
                "estimate" => &[("target", "4")],
                _ => &[],
            };
            assert_eq!(
                parts.harness.query(path, params).unwrap(),
                whole.harness.query(path, params).unwrap()
            );
        }
        for value in ["coverage_percent", "fee_rate_2", "fee_rate_6", "waited_for"] {
            assert_eq!(parts.harness.value(value), whole.harness.value(value));
        }
        assert!(whole.harness.value("coverage_percent").unwrap() < 100.0);
    }
}
