#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
use std::collections::{BTreeSet, HashMap};

use super::*;

/// Plain and slow: every package summed up anew for every transaction that is chosen.
fn naive(txs: &[Tx], blocks: usize, room: Room) -> Vec<Vec<(u32, f64)>> {
    fn family(txs: &[Tx], done: &BTreeSet<u32>, place: u32, found: &mut BTreeSet<u32>) {
        if !done.contains(&place) && found.insert(place) {
            for parent in &txs[place as usize].parents {
                family(txs, done, *parent, found);
            }
        }
    }
    let mut done = BTreeSet::new();
    let mut made = Vec::new();
    for _ in 0..blocks {
        let (mut block, mut used): (Vec<(u32, f64)>, (u64, u64)) = (Vec::new(), (0, 0));
        loop {
            let mut best: Option<(u64, u64, u64, BTreeSet<u32>)> = None;
            for place in (0..txs.len() as u32).filter(|place| !done.contains(place)) {
                let mut package = BTreeSet::new();
                family(txs, &done, place, &mut package);
                let fee: u64 = package.iter().map(|tx| txs[*tx as usize].fee).sum();
                let sigops: u64 = package
                    .iter()
                    .map(|tx| u64::from(txs[*tx as usize].sigops))
                    .sum();
                // Each is measured by itself: what one lacks in weight another does not make up for.
                let weight: u64 = package
                    .iter()
                    .map(|tx| &txs[*tx as usize])
                    .map(|tx| u64::from(tx.weight.max(tx.sigops * 20)))
                    .sum();
                let better = match &best {
                    None => true,
                    Some((other, size, ..)) => {
                        u128::from(fee) * u128::from(*size)
                            > u128::from(*other) * u128::from(weight)
                    }
                };
                let fits = used.0 + weight <= room.weight && used.1 + sigops <= room.sigops;
                if fits && better {
                    best = Some((fee, weight, sigops, package));
                }
            }
            let Some((fee, weight, sigops, package)) = best else {
                break;
            };
            used = (used.0 + weight, used.1 + sigops);
            for place in package {
                done.insert(place);
                block.push((place, fee as f64 * 4.0 / weight as f64));
            }
        }
        if block.is_empty() {
            break;
        }
        block.sort_by_key(|(place, _)| *place);
        made.push(block);
    }
    made
}

fn sorted(blocks: &[Block]) -> Vec<Vec<(u32, f64)>> {
    let mut found: Vec<Vec<(u32, f64)>> = blocks.iter().map(|block| block.txs.clone()).collect();
    for block in &mut found {
        block.sort_by_key(|(place, _)| *place);
    }
    found
}

/// A pool from a seed: chains, trees, several parents, equal rates.
fn made_up(seed: u64, count: u32) -> Vec<Tx> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    (0..count)
        .map(|place| {
            let mut parents = BTreeSet::new();
            if place > 0 {
                for _ in 0..[0, 0, 0, 1, 1, 2, 3][next(7) as usize] {
                    parents.insert(place - 1 - next(u64::from(place.min(8))) as u32);
                }
            }
            let weight = 400 + next(8) as u32 * 200;
            Tx {
                fee: u64::from(weight) * [0, 1, 2, 5, 5, 20, 100][next(7) as usize] / 4,
                weight,
                sigops: [0, 0, 1, 4, 20, 80, 200][next(7) as usize],
                parents: parents.into_iter().collect(),
            }
        })
        .collect()
}

/// Room for so many weight units, whatever the signature operations.
fn weight(weight: u64) -> Room {
    Room {
        weight,
        sigops: u64::MAX,
    }
}

#[test]
fn the_blocks_are_those_of_a_plain_greedy_search() {
    for seed in 1..=400 {
        let txs = made_up(seed, 5 + (seed % 60) as u32);
        let rooms = [(3_000, 10_000), (9_000, 10_000), (100_000, 10_000)];
        let few = [(9_000, 100), (100_000, 150), (100_000, 500), (3_000, 0)];
        for (weight, sigops) in rooms.into_iter().chain(few) {
            let room = Room { weight, sigops };
            let (blocks, left) = project(&txs, 8, room);
            assert_eq!(
                sorted(&blocks),
                naive(&txs, 8, room),
                "seed {seed}, {room:?}"
            );
            let in_blocks: usize = blocks.iter().map(|block| block.txs.len()).sum();
            assert_eq!(in_blocks + left, txs.len());
            let mut done = BTreeSet::new();
            for block in &blocks {
                assert!(block.weight <= block.size && block.size <= room.weight);
                let sum = |of: fn(&Tx) -> u32| -> u64 {
                    let each = block.txs.iter().map(|(place, _)| of(&txs[*place as usize]));
                    each.map(u64::from).sum()
                };
                assert_eq!(block.weight, sum(|tx| tx.weight));
                assert_eq!(block.sigops, sum(|tx| tx.sigops));
                assert!(block.sigops <= room.sigops);
                for (place, _) in &block.txs {
                    assert!(
                        txs[*place as usize]
                            .parents
                            .iter()
                            .all(|parent| done.contains(parent)),
                        "seed {seed}: parents first"
                    );
                    assert!(done.insert(*place));
                }
            }
        }
    }
}

