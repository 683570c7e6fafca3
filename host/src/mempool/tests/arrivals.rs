//! One test for each way in, and for each way in which a transaction is kept out.

use bitcoin::absolute::LockTime;
use bitcoin::{Amount, ScriptBuf, Sequence, Transaction, Witness};

use super::chain::{coinbase, made_up_txid};
use super::*;

#[test]
fn an_entry_says_what_it_is() {
    let (mut pool, chain, coins) = setup(2);
    let parent = spend(&coins[..1], &[60_000, 39_000]);
    let mut child = spend(&[pay(&parent), coins[1]], &[150_000]);
    child.input[0].witness = Witness::from_slice(&[vec![7; 71], vec![2; 33]]);
    enter(&mut pool, &chain, &parent);
    enter(&mut pool, &chain, &child);
    let entry = pool.get(&child.compute_txid()).unwrap();
    assert_eq!(entry.wtxid, child.compute_wtxid());
    assert_ne!(entry.wtxid.to_string(), entry.txid.to_string());
    assert_eq!(entry.raw, raw(&child));
    assert_eq!(entry.fee, 10_000);
    assert_eq!(entry.weight, child.weight().to_wu());
    assert_eq!(entry.vsize, child.vsize() as u64);
    assert_eq!(entry.size, child.total_size() as u64);
    assert_eq!(entry.first_seen, NOW);
    assert_eq!(entry.depends, txids(&[&parent]));
    assert_eq!(entry.spends, [pay(&parent), coins[1]]);
    assert_eq!(entry.output_values, [150_000]);
    let both = Figures {
        count: 2,
        vsize: (parent.vsize() + child.vsize()) as u64,
        fees: 11_000,
    };
    assert_eq!(entry.ancestors, both);
    assert_eq!(pool.get(&parent.compute_txid()).unwrap().descendants, both);
    assert!(pool.contains(&entry.txid) && pool.contains_wtxid(&entry.wtxid));
    assert_eq!(pool.spender(&coins[1]), Some(entry.txid));
    let info = pool.info(NOW);
    assert_eq!(
        (info.txs, info.vbytes, info.fees_sats, info.orphans),
        (2, both.vsize, 11_000, 0)
    );
    assert!(info.bytes > 2_000 && info.bytes < 3_500, "{}", info.bytes);
    assert_eq!(info.min_fee_rate, 100.0);
    assert!(matches!(
        offer(&mut pool, &chain, &child),
        Err(Refused::Known)
    ));
}

#[test]
fn what_no_chain_can_hold_is_malformed() {
    let (mut pool, chain, coins) = setup(2);
    let good = spend(&coins[..1], &[90_000]);
    let change = |change: &dyn Fn(&mut Transaction)| {
        let mut tx = good.clone();
        change(&mut tx);
        raw(&tx)
    };
    let twice = spend(&[coins[0], coins[0]], &[90_000]);
    let null = spend(&[coins[0], OutPoint::null()], &[90_000]);
    let mut long = raw(&good).to_vec();
    long.push(0);
    let short = raw(&good).slice(..60);
    let max = Amount::MAX_MONEY;
    type Case = (Bytes, fn(&Malformed) -> bool);
    let cases: Vec<Case> = vec![
        (Bytes::from(long), |error| {
            matches!(error, Malformed::Encoding(_))
        }),
        (short, |error| matches!(error, Malformed::Encoding(_))),
        (Bytes::new(), |error| {
            matches!(error, Malformed::Encoding(_))
        }),
        (change(&|tx| tx.output.clear()), |error| {
            *error == Malformed::Empty
        }),
        (
            change(&|tx| tx.output[0].value = max + Amount::ONE_SAT),
            |error| *error == Malformed::OutputRange,
        ),
        (change(&|tx| tx.output[0].value = Amount::MAX), |error| {
            *error == Malformed::OutputRange
        }),
        (
            change(&|tx| {
                tx.output[0].value = max;
                tx.output.push(tx.output[0].clone());
            }),
            |error| *error == Malformed::OutputRange,
        ),
        (raw(&twice), |error| *error == Malformed::DuplicateInput),
        (raw(&null), |error| *error == Malformed::Coinbase),
        (raw(&coinbase(5)), |error| *error == Malformed::Coinbase),
    ];
    for (at, (bytes, expected)) in cases.into_iter().enumerate() {
        match pool.accept(bytes, NOW, &chain, chain.tip()) {
            Err(Refused::Malformed(error)) => assert!(expected(&error), "case {at}: {error}"),
            other => panic!("case {at}: {other:?}"),
        }
    }
    assert_eq!(pool.info(NOW).txs, 0);
    assert!(pool.drain_changes().is_empty());
}

