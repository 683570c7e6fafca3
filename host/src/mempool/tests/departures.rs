//! One test for each way out, for what is told of it, and for the saved pool.

use bitcoin::{ScriptBuf, Transaction};

use super::chain::coinbase;
use super::*;

#[test]
fn a_replacement_pays_for_what_it_pushes_out_and_for_itself() {
    let (mut pool, chain, coins) = setup(2);
    let first = spend(&coins[..1], &[COIN - 1_000]);
    let child = spend(&[pay(&first)], &[COIN - 3_000]);
    enter(&mut pool, &chain, &first);
    enter(&mut pool, &chain, &child);
    pool.drain_changes();
    // 3,000 sat leave; 92 vB of relay cost 10 sat.
    let refuse = |pool: &mut Mempool, tx: &Transaction, words: &str| match offer(pool, &chain, tx) {
        Err(Refused::Conflict { with, why }) => {
            assert_eq!(with, first.compute_txid());
            assert!(why.contains(words), "{why}");
        }
        other => panic!("{other:?}"),
    };
    refuse(
        &mut pool,
        &spend(&coins[..1], &[COIN - 1_000, 0]),
        "does not pay",
    );
    refuse(
        &mut pool,
        &spend(&coins[..1], &[COIN - 3_009]),
        "does not pay",
    );
    // Twice the size for the double fee and one: more in all, but for each byte less than the
    // first.
    let mut large = spend(&coins[..1], &[COIN - 4_000]);
    large.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 500]);
    refuse(&mut pool, &large, "rate is not higher");
    // What spends the output of its own victim.
    refuse(
        &mut pool,
        &spend(&[coins[0], pay(&child)], &[1_000]),
        "spends what it would push out",
    );
    assert_eq!(pool.info(NOW).txs, 2);

    let better = spend(&coins[..1], &[COIN - 3_010]);
    let (replaced, _) = enter(&mut pool, &chain, &better);
    assert_eq!(replaced, txids(&[&child, &first]));
    let by = better.compute_txid();
    let changes = pool.drain_changes();
    assert_eq!(
        changes.removed,
        [
            (child.compute_txid(), RemoveReason::Replaced { by }),
            (first.compute_txid(), RemoveReason::Replaced { by })
        ]
    );
    assert_eq!(changes.added.len(), 1);
    assert_eq!(pool.info(NOW).fees_sats, 3_010);
}

#[test]
fn a_replacement_pushes_out_at_most_100() {
    let (mut pool, chain, coins) = setup(102);
    for coin in &coins[..101] {
        enter(&mut pool, &chain, &spend(&[*coin], &[COIN - 100]));
    }
    let all = spend(&coins[..101], &[1_000]);
    assert!(
        matches!(offer(&mut pool, &chain, &all), Err(Refused::Conflict { why, .. }) if why.contains("too many"))
    );
    let some = spend(&coins[..100], &[1_000]);
    assert_eq!(enter(&mut pool, &chain, &some).0.len(), 100);
    assert_eq!(pool.info(NOW).txs, 2);
}

#[test]
fn a_block_takes_what_it_confirms_and_what_it_makes_impossible() {
    let (mut pool, mut chain, coins) = setup(3);
    let confirmed = spend(&coins[..1], &[99_000]);
    let child = spend(&[pay(&confirmed)], &[98_000]);
    let loser = spend(&coins[1..2], &[99_000]);
    let losers_child = spend(&[pay(&loser), coins[2]], &[150_000]);
    for tx in [&confirmed, &child, &loser, &losers_child] {
        enter(&mut pool, &chain, tx);
    }
    pool.drain_changes();
    let winner = spend(&coins[1..2], &[98_999]);
    chain.connect_both(&mut pool, vec![confirmed.clone(), winner.clone()]);
    pool.settle(NOW, &chain, chain.tip()).unwrap();
    pool.verify();
    let by = winner.compute_txid();
    let changes = pool.drain_changes();
    assert_eq!(
        changes.removed,
        [
            (
                confirmed.compute_txid(),
                RemoveReason::Confirmed { height: 201 }
            ),
            (losers_child.compute_txid(), RemoveReason::Conflicted { by }),
            (loser.compute_txid(), RemoveReason::Conflicted { by }),
        ]
    );
    assert!(changes.added.is_empty());
    let left = pool.get(&child.compute_txid()).unwrap();
    assert!(left.depends.is_empty());
    assert_eq!(left.ancestors.count, 1);
    assert!(
        pool.knows(&confirmed.compute_txid()) && pool.knows(&by),
        "no need to fetch them"
    );
}

