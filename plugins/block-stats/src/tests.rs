//! Statistics against Core's own figures, and against the blocks they were made of.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use blockmill_sdk::testing::bitcoin::{Block, Witness};
use blockmill_sdk::testing::{Cell, Harness, blocks, chain};
use blockmill_sdk::{Json, QueryError, json};
use utxo_tracker::UtxoTracker;

use super::*;

/// Core's `rpc_getblockstats_calculate_percentiles_by_weight`.
#[test]
fn percentiles_are_those_of_core() {
    let ones_and_twos: Rates = [(1, 1); 100].into_iter().chain([(2, 1); 100]).collect();
    assert_eq!(percentiles(&ones_and_twos), [1, 1, 1, 2, 2]);
    let overlapping = [(1, 9), (2, 16), (4, 50), (5, 10), (9, 15)];
    assert_eq!(percentiles(&overlapping), [2, 2, 4, 4, 9]);
    let split = [(1, 9), (2, 11), (2, 5), (4, 50), (5, 10), (9, 15)];
    assert_eq!(percentiles(&split), [2, 2, 4, 4, 9]);
    let huge = [(1, 100), (2, 1), (3, 1), (3, 1), (999_999, 1)];
    assert_eq!(percentiles(&huge), [1; 5]);
    assert_eq!(percentiles(&[]), [0; 5]);
}

/// Runs blocks through utxo-tracker and, with what they spend, through block-stats.
fn follow(coins: &mut Harness<UtxoTracker>, stats: &mut Harness<BlockStats>, blocks: &[Block]) {
    for block in blocks {
        let spent = coins.block(block).unwrap().spent;
        stats.block_with(block, spent).unwrap();
    }
}

fn sum(harness: &Harness<BlockStats>, table: &str, column: &str) -> i64 {
    let cells = harness.column(table, column);
    cells
        .iter()
        .map(|cell| match cell {
            Cell::Integer(number) => *number,
            other => panic!("{other:?}"),
        })
        .sum()
}

