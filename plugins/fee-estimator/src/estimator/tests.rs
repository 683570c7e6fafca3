//! The scenario of Bitcoin Core's `policyestimator_tests`, and values worked out by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use super::*;

/// Core's `estimateFee`: 95 % on the medium horizon, 0 where there is no answer, and never an answer for 1.
fn estimate_fee(estimator: &Estimator, target: u32) -> i64 {
    if target <= 1 {
        return 0;
    }
    estimator
        .on(&estimator.medium, target, DOUBLE_SUCCESS)
        .map_or(0, |estimate| estimate.rate.round() as i64)
}

fn txid(block: u32, fee: u32, number: u32) -> [u8; 32] {
    let mut txid = [0; 32];
    txid[..4].copy_from_slice(&(10_000 * block + 100 * fee + number).to_le_bytes());
    txid
}

const VSIZE: u32 = 188;
const BASE_FEE: u64 = 2_000;
/// sat/kvB of `BASE_FEE` on a transaction of Core's template.
const BASE_RATE: i64 = 10_638;
const DELTA: i64 = 100;

#[test]
fn cores_scenario_gives_cores_estimates() {
    let mut estimator = Estimator::new(0);
    let mut waiting: [Vec<[u8; 32]>; 10] = Default::default();
    let mut height = 0;

    // 200 blocks with ten fee rates, four transactions each: a block takes the highest always, the next 9 times of 10, ...
    while height < 200 {
        for fee in 0..10 {
            for number in 0..4 {
                let txid = txid(height, fee, number);
                estimator.arrived(&txid, BASE_FEE * u64::from(fee + 1), VSIZE, height);
                waiting[fee as usize].push(txid);
            }
        }
        let block: Vec<[u8; 32]> = (0..=height as usize % 10)
            .flat_map(|h| std::mem::take(&mut waiting[9 - h]))
            .collect();
        height += 1;
        estimator.block(height, &block);
        if height == 3 {
            // Three buckets must be put together for enough data.
            assert_eq!(estimate_fee(&estimator, 1), 0);
            assert!((estimate_fee(&estimator, 2) - 9 * BASE_RATE).abs() < DELTA);
        }
    }

    let mut original = vec![0i64];
    for target in 1..=48u32 {
        original.push(estimate_fee(&estimator, target));
        let t = target as usize;
        if (3..10).contains(&target) {
            assert!(original[t] <= original[t - 1], "target {target}");
        }
        if target < 10 && target % 2 == 0 {
            let expected = (11 - i64::from(target)) * BASE_RATE;
            assert!(
                (original[t] - expected).abs() < DELTA,
                "target {target}: {} not {expected}",
                original[t]
            );
        }
    }

    // 50 blocks without transactions change nothing.
    while height < 250 {
        height += 1;
        estimator.block(height, &[]);
    }
    assert_eq!(estimate_fee(&estimator, 1), 0);
    for target in 2..10 {
        assert!((estimate_fee(&estimator, target) - original[target as usize]).abs() < DELTA);
    }

    // 15 blocks while nothing is mined: estimates go up.
    while height < 265 {
        for fee in 0..10 {
            for number in 0..4 {
                let txid = txid(height, fee, number);
                estimator.arrived(&txid, BASE_FEE * u64::from(fee + 1), VSIZE, height);
                waiting[fee as usize].push(txid);
            }
        }
        height += 1;
        estimator.block(height, &[]);
    }
    for target in 1..10 {
        let estimate = estimate_fee(&estimator, target);
        assert!(estimate == 0 || estimate > original[target as usize] - DELTA);
    }

    // All of them are mined: still not below the first.
    let block: Vec<[u8; 32]> = waiting.iter_mut().flat_map(std::mem::take).collect();
    height += 1;
    assert!(estimator.block(height, &block) >= 15 * 40);
    assert_eq!(estimate_fee(&estimator, 1), 0);
    for target in 2..10 {
        let estimate = estimate_fee(&estimator, target);
        assert!(estimate == 0 || estimate > original[target as usize] - DELTA);
    }

    // 400 blocks that take everything: below the first.
    while height < 665 {
        let mut block = Vec::new();
        for fee in 0..10 {
            for number in 0..4 {
                let txid = txid(height, fee, number);
                estimator.arrived(&txid, BASE_FEE * u64::from(fee + 1), VSIZE, height);
                block.push(txid);
            }
        }
        height += 1;
        estimator.block(height, &block);
    }
    assert_eq!(estimate_fee(&estimator, 1), 0);
    for target in 2..9 {
        assert!(
            estimate_fee(&estimator, target) < original[target as usize] - DELTA,
            "target {target}"
        );
    }
}

/// Blocks 1, 2, ... each take what came before them: `rates` are sat/vB.
fn steady(blocks: u32, rates: &[u64], each: u32) -> Estimator {
    let mut estimator = Estimator::new(0);
    for height in 0..blocks {
        let mut block = Vec::new();
        for (fee, rate) in rates.iter().enumerate() {
            for number in 0..each {
                let txid = txid(height, fee as u32, number);
                estimator.arrived(&txid, rate * 100, 100, height);
                block.push(txid);
            }
        }
        estimator.block(height + 1, &block);
    }
    estimator
}