#[test]
fn disconnected_transactions_come_back_under_their_children() {
    let (mut pool, mut chain, coins) = setup(2);
    let first = spend(&coins[..1], &[99_000, 500]);
    let second = spend(&[pay(&first)], &[98_000]);
    chain.connect_both(&mut pool, vec![coinbase(201), first.clone()]);
    chain.connect_both(&mut pool, vec![coinbase(202), second.clone()]);
    let child = spend(
        &[pay(&second), OutPoint::new(first.compute_txid(), 1)],
        &[97_000],
    );
    enter(&mut pool, &chain, &child);
    pool.drain_changes();
    assert_eq!(pool.get(&child.compute_txid()).unwrap().ancestors.count, 1);

    chain.disconnect_both(&mut pool);
    chain.disconnect_both(&mut pool);
    pool.settle(NOW + 5, &chain, chain.tip()).unwrap();
    pool.verify();
    let changes = pool.drain_changes();
    assert!(changes.removed.is_empty());
    let added: Vec<(Txid, Origin)> = changes
        .added
        .iter()
        .map(|(entry, origin)| (entry.txid, *origin))
        .collect();
    assert_eq!(
        added,
        [
            (first.compute_txid(), Origin::Returned),
            (second.compute_txid(), Origin::Returned)
        ]
    );
    let entry = pool.get(&child.compute_txid()).unwrap();
    assert_eq!((entry.ancestors.count, entry.depends.len()), (3, 2));
    assert_eq!(
        pool.get(&first.compute_txid()).unwrap().descendants.count,
        3
    );
}

#[test]
fn what_the_new_branch_made_impossible_leaves_with_its_children() {
    let (mut pool, mut chain, coins) = setup(2);
    let old = spend(&coins[..1], &[99_000]);
    chain.connect_both(&mut pool, vec![coinbase(201), old.clone()]);
    let child = spend(&[pay(&old)], &[98_000]);
    enter(&mut pool, &chain, &child);
    pool.drain_changes();
    chain.disconnect_both(&mut pool);
    chain.connect_both(
        &mut pool,
        vec![coinbase(1_201), spend(&coins[..1], &[97_000])],
    );
    chain.connect_both(&mut pool, vec![coinbase(1_202)]);
    pool.settle(NOW, &chain, chain.tip()).unwrap();
    pool.verify();
    let changes = pool.drain_changes();
    assert!(changes.added.is_empty());
    assert_eq!(
        changes.removed,
        [(child.compute_txid(), RemoveReason::Reorg)]
    );
    assert_eq!(pool.info(NOW).txs, 0);
}

#[test]
fn old_entries_expire_with_their_descendants() {
    let (mut pool, chain, coins) = setup(2);
    let old = spend(&coins[..1], &[99_000]);
    let other = spend(&coins[1..], &[99_000]);
    let child = spend(&[pay(&old)], &[98_000]);
    enter(&mut pool, &chain, &old);
    let later = NOW + 3_600;
    pool.accept(raw(&child), later, &chain, chain.tip())
        .unwrap();
    pool.accept(raw(&other), later, &chain, chain.tip())
        .unwrap();
    pool.drain_changes();
    pool.expire(NOW + 336 * 3600 - 1);
    assert!(pool.drain_changes().is_empty());
    pool.expire(NOW + 336 * 3600);
    pool.verify();
    let changes = pool.drain_changes();
    assert_eq!(
        changes.removed,
        [
            (child.compute_txid(), RemoveReason::Expired),
            (old.compute_txid(), RemoveReason::Expired)
        ]
    );
    assert_eq!(pool.info(later).txs, 1);
}