#[test]
fn sizes_that_are_not_standard_are_refused() {
    let (mut pool, chain, coins) = setup(1);
    let mut tx = spend(&coins, &[50_000]);
    tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 99_000]);
    enter(&mut pool, &chain, &tx);
    let (mut pool, chain, coins) = setup(1);
    let mut tx = spend(&coins, &[50_000]);
    tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 100_000]);
    assert!(
        matches!(offer(&mut pool, &chain, &tx), Err(Refused::NotStandard { weight }) if weight > 400_000)
    );
    tx.input[0].script_sig = ScriptBuf::new();
    tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 4]);
    assert!(
        matches!(
            offer(&mut pool, &chain, &tx),
            Err(Refused::NotStandard { .. })
        ),
        "64 bytes"
    );
    tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 5]);
    enter(&mut pool, &chain, &tx);
}

#[test]
fn more_out_than_in_and_too_small_fees_are_refused() {
    let (mut pool, chain, coins) = setup(3);
    let more = spend(&coins[..1], &[COIN + 1]);
    assert!(matches!(
        offer(&mut pool, &chain, &more),
        Err(Refused::Overspends { spent, available }) if (spent, available) == (COIN + 1, COIN)
    ));
    // 92 vB at 100 sat/kvB: 9.2 sat.
    assert_eq!(spend(&coins[..1], &[COIN]).vsize(), 92);
    assert!(matches!(
        offer(&mut pool, &chain, &spend(&coins[..1], &[COIN - 9])),
        Err(Refused::LowFee {
            fee: 9,
            vsize: 92,
            ..
        })
    ));
    enter(&mut pool, &chain, &spend(&coins[..1], &[COIN - 10]));
}

#[test]
fn a_coinbase_is_spent_after_100_blocks_and_not_before() {
    let (mut pool, mut chain, _) = setup(1);
    let reward = coinbase(201);
    chain.connect_both(&mut pool, vec![reward.clone()]);
    for height in 202..300 {
        chain.connect_both(&mut pool, vec![coinbase(height)]);
    }
    let tx = spend(&[pay(&reward)], &[1_000_000]);
    assert_eq!(chain.tip().height, 299);
    assert!(matches!(
        offer(&mut pool, &chain, &tx),
        Err(Refused::Immature { height: 201 })
    ));
    chain.connect_both(&mut pool, vec![coinbase(300)]);
    enter(&mut pool, &chain, &tx);
    let child = spend(&[pay(&tx)], &[900_000]);
    enter(&mut pool, &chain, &child);
    pool.drain_changes();

    // One block less, and it is too early again.
    chain.disconnect_both(&mut pool);
    pool.settle(NOW, &chain, chain.tip()).unwrap();
    pool.verify();
    let changes = pool.drain_changes();
    assert_eq!(
        changes.removed,
        [
            (child.compute_txid(), RemoveReason::Reorg),
            (tx.compute_txid(), RemoveReason::Reorg)
        ]
    );
}

#[test]
fn what_spends_a_disconnected_coinbase_leaves() {
    let (mut pool, mut chain, _) = setup(1);
    let reward = coinbase(201);
    chain.connect_both(&mut pool, vec![reward.clone()]);
    for height in 202..301 {
        chain.connect_both(&mut pool, vec![coinbase(height)]);
    }
    let tx = spend(&[pay(&reward)], &[1_000_000]);
    enter(&mut pool, &chain, &tx);
    pool.drain_changes();
    while chain.tip().height > 200 {
        chain.disconnect_both(&mut pool);
    }
    for height in 201..302 {
        chain.connect_both(&mut pool, vec![coinbase(height + 1_000)]);
    }
    pool.settle(NOW, &chain, chain.tip()).unwrap();
    assert_eq!(
        pool.drain_changes().removed,
        [(tx.compute_txid(), RemoveReason::Reorg)]
    );
}

