//! Relative locks (BIP68), above all those by time.

use bitcoin::{Amount, Sequence, Transaction};

use super::chain::{coinbase, median_time};
use super::*;

/// BIP68, a lock by time.
const BY_TIME: u32 = 1 << 22;
/// BIP68, no lock.
const NO_LOCK: u32 = 1 << 31;

fn with_sequences(coins: &[OutPoint], sequences: &[u32]) -> Transaction {
    let mut tx = spend(coins, &[90_000]);
    for (input, sequence) in tx.input.iter_mut().zip(sequences) {
        input.sequence = Sequence(*sequence);
    }
    tx
}

#[test]
fn relative_locks_by_time_open_when_the_median_time_has_passed_and_not_a_block_before() {
    // Median times are ten minutes apart; locks count 512 seconds from the block before the coin's, here the first.
    for (lock, opens) in [(2, 2), (3, 3), (75, 64), (76, 65), (0xffff, 55_924)] {
        for (height, open) in [(opens, true), (opens - 1, false)] {
            let (chain, coins) = Chain::with_coins(height, 1, COIN);
            let mut pool = Mempool::new(MempoolConfig::default());
            let tx = with_sequences(&coins, &[BY_TIME | lock]);
            match offer(&mut pool, &chain, &tx) {
                Ok(_) => assert!(open, "a lock of {lock} at {height}"),
                Err(Refused::Locked) => assert!(!open, "a lock of {lock} at {height}"),
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn a_relative_lock_to_the_second() {
    // (seconds between the block before the coin's and the tip, lock, open)
    for (passed, lock, open) in [
        (511, 1, false),
        (512, 1, true),
        (1_023, 2, false),
        (1_024, 2, true),
        (0xffff * 512 - 1, 0xffff, false),
        (0xffff * 512, 0xffff, true),
    ] {
        let (mut pool, mut chain, coins) = setup(1);
        chain.coins.get_mut(&coins[0]).unwrap().height = 150;
        chain.times.insert(149, 1_000_000_000);
        chain.times.insert(150, 1);
        chain.times.insert(200, 1_000_000_000 + passed);
        let outcome = offer(
            &mut pool,
            &chain,
            &with_sequences(&coins, &[BY_TIME | lock]),
        );
        assert_eq!(outcome.is_ok(), open, "{passed} seconds, lock {lock}");
    }
}

#[test]
fn what_is_no_relative_lock_by_time_is_open() {
    let (mut pool, chain, coins) = setup(6);
    let set = |sequence| with_sequences(&coins[..1], &[sequence]);
    let far = BY_TIME | 0xffff;
    let refuse = |pool: &mut Mempool, tx: &Transaction| {
        assert!(matches!(offer(pool, &chain, tx), Err(Refused::Locked)));
    };
    refuse(&mut pool, &set(far));
    // Bits beside the flags and the value mean nothing.
    refuse(&mut pool, &set(far | 1 << 16 | 1 << 30));
    // Core compares the version as unsigned: -1 has locks, 0 and 1 have none.
    let version = |version, coin: usize| {
        let mut tx = with_sequences(&coins[coin..=coin], &[far]);
        tx.version = bitcoin::transaction::Version(version);
        tx
    };
    refuse(&mut pool, &version(-1, 1));
    enter(&mut pool, &chain, &version(0, 1));
    enter(&mut pool, &chain, &version(1, 2));
    // Disabled, a value beside the mask, nothing to wait for.
    enter(
        &mut pool,
        &chain,
        &with_sequences(&coins[3..4], &[NO_LOCK | far]),
    );
    enter(
        &mut pool,
        &chain,
        &with_sequences(&coins[4..5], &[BY_TIME | 0xffff_0000 & !NO_LOCK]),
    );
    // The last lock to open counts, whichever input has it and of whichever kind it is.
    let both = |first, second| with_sequences(&[coins[0], coins[5]], &[first, second]);
    refuse(&mut pool, &both(far, 1));
    refuse(&mut pool, &both(1, far));
    refuse(&mut pool, &both(BY_TIME | 1, 0xffff));
    enter(&mut pool, &chain, &both(BY_TIME | 1, 1));
}

#[test]
fn a_relative_lock_by_time_of_a_coin_at_height_0_or_1_counts_from_the_first_block() {
    for height in [0, 1] {
        let (mut chain, coins) = Chain::with_coins(100, 1, COIN);
        chain.coins.get_mut(&coins[0]).unwrap().height = height;
        chain.times.insert(100, median_time(0) + 70 * 512);
        let mut pool = Mempool::new(MempoolConfig::default());
        let locked = |lock| with_sequences(&coins, &[BY_TIME | lock]);
        assert!(matches!(
            offer(&mut pool, &chain, &locked(71)),
            Err(Refused::Locked)
        ));
        enter(&mut pool, &chain, &locked(70));
    }
}

#[test]
fn an_unconfirmed_parent_counts_as_of_the_next_block() {
    let (mut pool, mut chain, coins) = setup(1);
    let parent = spend(&coins, &[95_000]);
    enter(&mut pool, &chain, &parent);
    let child = with_sequences(&[pay(&parent)], &[BY_TIME | 1]);
    let free = with_sequences(&[pay(&parent)], &[BY_TIME]);
    assert!(matches!(
        offer(&mut pool, &chain, &child),
        Err(Refused::Locked)
    ));
    // A lock of nothing is open.
    enter(&mut pool, &chain, &free);
    // In block 201, the lock counts from block 200: 600 seconds have passed when 201 is the tip.
    chain.connect_both(&mut pool, vec![parent.clone()]);
    pool.settle(NOW, &chain, chain.tip()).unwrap();
    let mut child = child;
    child.output[0].value = Amount::from_sat(80_000);
    enter(&mut pool, &chain, &child);
}

#[test]
fn a_chain_without_relative_locks_has_none() {
    let (_, chain, coins) = setup(2);
    let mut pool = Mempool::new(MempoolConfig {
        relative_locks: false,
        ..MempoolConfig::default()
    });
    enter(
        &mut pool,
        &chain,
        &with_sequences(&coins, &[BY_TIME | 0xffff, 0xffff]),
    );
}

#[test]
fn a_reorg_closes_relative_locks_by_time_and_keeps_those_that_are_open_in_the_new_branch() {
    let (mut pool, mut chain, coins) = setup(3);
    let bases: Vec<Transaction> = coins
        .iter()
        .map(|coin| spend(&[*coin], &[95_000]))
        .collect();
    chain.connect_both(&mut pool, vec![coinbase(201)]);
    chain.connect_both(&mut pool, vec![coinbase(202), bases[0].clone()]);
    chain.connect_both(&mut pool, vec![coinbase(203), bases[1].clone()]);
    chain.connect_both(&mut pool, vec![coinbase(204)]);
    // From 201 and from 202 on, until 204: 1,800 and 1,200 seconds.
    let stays = with_sequences(&[pay(&bases[0])], &[BY_TIME | 2]);
    let shut = with_sequences(&[pay(&bases[1])], &[BY_TIME | 2]);
    // By height, one block: open from 204 on, and in the new branch from 203 on.
    let earlier = with_sequences(&[coins[2]], &[1]);
    for tx in [&stays, &shut, &earlier] {
        enter(&mut pool, &chain, tx);
    }
    pool.drain_changes();
    for _ in 0..3 {
        chain.disconnect_both(&mut pool);
    }
    // The new branch is a block shorter (with more work) and has the parents, the second one a block later.
    chain.connect_both(&mut pool, vec![coinbase(202), bases[0].clone()]);
    chain.connect_both(&mut pool, vec![coinbase(203), bases[1].clone()]);
    pool.settle(NOW, &chain, chain.tip()).unwrap();
    pool.verify();
    // From 201 to 203: 1,200 seconds; from 202: 600.
    assert_eq!(
        pool.drain_changes().removed,
        [(shut.compute_txid(), RemoveReason::Reorg)]
    );
    assert!(pool.contains(&stays.compute_txid()) && pool.contains(&earlier.compute_txid()));
}

#[test]
fn a_relative_lock_follows_its_coin_to_a_lower_block_of_the_new_branch() {
    let (mut pool, mut chain, coins) = setup(1);
    let base = spend(&coins, &[95_000]);
    chain.connect_both(&mut pool, vec![coinbase(201)]);
    chain.connect_both(&mut pool, vec![coinbase(202), base.clone()]);
    chain.connect_both(&mut pool, vec![coinbase(203)]);
    // Two blocks after 202 is 204; two blocks after 201 is 203.
    let tx = with_sequences(&[pay(&base)], &[2]);
    enter(&mut pool, &chain, &tx);
    for _ in 0..3 {
        chain.disconnect_both(&mut pool);
    }
    chain.connect_both(&mut pool, vec![coinbase(201), base]);
    chain.connect_both(&mut pool, vec![coinbase(202)]);
    pool.settle(NOW, &chain, chain.tip()).unwrap();
    pool.verify();
    assert!(pool.contains(&tx.compute_txid()));
}

#[test]
fn a_time_that_cannot_be_looked_up_says_nothing_about_the_transaction() {
    let (mut pool, mut chain, coins) = setup(1);
    let tx = with_sequences(&coins, &[BY_TIME | 1]);
    chain.timeless = true;
    let outcome = offer(&mut pool, &chain, &tx);
    assert!(matches!(outcome, Err(Refused::Coins(_))));
    chain.timeless = false;
    enter(&mut pool, &chain, &tx);
}