#[test]
fn a_full_pool_evicts_the_cheapest_and_asks_for_more() {
    let (chain, coins) = Chain::with_coins(200, 40, COIN);
    let mut chain = chain;
    let config = MempoolConfig {
        max_bytes: 20_000,
        ..Default::default()
    };
    let mut pool = Mempool::new(config);
    // A cheap parent that an expensive child keeps.
    let parent = spend(&coins[..1], &[COIN - 20]);
    let child = spend(&[pay(&parent)], &[COIN - 9_000]);
    enter(&mut pool, &chain, &parent);
    enter(&mut pool, &chain, &child);
    let mut rates = Vec::new();
    for (at, coin) in coins[1..].iter().enumerate() {
        let fee = 1_000 + at as u64 * 50;
        enter(&mut pool, &chain, &spend(&[*coin], &[COIN - fee]));
        assert!(pool.info(NOW).bytes <= 20_000);
        rates.push(pool.min_fee_rate(NOW));
    }
    let held = pool.info(NOW).txs;
    assert!((15..25).contains(&held), "{held}");
    assert!(pool.contains(&parent.compute_txid()));
    // The cheapest that stayed pays 50 sat more than the dearest that went, and the minimum is what
    // that one paid and one step.
    let evicted = 39 - (held as u64 - 2);
    let expected = (1_000 + (evicted - 1) * 50) as f64 * 1_000.0 / 92.0 + 100.0;
    let minimum = pool.min_fee_rate(NOW);
    assert!((minimum - expected).abs() < 0.01, "{minimum} {expected}");
    assert!(rates.is_sorted());

    let cheap = spend(&[coins[1]], &[COIN - 1_000]);
    assert!(matches!(
        offer(&mut pool, &chain, &cheap),
        Err(Refused::LowFee { .. })
    ));
    // A newcomer that pays the minimum, and would be evicted at once, is refused and leaves no
    // trace.
    pool.drain_changes();
    let fee = (minimum * 92.0 / 1_000.0).ceil() as u64 + 1;
    let mut large = spend(&[coins[1]], &[COIN - fee * 20]);
    large.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 92 * 19]);
    match offer(&mut pool, &chain, &large) {
        Err(Refused::PoolFull { .. }) => {
            let changes = pool.drain_changes();
            assert!(changes.added.is_empty());
            assert!(
                changes
                    .removed
                    .iter()
                    .all(|(_, reason)| *reason == RemoveReason::Evicted)
            );
        }
        Ok(_) | Err(Refused::LowFee { .. }) => {}
        Err(other) => panic!("{other}"),
    }

    // It does not fall before a block, and then by half in 12 hours while the pool is full.
    let minimum = pool.min_fee_rate(NOW);
    assert_eq!(pool.min_fee_rate(NOW + 100_000), minimum);
    chain.connect_both(&mut pool, Vec::new());
    let half = pool.min_fee_rate(NOW + 12 * 3600);
    assert!((half - minimum / 2.0).abs() < 0.01, "{half} {minimum}");
    assert_eq!(pool.min_fee_rate(NOW + 100 * 12 * 3600), 100.0);
}

#[test]
fn chains_of_unconfirmed_transactions_are_short() {
    let (mut pool, chain, coins) = setup(2);
    let mut last = spend(&coins[..1], &[COIN - 100]);
    enter(&mut pool, &chain, &last);
    for at in 2..=64u64 {
        last = spend(&[pay(&last)], &[COIN - at * 100]);
        enter(&mut pool, &chain, &last);
    }
    let longer = spend(&[pay(&last)], &[COIN - 65 * 100]);
    assert!(matches!(
        offer(&mut pool, &chain, &longer),
        Err(Refused::LongChain)
    ));
    // Wide instead of long, from the chain's first.
    assert_eq!(pool.info(NOW).txs, 64);

    let mut parent = spend(&coins[1..], &[COIN - 20_000]);
    parent.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 60_000]);
    enter(&mut pool, &chain, &parent);
    let mut child = spend(&[pay(&parent)], &[COIN - 50_000]);
    child.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 41_000]);
    assert!(
        matches!(offer(&mut pool, &chain, &child), Err(Refused::LongChain)),
        "101,000 vB"
    );
}

#[test]
fn changes_are_the_difference_between_two_states() {
    let (mut pool, mut chain, coins) = setup(3);
    let tx = spend(&coins[..1], &[99_000]);
    let cheap = spend(&coins[1..2], &[99_000]);
    let dear = spend(&coins[1..2], &[90_000]);
    enter(&mut pool, &chain, &tx);
    pool.drain_changes();
    enter(&mut pool, &chain, &cheap);
    enter(&mut pool, &chain, &dear);
    let child = spend(&[pay(&tx)], &[98_000]);
    enter(&mut pool, &chain, &child);
    // Went and came back.
    chain.connect_both(&mut pool, vec![coinbase(201), tx.clone()]);
    chain.disconnect_both(&mut pool);
    pool.settle(NOW, &chain, chain.tip()).unwrap();
    pool.verify();
    let changes = pool.drain_changes();
    assert_eq!(
        changes.removed,
        [(tx.compute_txid(), RemoveReason::Confirmed { height: 201 })]
    );
    let mut added: Vec<(Txid, Origin)> = changes
        .added
        .iter()
        .map(|(entry, origin)| (entry.txid, *origin))
        .collect();
    assert_eq!(
        added.pop(),
        Some((child.compute_txid(), Origin::New)),
        "after its parent"
    );
    added.sort_by_key(|(txid, _)| *txid);
    let mut expected = vec![
        (tx.compute_txid(), Origin::Returned),
        (dear.compute_txid(), Origin::New),
    ];
    expected.sort_by_key(|(txid, _)| *txid);
    assert_eq!(added, expected);
    assert!(pool.drain_changes().is_empty());
}