#[test]
fn locks_are_kept() {
    let (mut pool, chain, coins) = setup(5);
    let tip = chain.tip();
    let locked = |coin: OutPoint, lock: u32, sequence: u32| {
        let mut tx = spend(&[coin], &[90_000]);
        tx.lock_time = LockTime::from_consensus(lock);
        tx.input[0].sequence = Sequence(sequence);
        tx
    };
    let refuse = |pool: &mut Mempool, tx: &Transaction| {
        assert!(matches!(offer(pool, &chain, tx), Err(Refused::Locked)));
    };
    // The next block is 201: a lock of 200 is open in it.
    refuse(&mut pool, &locked(coins[0], tip.height + 1, 0xffff_fffe));
    enter(
        &mut pool,
        &chain,
        &locked(coins[0], tip.height, 0xffff_fffe),
    );
    refuse(&mut pool, &locked(coins[1], tip.median_time, 0xffff_fffe));
    enter(
        &mut pool,
        &chain,
        &locked(coins[1], tip.median_time - 1, 0xffff_fffe),
    );
    // All inputs final: no lock.
    enter(
        &mut pool,
        &chain,
        &locked(coins[2], tip.height + 1, 0xffff_ffff),
    );
    // BIP68 by height: the coin is of block 1.
    refuse(&mut pool, &locked(coins[3], 0, 201));
    let open = locked(coins[3], 0, 200);
    enter(&mut pool, &chain, &open);
    let mut child = spend(&[pay(&open)], &[80_000]);
    child.input[0].sequence = Sequence(1);
    refuse(&mut pool, &child);
    child.version = bitcoin::transaction::Version::ONE;
    enter(&mut pool, &chain, &child);
}

#[test]
fn a_lower_tip_closes_locks_again() {
    let (mut pool, mut chain, coins) = setup(4);
    let bases: Vec<Transaction> = coins[..2]
        .iter()
        .map(|coin| spend(&[*coin], &[95_000]))
        .collect();
    chain.connect_both(&mut pool, vec![coinbase(201), bases[0].clone()]);
    chain.connect_both(&mut pool, vec![coinbase(202), bases[1].clone()]);
    let tip = chain.tip();
    let locked = |coin: OutPoint, lock: u32, sequence: u32| {
        let mut tx = spend(&[coin], &[90_000]);
        tx.lock_time = LockTime::from_consensus(lock);
        tx.input[0].sequence = Sequence(sequence);
        tx
    };
    let by_height = locked(coins[2], tip.height, 0xffff_fffe);
    let by_time = locked(coins[3], tip.median_time - 1, 0xffff_fffe);
    // One block after its coin's, of which the coin is in 201, and in 202.
    let relative = locked(pay(&bases[0]), 0, 1);
    let unconfirmed = locked(pay(&bases[1]), 0, 1);
    for tx in [&by_height, &by_time, &relative, &unconfirmed] {
        enter(&mut pool, &chain, tx);
    }
    pool.drain_changes();
    chain.disconnect_both(&mut pool);
    pool.settle(NOW, &chain, chain.tip()).unwrap();
    pool.verify();
    let mut removed: Vec<Txid> = pool
        .drain_changes()
        .removed
        .into_iter()
        .map(|(txid, _)| txid)
        .collect();
    removed.sort();
    let mut expected = txids(&[&by_height, &by_time, &unconfirmed]);
    expected.sort();
    assert_eq!(removed, expected);
    assert!(pool.contains(&relative.compute_txid()) && pool.contains(&bases[1].compute_txid()));
}