#[test]
fn the_regtest_chain_has_its_known_fees_scripts_and_witnesses() {
    let Some(data) = blocks::data() else { return };
    let main = blocks::read_framed(&data.join("regtest/main.dat"));
    let mut coins = Harness::<UtxoTracker>::new(json!({}));
    let mut stats = Harness::<BlockStats>::new(json!({}));
    follow(&mut coins, &mut stats, &main);

    assert_eq!(sum(&stats, "block_stats", "fees"), 25_899_628);
    assert_eq!(sum(&stats, "block_stats", "txs"), 7_573);
    assert_eq!(sum(&stats, "block_stats", "op_return"), 477 + 130);
    let txs = || main.iter().flat_map(|block| &block.txdata[1..]);
    let segwit = txs().filter(|tx| tx.input.iter().any(|input| !input.witness.is_empty()));
    assert_eq!(
        sum(&stats, "block_stats", "segwit_txs"),
        segwit.count() as i64
    );
    let size: usize = txs().map(|tx| tx.total_size()).sum();
    let base: usize = txs().map(|tx| tx.base_size()).sum();
    assert_eq!(sum(&stats, "block_stats", "size"), size as i64);
    assert_eq!(
        sum(&stats, "block_stats", "witness_bytes"),
        (size - base) as i64
    );
    let outputs: usize = main
        .iter()
        .flat_map(|block| &block.txdata)
        .map(|tx| tx.output.len())
        .sum();
    assert_eq!(sum(&stats, "block_stats", "outputs"), outputs as i64);
    let kinds: i64 = Kind::ALL
        .iter()
        .map(|kind| sum(&stats, "block_stats", kind.name()))
        .sum();
    assert_eq!(kinds, outputs as i64);

    // Days: those that are over as rows, the last one in the state.
    let mut days = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut params = vec![("limit", "2")];
        if let Some(after) = &after {
            params.push(("after", after));
        }
        let page = stats.query("days", &params).unwrap();
        days.extend(page["days"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    assert_eq!(stats.rows("day_stats").len() + 1, days.len());
    let fees: u64 = days
        .iter()
        .map(|day| day["fees_sats"].as_u64().unwrap())
        .sum();
    assert_eq!(fees, 25_899_628);
    let blocks: u64 = days.iter().map(|day| day["blocks"].as_u64().unwrap()).sum();
    assert_eq!(blocks, 131);
}

#[test]
fn block_367891_pays_what_it_really_paid() {
    let Some(data) = blocks::data() else { return };
    let packed = data.join("blocks/mainnet-367891.spent.json.zst");
    let Ok(unpacked) = std::process::Command::new("zstd")
        .arg("-dc")
        .arg(&packed)
        .output()
    else {
        eprintln!("skipped: no zstd to unpack {}", packed.display());
        return;
    };
    let text = String::from_utf8(unpacked.stdout).unwrap();
    let coins = Json::parse(&text).unwrap();
    let mut spent = vec![(0, vec![], 0, false)];
    for coin in coins.as_array().unwrap() {
        let script = hex::decode(coin["txout"]["script_pubkey"].as_str().unwrap()).unwrap();
        spent.push((
            coin["txout"]["value"].as_u64().unwrap(),
            script,
            coin["creation_height"].as_u64().unwrap() as u32,
            coin["is_coinbase"].as_bool().unwrap(),
        ));
    }
    let block = blocks::read_raw(&data.join("blocks/mainnet-367891.raw"));
    let mut harness = Harness::<BlockStats>::on("mainnet", json!({}));
    harness
        .block_at(367_891, &block, Some(blocks::spent(&spent)))
        .unwrap();
    let stats = harness.query("block", &[("height", "367891")]).unwrap();
    assert_eq!(stats["fees_sats"], 14_001_930);
    assert_eq!(stats["txs"], 420);
    assert_eq!(stats["inputs"], 20_817);
    assert_eq!(stats["segwit_txs"], 0);
    assert_eq!(stats["witness_share"], 0.0);
    // Each percentile by its definition: as much weight pays no more.
    let mut rates: Vec<(u64, u64)> = Vec::new();
    let mut next = 1;
    for tx in &block.txdata[1..] {
        let paid: u64 = spent[next..next + tx.input.len()]
            .iter()
            .map(|coin| coin.0)
            .sum();
        next += tx.input.len();
        let out: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
        let weight = tx.weight().to_wu();
        rates.push(((paid - out) * 4 / weight, weight));
    }
    let total: u64 = rates.iter().map(|(_, weight)| weight).sum();
    for (percentile, percent) in [10, 25, 50, 75, 90].into_iter().enumerate() {
        let rate = stats["fee_rate_percentiles"][percentile].as_u64().unwrap();
        let upto: u64 = rates
            .iter()
            .filter(|(r, _)| *r <= rate)
            .map(|(_, w)| w)
            .sum();
        let below: u64 = rates
            .iter()
            .filter(|(r, _)| *r < rate)
            .map(|(_, w)| w)
            .sum();
        assert!(
            upto * 100 >= total * percent && below * 100 < total * percent,
            "{percent}"
        );
    }
}

/// Value, script, height, coinbase.
type Spent = (u64, Vec<u8>, u32, bool);

/// A block with one transaction that pays `fee`.
fn paying(height: u32, time: u32, fee: u64, segwit: bool) -> (Block, Vec<Spent>) {
    let from = chain::coinbase(0, 1).compute_txid();
    let mut tx = chain::transaction(&[(from, 0)], &[(100_000 - fee, &[0x51])]);
    if segwit {
        tx.input[0].witness = Witness::from_slice(&[[7; 50]]);
    }
    let mut block = chain::block(chain::hash(height as u8), height, 50, vec![tx]);
    block.header.time = time;
    let spent = vec![(0, vec![], 0, false), (100_000, vec![0x51], 0, false)];
    (block, spent)
}

#[test]
fn a_day_is_summed_up_when_it_is_over_and_again_after_a_reorg() {
    let mut harness = Harness::<BlockStats>::new(json!({}));
    let first = 1_700_000_000 / 86_400 * 86_400;
    let give = |harness: &mut Harness<BlockStats>, height: u32, day: u32, fee| {
        let (block, spent) = paying(
            height,
            first + day * 86_400 + height,
            fee,
            height.is_multiple_of(2),
        );
        harness
            .block_with(&block, Some(blocks::spent(&spent)))
            .unwrap();
    };
    // The median of eleven blocks is in the new day after six of them.
    for height in 1..=11 {
        give(&mut harness, height, 0, 1_000 + u64::from(height));
    }
    assert!(harness.rows("day_stats").is_empty());
    for height in 12..=16 {
        give(&mut harness, height, 1, 50_000);
    }
    assert!(harness.rows("day_stats").is_empty());
    let before = harness.state().clone();
    give(&mut harness, 17, 1, 2_000);
    assert_eq!(harness.rows("day_stats").len(), 1);
    let date = date::text(u64::from(first));
    assert_eq!(
        harness.column("day_stats", "day"),
        [Cell::Text(date.clone())]
    );
    assert_eq!(harness.column("day_stats", "blocks"), [Cell::Integer(16)]);
    let fees = (1_001..=1_011).sum::<i64>() + 5 * 50_000;
    assert_eq!(harness.column("day_stats", "fees"), [Cell::Integer(fees)]);
    let day = harness.query("day", &[("date", &date)]).unwrap();
    assert_eq!(day["fees_sats"].as_u64(), Some(fees as u64));
    assert_eq!(day["segwit_txs"], 8);
    // 61 bytes, and 53 of witness in every second one.
    assert_eq!(day["size"], 16 * 61 + 8 * 54);
    assert_eq!(day["witness_bytes"], 8 * 54);
    assert_eq!(day["fee_rate_max"], 50_000 * 4 / (4 * 61));

    harness.rollback(16);
    assert!(harness.rows("day_stats").is_empty());
    assert_eq!(harness.state(), &before);
    give(&mut harness, 17, 0, 7_000);
    assert!(
        harness.rows("day_stats").is_empty(),
        "this branch stays in the day"
    );
    assert_eq!(
        harness.query("day", &[("date", &date)]).unwrap()["blocks"],
        17
    );
}

#[test]
fn old_blocks_leave_the_state_and_every_query_is_bounded() {
    let mut harness = Harness::<BlockStats>::new(json!({}));
    for height in 1..=KEPT + 5 {
        let block = chain::block(chain::hash(1), height, 50, vec![]);
        let spent = blocks::spent(&[(0, vec![], 0, false)]);
        harness.block_with(&block, Some(spent)).unwrap();
    }
    assert_eq!(harness.rows("block_stats").len(), KEPT as usize + 5);
    let kept = harness.state().keys().filter(|key| key[0] == b'B').count();
    assert_eq!(kept, KEPT as usize);
    let refused =
        |harness: &mut Harness<BlockStats>, path: &str, params: &[(&str, &str)]| match harness
            .query(path, params)
        {
            Err(QueryError::NotFound(_)) => 404,
            Err(QueryError::BadRequest(_)) => 400,
            other => panic!("{other:?}"),
        };
    assert_eq!(refused(&mut harness, "block", &[("height", "5")]), 404);
    assert_eq!(refused(&mut harness, "block", &[("height", "x")]), 400);
    assert_eq!(refused(&mut harness, "block", &[("hight", "6")]), 400);
    assert_eq!(refused(&mut harness, "day", &[]), 400);
    assert_eq!(refused(&mut harness, "day", &[("date", "2024-02-30")]), 400);
    assert_eq!(refused(&mut harness, "day", &[("date", "1999-01-01")]), 404);
    assert_eq!(refused(&mut harness, "days", &[("limit", "367")]), 400);
    assert_eq!(refused(&mut harness, "days", &[("limit", "0")]), 400);
    assert_eq!(refused(&mut harness, "nonsense", &[]), 404);
    assert_eq!(harness.query("", &[]).unwrap()["height"], KEPT + 5);
    let last = harness.query("block", &[]).unwrap();
    assert_eq!(last["height"], KEPT + 5);
    assert_eq!(last["fee_rate_percentiles"], json!([0, 0, 0, 0, 0]));
}

#[test]
fn settings_there_are_none() {
    let error = Harness::<BlockStats>::try_on("regtest", json!({ "days": 3 }))
        .err()
        .unwrap();
    assert!(error.contains("`days`"), "{error}");
}

#[test]
fn rates_of_a_day_are_exact_below_a_thousand() {
    for rate in [0, 1, 999] {
        assert_eq!(coarse(rate), rate);
    }
    assert_eq!(coarse(1_234), 1_230);
    assert_eq!(coarse(u64::MAX), 18_400_000_000_000_000_000);
}