#[test]
fn averages_are_those_that_one_works_out_by_hand() {
    // Two blocks with one transaction of 10 sat/vB each.
    let mut estimator = steady(2, &[10], 1);
    let rows = estimator.short.take_changed();
    assert_eq!(rows.len(), 1);
    let row = rows[0].1;
    assert_eq!(row.height, 2);
    assert!((row.count - (1.0 + 0.962)).abs() < 1e-12);
    assert!((row.rates - 10_000.0 * 1.962).abs() < 1e-8);
    assert!(
        row.confirmed
            .iter()
            .all(|confirmed| *confirmed == row.count)
    );
    assert!(row.failed.iter().all(|failed| *failed == 0.0));
}

#[test]
fn a_wait_of_three_blocks_is_not_counted_as_less() {
    let mut estimator = Estimator::new(10);
    estimator.arrived(&[1; 32], 1_000, 100, 10);
    estimator.block(11, &[]);
    estimator.block(12, &[]);
    estimator.block(13, &[[1; 32]]);
    assert_eq!(estimator.first_recorded, 13);
    assert_eq!(
        estimator.short.take_changed()[0].1.confirmed[..4],
        [0.0, 0.0, 1.0, 1.0]
    );
    // Scale 2: three blocks are the second period. Scale 24: the first.
    assert_eq!(
        estimator.medium.take_changed()[0].1.confirmed[..3],
        [0.0, 1.0, 1.0]
    );
    assert_eq!(estimator.long.take_changed()[0].1.confirmed[0], 1.0);
}

#[test]
fn a_transaction_that_leaves_counts_as_failed_for_the_periods_it_waited_through() {
    let mut estimator = Estimator::new(10);
    estimator.arrived(&[1; 32], 1_000, 100, 10);
    for height in 11..=15 {
        estimator.block(height, &[]);
    }
    assert_eq!(
        estimator.failed(&[1; 32]).map(|(_, blocks)| blocks),
        Some(5)
    );
    assert_eq!(
        estimator.short.take_changed()[0].1.failed[..7],
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    );
    assert_eq!(
        estimator.medium.take_changed()[0].1.failed[..4],
        [1.0, 1.0, 0.0, 0.0]
    );
    assert!(estimator.long.take_changed().is_empty());
    assert_eq!(estimator.failed(&[1; 32]), None);
    assert!(estimator.unconfirmed().is_empty());
}

#[test]
fn a_target_of_one_is_answered_as_two_and_a_far_one_as_far_as_was_seen() {
    let estimator = steady(21, &[10], 4);
    assert_eq!(estimator.block_span(), 20);
    let one = estimator.estimate(1, false);
    assert_eq!(one.target, 2);
    let (estimate, _) = one.found.unwrap();
    assert!((estimate.rate - 10_000.0).abs() < 1e-6);
    assert_eq!(estimate.horizon, "short");
    assert_eq!(estimator.estimate(1_008, false).target, 10);
}

#[test]
fn too_few_blocks_or_transactions_give_no_answer() {
    assert_eq!(Estimator::new(100).estimate(2, false).found, None);
    // Three blocks span two, half of which is a target of one.
    assert_eq!(steady(3, &[10], 4).estimate(2, false).found, None);
    assert!(steady(5, &[10], 4).estimate(2, false).found.is_some());
    // One transaction, then nothing: under 0.5 a block on the short horizon, under 0.1 on the longer ones.
    let mut estimator = steady(1, &[10], 1);
    for height in 2..40 {
        estimator.block(height, &[]);
    }
    assert_eq!(estimator.estimate(6, true).found, None);
}

#[test]
fn the_conservative_answer_is_never_below_the_economical_one() {
    let mut estimator = steady(300, &[50], 4);
    // Then a quiet day.
    for height in 300..330 {
        let mut block = Vec::new();
        for number in 0..20 {
            let txid = txid(height, 0, number);
            estimator.arrived(&txid, 500, 100, height);
            block.push(txid);
        }
        estimator.block(height + 1, &block);
    }
    let rate = |target, conservative| {
        estimator
            .estimate(target, conservative)
            .found
            .unwrap()
            .0
            .rate
    };
    for target in [2, 3, 6, 12, 24, 100] {
        assert!(rate(target, true) >= rate(target, false), "target {target}");
    }
}

#[test]
fn what_waits_too_long_pulls_an_answer_up() {
    let mut estimator = steady(30, &[5, 50], 4);
    assert!((estimator.estimate(2, false).found.unwrap().0.rate - 5_000.0).abs() < 1e-6);
    // Forty at the low rate come and stay.
    for number in 0..40 {
        estimator.arrived(&txid(500, 1, number), 500, 100, 30);
    }
    for height in 31..36 {
        estimator.block(height, &[]);
    }
    assert!((estimator.estimate(2, false).found.unwrap().0.rate - 50_000.0).abs() < 1e-6);
}

#[test]
fn a_block_that_was_seen_is_not_counted_again() {
    let mut estimator = steady(5, &[10], 4);
    estimator.arrived(&[1; 32], 1_000, 100, 5);
    assert_eq!(estimator.block(5, &[[1; 32]]), 0);
    assert_eq!(estimator.block(6, &[[1; 32]]), 1);
}