#[test]
fn orphans_wait_for_their_parents_in_any_order() {
    let (mut pool, chain, coins) = setup(1);
    let mut family = vec![spend(&coins, &[99_000])];
    for at in 1..20u64 {
        let parent = &family[family.len() - 1];
        family.push(spend(&[pay(parent)], &[99_000 - at * 1_000]));
    }
    for tx in family[1..].iter().rev() {
        match offer(&mut pool, &chain, tx).unwrap() {
            Accepted::Orphan { txid, missing } => {
                assert_eq!(txid, tx.compute_txid());
                assert_eq!(missing, [tx.input[0].previous_output.txid]);
            }
            Accepted::Entered { .. } => panic!("its parent is missing"),
        }
        assert!(pool.knows(&tx.compute_txid()) && !pool.contains(&tx.compute_txid()));
    }
    assert_eq!(pool.info(NOW).orphans, 19);
    assert!(pool.drain_changes().is_empty());
    let (_, adopted) = enter(&mut pool, &chain, &family[0]);
    assert_eq!(
        adopted,
        family[1..]
            .iter()
            .map(Transaction::compute_txid)
            .collect::<Vec<_>>()
    );
    assert_eq!((pool.info(NOW).txs, pool.info(NOW).orphans), (20, 0));
    assert_eq!(
        pool.get(&family[19].compute_txid())
            .unwrap()
            .ancestors
            .count,
        20
    );
    let added: Vec<Txid> = pool
        .drain_changes()
        .added
        .iter()
        .map(|(entry, _)| entry.txid)
        .collect();
    assert_eq!(
        added,
        family
            .iter()
            .map(Transaction::compute_txid)
            .collect::<Vec<_>>()
    );
}

#[test]
fn an_orphan_of_two_parents_waits_for_both_and_its_own_block_takes_it() {
    let (mut pool, mut chain, coins) = setup(3);
    let (a, b) = (
        spend(&coins[..1], &[90_000]),
        spend(&coins[1..2], &[90_000]),
    );
    let child = spend(&[pay(&a), pay(&b)], &[170_000]);
    assert!(
        matches!(offer(&mut pool, &chain, &child).unwrap(), Accepted::Orphan { missing, .. } if missing.len() == 2)
    );
    assert_eq!(enter(&mut pool, &chain, &a).1, []);
    // The other parent comes in a block.
    chain.connect_both(&mut pool, vec![b.clone()]);
    assert_eq!(pool.info(NOW).orphans, 1);
    pool.settle(NOW, &chain, chain.tip()).unwrap();
    assert!(pool.contains(&child.compute_txid()));
    assert_eq!(pool.info(NOW).orphans, 0);

    let late = spend(&[OutPoint::new(made_up_txid(), 77)], &[1_000]);
    offer(&mut pool, &chain, &late).unwrap();
    assert_eq!(pool.info(NOW).orphans, 1);
    pool.connect_block(999, [(late.compute_txid(), vec![])]);
    assert_eq!(pool.info(NOW).orphans, 0);
}

#[test]
fn orphans_are_few_and_do_not_wait_for_ever() {
    let (mut pool, chain, _) = setup(1);
    let orphan = |at: u32| spend(&[OutPoint::new(made_up_txid(), 1_000 + at)], &[1_000]);
    for at in 0..150 {
        pool.accept(raw(&orphan(at)), NOW + u64::from(at), &chain, chain.tip())
            .unwrap();
    }
    assert_eq!(pool.info(NOW).orphans, 100);
    assert!(!pool.knows(&orphan(49).compute_txid()) && pool.knows(&orphan(50).compute_txid()));
    // Whoever announces these again is asked for them.
    let let_go = |at: std::ops::Range<u32>| -> Vec<LetGo> {
        at.map(|at| LetGo {
            txid: orphan(at).compute_txid(),
            wtxid: orphan(at).compute_wtxid(),
            refused: false,
        })
        .collect()
    };
    assert_eq!(pool.drain_let_go(), let_go(0..50));
    pool.expire(NOW + 1_200 + 99);
    assert_eq!(pool.info(NOW).orphans, 50);
    assert_eq!(pool.drain_let_go(), let_go(50..100));
    assert!(pool.drain_let_go().is_empty());
    assert!(!pool.knows(&orphan(99).compute_txid()) && pool.knows(&orphan(100).compute_txid()));

    let config = MempoolConfig {
        max_orphan_bytes: 1_000,
        ..Default::default()
    };
    let mut pool = Mempool::new(config);
    for at in 0..50 {
        pool.accept(raw(&orphan(at)), NOW, &chain, chain.tip())
            .unwrap();
    }
    assert_eq!(pool.info(NOW).orphans, 10, "of 92 bytes each");
    // A block spends what one of them spends.
    let winner = spend(&[OutPoint::new(made_up_txid(), 1_049)], &[999]);
    pool.connect_block(
        201,
        [(
            winner.compute_txid(),
            vec![OutPoint::new(made_up_txid(), 1_049)],
        )],
    );
    assert!(!pool.knows(&orphan(49).compute_txid()));
    assert_eq!(pool.info(NOW).orphans, 9);
}