#[test]
fn a_saved_pool_is_offered_again() {
    let (mut pool, chain, coins) = setup(3);
    let parent = spend(&coins[..1], &[99_000]);
    let child = spend(&[pay(&parent)], &[98_000]);
    let old = spend(&coins[1..2], &[98_000]);
    enter(&mut pool, &chain, &parent);
    pool.accept(raw(&child), NOW + 10, &chain, chain.tip())
        .unwrap();
    pool.accept(raw(&old), NOW - 336 * 3600 + 100, &chain, chain.tip())
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mempool.dat");
    let magic = [1, 2, 3, 4];
    assert!(load(&path, magic).unwrap().is_empty(), "no file, no pool");
    save(&path, magic, &pool.snapshot()).unwrap();
    save(&path, magic, &pool.snapshot()).unwrap();
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "no temporary file stays"
    );

    let mut again = Mempool::new(MempoolConfig::default());
    let saved = load(&path, magic).unwrap();
    assert_eq!(saved.len(), 3);
    let mut expired = 0;
    for (raw, first_seen) in saved {
        match again.reload(&raw, first_seen, NOW + 200, &chain, chain.tip()) {
            Ok(Accepted::Entered { .. }) => {}
            Err(Refused::Expired) => expired += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(expired, 1);
    again.verify();
    let changes = again.drain_changes();
    assert!(
        changes
            .added
            .iter()
            .all(|(_, origin)| *origin == Origin::Reloaded)
    );
    for tx in [&parent, &child] {
        assert_eq!(
            again.get(&tx.compute_txid()).unwrap(),
            pool.get(&tx.compute_txid()).unwrap()
        );
    }
    assert!(
        matches!(load(&path, [9; 4]), Err(PoolFileError::WrongNetwork { found, .. }) if found == magic)
    );

    // Every cut and every wrong byte is noticed.
    let bytes = std::fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        std::fs::write(&path, &bytes[..at]).unwrap();
        assert!(
            matches!(load(&path, magic), Err(PoolFileError::Damaged { .. })),
            "cut at {at}"
        );
        let mut wrong = bytes.clone();
        wrong[at] ^= 1;
        std::fs::write(&path, &wrong).unwrap();
        assert!(
            matches!(load(&path, magic), Err(PoolFileError::Damaged { .. })),
            "wrong at {at}"
        );
    }
    // A right checksum over a wrong count.
    let mut wrong = bytes[..bytes.len() - 4].to_vec();
    wrong[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    wrong.extend_from_slice(&crc32fast::hash(&wrong).to_le_bytes());
    std::fs::write(&path, &wrong).unwrap();
    assert!(matches!(
        load(&path, magic),
        Err(PoolFileError::Damaged { .. })
    ));
}

#[test]
fn refused_transactions_are_not_fetched_again_before_the_next_block() {
    let (mut pool, mut chain, coins) = setup(1);
    let tx = spend(&coins, &[COIN - 1]);
    assert!(matches!(
        offer(&mut pool, &chain, &tx),
        Err(Refused::LowFee { .. })
    ));
    assert!(pool.knows_wtxid(&tx.compute_wtxid()));
    chain.connect_both(&mut pool, Vec::new());
    assert!(!pool.knows_wtxid(&tx.compute_wtxid()));
}

#[test]
fn one_of_a_full_family_can_be_replaced() {
    let (mut pool, chain, coins) = setup(1);
    let parent = spend(&coins, &[1_000; 80]);
    enter(&mut pool, &chain, &parent);
    let child = |vout: u32, fee: u64| {
        spend(
            &[OutPoint::new(parent.compute_txid(), vout)],
            &[1_000 - fee],
        )
    };
    for vout in 0..63 {
        enter(&mut pool, &chain, &child(vout, 100));
    }
    assert!(matches!(
        offer(&mut pool, &chain, &child(63, 100)),
        Err(Refused::LongChain)
    ));
    enter(&mut pool, &chain, &child(5, 200));
    assert_eq!(
        pool.get(&parent.compute_txid()).unwrap().descendants.count,
        64
    );
}

#[test]
fn a_pool_that_was_not_told_of_blocks_looks_at_everything_again() {
    let (mut pool, mut chain, coins) = setup(5);
    let confirmed = spend(&coins[..1], &[40_000, 40_000]);
    let child = spend(&[pay(&confirmed)], &[30_000]);
    let loser = spend(&coins[1..2], &[90_000]);
    let grandchild = spend(&[pay(&loser)], &[80_000]);
    let stays = spend(&coins[2..3], &[90_000]);
    for tx in [&confirmed, &child, &loser, &grandchild, &stays] {
        enter(&mut pool, &chain, tx);
    }
    pool.drain_changes();
    // Nobody tells the pool of this block.
    let other = spend(&coins[1..2], &[95_000]);
    chain.connect(vec![coinbase(201), confirmed.clone(), other]);
    pool.lost_track();
    pool.settle(NOW, &chain, chain.tip()).unwrap();
    pool.verify();
    let mut kept = txids(&[&child, &stays]);
    kept.sort();
    let mut there: Vec<Txid> = pool.snapshot().iter().map(|entry| entry.txid).collect();
    there.sort();
    assert_eq!(there, kept);
    let removed = pool.drain_changes().removed;
    let reason = |tx: &Transaction| {
        let found = removed.iter().find(|(txid, _)| *txid == tx.compute_txid());
        found.map(|(_, reason)| *reason)
    };
    assert_eq!(removed.len(), 3);
    assert_eq!(
        reason(&confirmed),
        Some(RemoveReason::Confirmed { height: 201 })
    );
    assert_eq!(reason(&loser), Some(RemoveReason::Reorg));
    assert_eq!(reason(&grandchild), Some(RemoveReason::Reorg));
}

#[test]
fn what_an_empty_pool_was_told_to_take_back_comes_into_it_when_it_settles() {
    let (_, mut chain, coins) = setup(3);
    let mut pool = Mempool::new(MempoolConfig::default());
    let parent = spend(&coins[..1], &[90_000]);
    let child = spend(&[pay(&parent)], &[80_000]);
    let lost = spend(&coins[1..2], &[90_000]);
    let again = spend(&coins[2..3], &[90_000]);
    chain.connect(vec![coinbase(201), parent.clone()]);
    chain.connect(vec![coinbase(202), child.clone(), lost, again.clone()]);
    chain.disconnect_both(&mut pool);
    chain.disconnect_both(&mut pool);
    // The pool is not told of the new branch: it has not started.
    let other = spend(&coins[1..2], &[95_000]);
    chain.connect(vec![coinbase(201), other, again]);
    chain.connect(vec![coinbase(202)]);
    let entered = pool.settle(NOW, &chain, chain.tip()).unwrap();
    pool.verify();
    let added: Vec<(Txid, Origin)> = pool
        .drain_changes()
        .added
        .iter()
        .map(|(entry, origin)| (entry.txid, *origin))
        .collect();
    let back = txids(&[&parent, &child]);
    assert_eq!(entered, back, "for the journal");
    assert_eq!(
        added,
        [(back[0], Origin::Returned), (back[1], Origin::Returned)]
    );
}

/// A floor that was high once does not keep the next one from rising when the pool fills again.
#[test]
fn the_floor_rises_again_after_it_has_fallen() {
    let (chain, coins) = Chain::with_coins(200, 80, COIN);
    let mut pool = Mempool::new(MempoolConfig {
        max_bytes: 20_000,
        ..MempoolConfig::default()
    });
    let fill = |pool: &mut Mempool, coins: &[OutPoint], fee: u64, now: u64| {
        for (at, coin) in coins.iter().enumerate() {
            let tx = spend(&[*coin], &[COIN - fee - at as u64]);
            let _ = pool.accept(raw(&tx), now, &chain, chain.tip());
        }
    };
    fill(&mut pool, &coins[..40], 50_000, NOW);
    assert!(pool.min_fee_rate(NOW) > 500_000.0);
    // A month later all of it has left, and the floor is down.
    let later = NOW + 30 * 86_400;
    pool.connect_block(201, std::iter::empty::<(Txid, Vec<OutPoint>)>());
    pool.expire(later);
    assert_eq!((pool.len(), pool.min_fee_rate(later)), (0, 100.0));
    fill(&mut pool, &coins[40..], 1_000, later);
    assert!(pool.info(later).txs < 40);
    let minimum = pool.min_fee_rate(later);
    assert!(minimum > 10_000.0, "{minimum}");
}