/// A slot is used again by whoever comes next, so children may lie before their parents; a small pool may be one family.
#[test]
fn a_family_whose_children_come_first_is_put_in_whole() {
    let txs: Vec<Tx> = (0..40u32)
        .map(|place| Tx {
            fee: u64::from(40 - place) * 100,
            weight: 400,
            sigops: 0,
            parents: (place + 1..40.min(place + 4)).rev().collect(),
        })
        .collect();
    let (blocks, left) = project(&txs, 8, weight(100_000));
    assert_eq!(left, 0);
    assert_eq!(sorted(&blocks), naive(&txs, 8, weight(100_000)));
    let mut done = BTreeSet::new();
    for (place, _) in &blocks[0].txs {
        let parents = &txs[*place as usize].parents;
        assert!(
            parents.iter().all(|parent| done.contains(parent)),
            "{place}"
        );
        done.insert(*place);
    }
}

/// The 60 transactions that Core accepted on top of regtest block 130.
#[test]
fn sixty_real_transactions_fill_blocks_as_a_plain_search_fills_them() {
    let folder = std::env::var("BLOCKMILL_TEST_DATA")
        .unwrap_or_else(|_| format!("{}/../../../shared/data", env!("CARGO_MANIFEST_DIR")));
    let inside = format!("{}/../../tests/data/regtest", env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| {
        std::fs::read_to_string(format!("{inside}/{name}"))
            .or_else(|_| std::fs::read_to_string(format!("{folder}/regtest/{name}")))
    };
    let (Ok(hex), Ok(tsv)) = (read("mempool.hex"), read("mempool.tsv")) else {
        println!("skipped: no test data");
        return;
    };
    let lines: Vec<Vec<&str>> = tsv
        .lines()
        .skip(1)
        .map(|line| line.split('\t').collect())
        .collect();
    let fees: HashMap<&str, (u64, u64, usize)> = lines
        .iter()
        .map(|cells| {
            let number = |at: usize| cells[at].parse::<u64>().unwrap();
            (cells[0], (number(1), number(2), number(3) as usize))
        })
        .collect();
    use blockmill_sdk::testing::bitcoin::{Transaction, consensus::encode::deserialize_hex};
    let transactions: Vec<Transaction> = hex
        .lines()
        .map(|line| deserialize_hex(line.trim()).unwrap())
        .collect();
    let places: HashMap<_, u32> = transactions
        .iter()
        .zip(0..)
        .map(|(tx, place)| (tx.compute_txid(), place))
        .collect();
    let txs: Vec<Tx> = transactions
        .iter()
        .map(|tx| {
            let (fee, vsize, _) = fees[tx.compute_txid().to_string().as_str()];
            assert_eq!(tx.vsize() as u64, vsize);
            let parents: BTreeSet<u32> = tx
                .input
                .iter()
                .filter_map(|input| places.get(&input.previous_output.txid).copied())
                .collect();
            Tx {
                fee,
                weight: tx.weight().to_wu() as u32,
                // Those of its own scripts.
                sigops: tx.total_sigop_cost(|_| None) as u32,
                parents: parents.into_iter().collect(),
            }
        })
        .collect();
    assert_eq!(txs.len(), 60);
    for (tx, above) in transactions.iter().zip(ancestors(&txs)) {
        assert_eq!(
            above.len(),
            fees[tx.compute_txid().to_string().as_str()].2,
            "ancestors as Core counts them"
        );
    }
    for room in [weight(4_000), weight(12_000), ROOM] {
        assert_eq!(
            sorted(&project(&txs, 8, room).0),
            naive(&txs, 8, room),
            "{room:?}"
        );
    }
    let (blocks, left) = project(&txs, 8, ROOM);
    assert_eq!((blocks.len(), left, blocks[0].fees), (1, 0, 108_003));
}

#[test]
fn a_block_is_full_when_its_signature_operations_are_and_goes_on_with_what_has_none() {
    // Each 4,000 weight units and 800 operations, which makes it 16,000: 99 of them have 79,200 operations.
    let heavy = |fee| Tx {
        fee,
        weight: 4_000,
        sigops: 800,
        parents: Vec::new(),
    };
    let plain = Tx {
        fee: 100,
        weight: 4_000,
        sigops: 0,
        parents: Vec::new(),
    };
    let mut txs: Vec<Tx> = (0..250).map(|_| heavy(100_000)).collect();
    let (blocks, left) = project(&txs, 8, ROOM);
    assert_eq!(left, 0);
    let counts: Vec<usize> = blocks.iter().map(|block| block.txs.len()).collect();
    assert_eq!(counts, [99, 99, 52]);
    assert_eq!((blocks[0].sigops, blocks[0].weight), (79_200, 396_000));
    assert_eq!(blocks[0].size, 99 * 16_000);
    // By weight alone 249 of them would be in the first block.
    let (by_weight, _) = project(&txs, 8, weight(ROOM.weight));
    assert_eq!(by_weight[0].txs.len(), 249);
    // 400 are left: half of one more. What has none still fits, and comes after all that pay more.
    txs.push(plain);
    txs.push(Tx {
        sigops: 400,
        ..heavy(1)
    });
    let (blocks, _) = project(&txs, 8, ROOM);
    let last: Vec<u32> = blocks[0].txs.iter().map(|(place, _)| *place).collect();
    assert_eq!((blocks[0].txs.len(), &last[99..]), (101, &[250, 251][..]));
    assert_eq!(blocks[0].sigops, 79_600, "to the last one");
}

#[test]
fn operations_of_ancestors_count_and_rates_are_those_of_the_larger_size() {
    let tx = |fee, sigops, parents: &[u32]| Tx {
        fee,
        weight: 400,
        sigops,
        parents: parents.to_vec(),
    };
    // 400 weight units are 100 vB; 60 operations make it 300 vB.
    let txs = [tx(300, 60, &[]), tx(900, 0, &[0]), tx(250, 50, &[])];
    let room = Room {
        weight: 100_000,
        sigops: 60,
    };
    let (blocks, left) = project(&txs, 8, room);
    assert_eq!((blocks.len(), left), (2, 0));
    assert_eq!(blocks[0].txs, [(0, 3.0), (1, 3.0)], "400 vB pay 1,200 sat");
    assert_eq!(blocks[1].txs, [(2, 1.0)], "it has the operations of 250 vB");
}

#[test]
fn what_has_more_operations_than_a_block_is_left_over() {
    let txs = [Tx {
        fee: 1,
        weight: 400,
        sigops: 79_601,
        parents: Vec::new(),
    }];
    assert_eq!(project(&txs, 8, ROOM), (Vec::new(), 1));
}

fn full(rate: f64, vsize: u64) -> Block {
    Block {
        txs: vec![(0, rate)],
        weight: vsize * 4,
        size: vsize * 4,
        sigops: 0,
        fees: 1,
    }
}

#[test]
fn recommendations_are_those_of_mempool_space() {
    let nothing = recommend(&[], 0.1, 1.0);
    assert_eq!(
        (nothing.fastest, nothing.economy, nothing.minimum),
        (1.0, 1.0, 1.0)
    );
    let got = recommend(
        &[
            full(20.0, 999_000),
            full(10.0, 999_000),
            full(5.0, 999_000),
            full(2.0, 999_000),
        ],
        1.0,
        1.0,
    );
    // 20; (10 + 20) / 2; (5 + 15) / 2; twice the minimum.
    assert_eq!(
        (
            got.fastest,
            got.half_hour,
            got.hour,
            got.economy,
            got.minimum
        ),
        (20.0, 15.0, 10.0, 2.0, 1.0)
    );
    // The only block is 80 % full: 20 * 0.6.
    let got = recommend(&[full(20.0, 800_000)], 1.0, 1.0);
    assert_eq!((got.fastest, got.half_hour, got.hour), (12.0, 1.0, 1.0));
    let got = recommend(&[full(20.0, 400_000)], 3.2, 1.0);
    assert_eq!(
        (got.fastest, got.hour, got.economy, got.minimum),
        (4.0, 4.0, 4.0, 4.0)
    );
    // Who is in more of a hurry never pays less.
    let got = recommend(
        &[
            full(2.0, 999_000),
            full(9.0, 999_000),
            full(9.0, 999_000),
            full(9.0, 999_000),
        ],
        1.0,
        1.0,
    );
    assert!(got.fastest >= got.half_hour && got.half_hour >= got.hour && got.hour >= got.economy);
}

#[test]
fn medians() {
    assert_eq!(
        (
            median(&[]),
            median(&[3.0]),
            median(&[1.0, 2.0]),
            median(&[1.0, 2.0, 9.0])
        ),
        (0.0, 3.0, 1.5, 2.0)
    );
}

#[test]
#[ignore = "a measurement"]
fn how_long_a_projection_takes() {
    for count in [20_000, 100_000] {
        let txs = made_up(7, count);
        let start = std::time::Instant::now();
        let (blocks, left) = project(&txs, 8, ROOM);
        println!(
            "{count} transactions: {:?}, {} blocks, {left} left over",
            start.elapsed(),
            blocks.len()
        );
    }
}