/// Nobody waits for the answer to a transaction that waited for its parent.
#[test]
fn an_orphan_that_is_refused_when_its_parent_comes_is_let_go() {
    let (mut pool, chain, coins) = setup(1);
    let parent = spend(&coins, &[COIN - 1_000]);
    let child = spend(&[pay(&parent)], &[COIN]);
    pool.accept(raw(&child), NOW, &chain, chain.tip()).unwrap();
    assert_eq!(pool.info(NOW).orphans, 1);
    enter(&mut pool, &chain, &parent);
    assert_eq!(pool.info(NOW).orphans, 0);
    let gone = LetGo {
        txid: child.compute_txid(),
        wtxid: child.compute_wtxid(),
        refused: true,
    };
    assert_eq!(pool.drain_let_go(), [gone]);
}

#[test]
fn a_confirmed_transaction_is_no_orphan() {
    let (mut pool, mut chain, coins) = setup(1);
    let tx = spend(&coins, &[90_000]);
    chain.connect_both(&mut pool, vec![tx.clone()]);
    assert!(matches!(
        offer(&mut pool, &chain, &tx),
        Err(Refused::Confirmed)
    ));
}

#[test]
fn a_failed_lookup_says_nothing_about_the_transaction() {
    let (mut pool, mut chain, coins) = setup(1);
    let tx = spend(&coins, &[90_000]);
    chain.broken = true;
    assert!(matches!(
        offer(&mut pool, &chain, &tx),
        Err(Refused::Coins(_))
    ));
    assert!(!pool.knows(&tx.compute_txid()));
    chain.broken = false;
    // An orphan whose parent is confirmed while the coins are away.
    let child = spend(&[pay(&tx)], &[80_000]);
    offer(&mut pool, &chain, &child).unwrap();
    chain.connect_both(&mut pool, vec![tx.clone()]);
    chain.broken = true;
    pool.settle(NOW, &chain, chain.tip()).unwrap();
    assert_eq!(pool.info(NOW).orphans, 1);
    chain.broken = false;
    pool.settle(NOW, &chain, chain.tip()).unwrap();
    assert!(pool.contains(&child.compute_txid()));

    chain.disconnect_both(&mut pool);
    chain.broken = true;
    assert!(pool.settle(NOW, &chain, chain.tip()).is_err());
    assert!(!pool.contains(&tx.compute_txid()));
    chain.broken = false;
    pool.settle(NOW, &chain, chain.tip()).unwrap();
    assert!(pool.contains(&tx.compute_txid()), "nothing was lost");
}

#[test]
fn transactions_are_found_by_their_short_ids_and_not_where_two_share_one() {
    use bitcoin::bip152::ShortId;
    let (mut pool, chain, coins) = setup(3);
    let entered = spend(&[coins[0]], &[90_000]);
    enter(&mut pool, &chain, &entered);
    // Its parent is unknown: it waits, and is found all the same.
    let parent = spend(&[coins[1]], &[80_000]);
    let orphan = spend(&[OutPoint::new(parent.compute_txid(), 0)], &[70_000]);
    assert!(matches!(
        offer(&mut pool, &chain, &orphan),
        Ok(Accepted::Orphan { .. })
    ));
    let keys = (3, 4);
    let id = |tx: &Transaction| ShortId::with_siphash_keys(&tx.compute_wtxid(), keys);
    let wanted = [id(&orphan), id(&parent), id(&entered)];
    let found = pool.by_short_ids(keys, &wanted);
    assert_eq!(found, [Some(raw(&orphan)), None, Some(raw(&entered))]);
    // Wanted twice: nobody knows where it belongs.
    let twice = pool.by_short_ids(keys, &[id(&entered), id(&entered)]);
    assert_eq!(twice, [None, None]);
    let other_keys = pool.by_short_ids((5, 6), &wanted);
    assert_eq!(other_keys, [None, None, None]);
}
