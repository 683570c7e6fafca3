//! What others can do to the pool with transactions that nobody can mine, with orphans, and what the pool says of itself.

use std::net::SocketAddr;

use bitcoin::Transaction;

use super::*;

fn peer(n: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, n], 8333))
}

fn hear(pool: &mut Mempool, chain: &mut Chain, now: u64, txs: &[Transaction]) {
    let spends: Vec<_> = chain::spends(txs)
        .zip(txs)
        .map(|((txid, spends), tx)| (txid, tx.weight().to_wu(), spends))
        .collect();
    pool.hear_block(chain.tip().height + 1, now, spends);
    chain.connect(txs.to_vec());
    pool.settle(now, chain, chain.tip()).unwrap();
    pool.verify();
}

/// The signature is not looked at: anybody can name the fee of a coin that is not theirs.
#[test]
fn a_false_transaction_is_gone_when_a_block_spends_its_input() {
    let (mut pool, mut chain, coins) = setup(1);
    let honest = spend(&coins, &[COIN - 1_000]);
    let mut forged = spend(&coins, &[COIN - 50_000]);
    forged.output[0].script_pubkey = bitcoin::ScriptBuf::from_bytes(vec![0x52; 22]);
    let forged_child = spend(&[pay(&forged)], &[COIN - 60_000]);
    enter(&mut pool, &chain, &honest);
    assert_eq!(enter(&mut pool, &chain, &forged).0, txids(&[&honest]));
    enter(&mut pool, &chain, &forged_child);
    pool.drain_changes();
    hear(
        &mut pool,
        &mut chain,
        NOW + 600,
        std::slice::from_ref(&honest),
    );
    assert_eq!(pool.info(NOW).txs, 0);
    let by = honest.compute_txid();
    let removed = pool.drain_changes().removed;
    assert_eq!(
        removed,
        [
            (forged_child.compute_txid(), RemoveReason::Conflicted { by }),
            (forged.compute_txid(), RemoveReason::Conflicted { by })
        ]
    );
}

#[test]
fn a_false_transaction_is_gone_at_its_expiry_whatever_it_pays() {
    let (mut pool, chain, coins) = setup(1);
    let forged = spend(&coins, &[1]);
    enter(&mut pool, &chain, &forged);
    let expiry = MempoolConfig::default().expiry_seconds;
    pool.expire(NOW + expiry - 1);
    assert_eq!(pool.info(NOW).txs, 1);
    pool.drain_changes();
    pool.expire(NOW + expiry);
    assert_eq!(pool.info(NOW).txs, 0);
    assert_eq!(
        pool.drain_changes().removed,
        [(forged.compute_txid(), RemoveReason::Expired)]
    );
}

#[test]
fn what_blocks_pass_over_is_suspicious_and_what_is_cheap_or_young_is_not() {
    let (mut pool, mut chain, coins) = setup(60);
    let (forged, cheap, young) = (&coins[57..58], &coins[58..59], &coins[59..60]);
    let forged = spend(forged, &[COIN - 50_000]);
    let forged_child = spend(&[pay(&forged)], &[1]);
    let cheap = spend(cheap, &[COIN - 100]);
    for tx in [&forged, &forged_child, &cheap] {
        enter(&mut pool, &chain, tx);
    }
    let mut now = NOW;
    for block in 0..4 {
        let txs: Vec<Transaction> = (0..12)
            .map(|at| spend(&coins[block * 12 + at..][..1], &[COIN - 1_000]))
            .collect();
        for tx in &txs {
            enter(&mut pool, &chain, tx);
        }
        now += 600;
        if block == 3 {
            let late = spend(young, &[1_000]);
            pool.accept(raw(&late), now - 30, &chain, chain.tip())
                .unwrap();
        }
        let suspicious = pool.info(now).suspicious;
        assert_eq!(suspicious, if block == 3 { 2 } else { 0 }, "block {block}");
        // An empty block passes over everything and says nothing.
        if block == 1 {
            hear(&mut pool, &mut chain, now, &[]);
        }
        hear(&mut pool, &mut chain, now, &txs);
    }
    assert_eq!(pool.passed_over(&forged.compute_txid()), 4);
    assert_eq!(pool.passed_over(&forged_child.compute_txid()), 4);
    assert_eq!(pool.passed_over(&cheap.compute_txid()), 0);
    assert_eq!(pool.info(now).suspicious, 2);
}

#[test]
fn a_peer_that_sends_orphans_pushes_out_its_own() {
    let (mut pool, chain, _) = setup(1);
    let orphan = |at: u32| {
        spend(
            &[OutPoint::new(chain::made_up_txid(), 1_000 + at)],
            &[1_000],
        )
    };
    for at in 0..20 {
        pool.accept_from(raw(&orphan(at)), Some(peer(1)), NOW, &chain, chain.tip())
            .unwrap();
    }
    for at in 100..1_100 {
        pool.accept_from(raw(&orphan(at)), Some(peer(2)), NOW, &chain, chain.tip())
            .unwrap();
    }
    assert_eq!(pool.info(NOW).orphans, 100);
    for at in 0..20 {
        assert!(
            pool.knows(&orphan(at).compute_txid()),
            "orphan {at} of the quiet peer"
        );
    }
    assert!(pool.knows(&orphan(1_099).compute_txid()));
    assert!(!pool.knows(&orphan(1_019).compute_txid()));

    // By bytes too: a few large ones do not push out many small ones.
    let mut pool = Mempool::new(MempoolConfig {
        max_orphan_bytes: 100_000,
        ..Default::default()
    });
    for at in 0..20 {
        pool.accept_from(raw(&orphan(at)), Some(peer(1)), NOW, &chain, chain.tip())
            .unwrap();
    }
    for at in 100..110 {
        let mut large = orphan(at);
        large.output[0].script_pubkey = bitcoin::ScriptBuf::from_bytes(vec![0x51; 30_000]);
        pool.accept_from(raw(&large), Some(peer(2)), NOW, &chain, chain.tip())
            .unwrap();
    }
    assert!((0..20).all(|at| pool.knows(&orphan(at).compute_txid())));
    assert_eq!(pool.info(NOW).orphans, 23);
}

#[test]
fn a_child_pays_for_a_parent_below_the_floor_whichever_comes_first() {
    for child_first in [true, false] {
        let (mut pool, chain, coins) = setup(2);
        let parent = spend(&coins[..1], &[COIN]);
        let child = spend(&[pay(&parent), coins[1]], &[2 * COIN - 500]);
        let send = |pool: &mut Mempool, tx: &Transaction| {
            let outcome = pool.accept_from(raw(tx), Some(peer(1)), NOW, &chain, chain.tip());
            pool.verify();
            outcome
        };
        if !child_first {
            assert!(matches!(
                send(&mut pool, &parent),
                Err(Refused::LowFee { .. })
            ));
            assert!(
                pool.knows_wtxid(&parent.compute_wtxid()),
                "not fetched again for nothing"
            );
        }
        // It asks for its parent, which is tried again.
        assert!(
            matches!(send(&mut pool, &child), Ok(Accepted::Orphan { missing, .. }) if missing == txids(&[&parent]))
        );
        match send(&mut pool, &parent).unwrap() {
            Accepted::Entered { entry, adopted, .. } => {
                assert_eq!(entry.txid, parent.compute_txid());
                assert_eq!(adopted, txids(&[&child]));
            }
            Accepted::Orphan { .. } => panic!("an orphan"),
        }
        assert_eq!((pool.info(NOW).txs, pool.info(NOW).orphans), (2, 0));
        let told: Vec<Txid> = pool
            .drain_changes()
            .added
            .iter()
            .map(|(entry, _)| entry.txid)
            .collect();
        assert_eq!(told, txids(&[&parent, &child]));
    }
}

#[test]
fn a_saved_parent_that_pays_too_little_comes_back_with_the_child_that_pays_for_it() {
    let (mut pool, chain, coins) = setup(4);
    let parent = spend(&coins[..1], &[COIN]);
    let child = spend(&[pay(&parent), coins[1]], &[2 * COIN - 500]);
    let other = spend(&coins[2..3], &[COIN - 300]);
    let alone = spend(&coins[3..4], &[COIN]);
    for tx in [&child, &parent, &other] {
        let _ = pool.accept(raw(tx), NOW, &chain, chain.tip());
    }
    assert_eq!(pool.info(NOW).txs, 3);
    let mut saved: Vec<(Bytes, u64)> = pool
        .snapshot()
        .iter()
        .map(|entry| (entry.raw.clone(), NOW - 3_000))
        .collect();
    saved.push((raw(&alone), NOW - 3_000));
    let mut again = Mempool::new(MempoolConfig::default());
    assert_eq!(again.reload_all(saved, NOW, &chain, chain.tip()), 3);
    again.verify();
    assert_eq!((again.info(NOW).txs, again.info(NOW).orphans), (3, 0));
    assert!(!again.contains(&alone.compute_txid()));
    for (entry, origin) in again.drain_changes().added {
        assert_eq!((entry.first_seen, origin), (NOW - 3_000, Origin::Reloaded));
    }
}

#[test]
fn a_child_that_pays_too_little_does_not_carry_its_parent() {
    let (mut pool, chain, coins) = setup(2);
    let parent = spend(&coins[..1], &[COIN]);
    // 92 and 133 vB cost 23 sat at the floor.
    let child = spend(&[pay(&parent), coins[1]], &[2 * COIN - 15]);
    offer(&mut pool, &chain, &child).unwrap();
    assert!(matches!(
        offer(&mut pool, &chain, &parent),
        Err(Refused::LowFee { .. })
    ));
    assert_eq!((pool.info(NOW).txs, pool.info(NOW).orphans), (0, 1));
    // Nor does one whose own parent pays more than it.
    let (mut pool, chain, coins) = setup(2);
    let rich = spend(&coins[..1], &[COIN - 900]);
    enter(&mut pool, &chain, &rich);
    let poor = spend(&[pay(&rich)], &[COIN - 905]);
    assert!(matches!(
        offer(&mut pool, &chain, &poor),
        Err(Refused::LowFee { .. })
    ));
}

#[test]
fn a_package_replaces_when_it_pays_more_and_has_no_other_parents() {
    let (mut pool, chain, coins) = setup(3);
    let old = spend(&coins[..1], &[COIN - 1_000]);
    enter(&mut pool, &chain, &old);
    // By itself worse than what it conflicts with; with its child better.
    let parent = spend(&coins[..1], &[COIN - 20, 0]);
    let cheap = spend(&[pay(&parent)], &[COIN - 1_500]);
    let dear = spend(&[pay(&parent)], &[COIN - 5_000]);
    offer(&mut pool, &chain, &cheap).unwrap();
    assert!(matches!(
        offer(&mut pool, &chain, &parent),
        Err(Refused::Conflict { .. })
    ));
    assert!(pool.contains(&old.compute_txid()));
    offer(&mut pool, &chain, &dear).unwrap();
    let (replaced, adopted) = enter(&mut pool, &chain, &parent);
    assert_eq!((replaced, adopted), (txids(&[&old]), txids(&[&dear])));

    let other = spend(&coins[1..2], &[COIN - 1_000]);
    let victim = spend(&coins[2..], &[COIN - 1_000]);
    enter(&mut pool, &chain, &other);
    enter(&mut pool, &chain, &victim);
    let parent = spend(&coins[2..], &[COIN - 20, 0]);
    let child = spend(&[pay(&parent), pay(&other)], &[COIN]);
    offer(&mut pool, &chain, &child).unwrap();
    assert!(offer(&mut pool, &chain, &parent).is_err());
    assert!(pool.contains(&victim.compute_txid()));
}

#[test]
fn a_cluster_counts_all_that_hang_together_not_only_ancestors() {
    let (mut pool, chain, coins) = setup(34);
    // Two stars of 32 entries each, then one that joins them: no chain is longer than three.
    let star = |coin: &OutPoint| spend(&[*coin], &[2_000; 40]);
    let stars = [star(&coins[0]), star(&coins[1])];
    for hub in &stars {
        enter(&mut pool, &chain, hub);
        for vout in 0..31 {
            let arm = spend(&[OutPoint::new(hub.compute_txid(), vout)], &[1_000]);
            enter(&mut pool, &chain, &arm);
        }
    }
    let ends = [35, 36].map(|vout| {
        stars
            .each_ref()
            .map(|hub| OutPoint::new(hub.compute_txid(), vout))
    });
    let joins = spend(&ends[0], &[3_000]);
    assert!(matches!(
        offer(&mut pool, &chain, &joins),
        Err(Refused::LongChain)
    ));
    assert_eq!(pool.info(NOW).txs, 64);
}

#[test]
fn the_coverage_of_a_block_is_what_was_held_before_it() {
    let (mut pool, mut chain, coins) = setup(8);
    assert_eq!(pool.heard(NOW).since, None);
    pool.listens(NOW);
    pool.listens(NOW + 50);
    let txs: Vec<Transaction> = coins[..4]
        .iter()
        .map(|coin| spend(&[*coin], &[COIN - 1_000]))
        .collect();
    for tx in &txs[..3] {
        enter(&mut pool, &chain, tx);
    }
    hear(&mut pool, &mut chain, NOW + 600, &txs);
    let heard = pool.heard(NOW + 600);
    assert_eq!(heard.since, Some(NOW));
    let (height, last) = heard.last.unwrap();
    assert_eq!((height, last.txs, last.seen), (201, 4, 3));
    assert_eq!(
        (last.share(), last.weight_share()),
        (Some(0.75), Some(0.75))
    );
    let stranger = spend(&coins[4..8], &[4 * COIN - 1_000]);
    hear(
        &mut pool,
        &mut chain,
        NOW + 1_200,
        std::slice::from_ref(&stranger),
    );
    let recent = pool.heard(NOW + 1_200).recent;
    assert_eq!((recent.blocks, recent.txs, recent.seen), (2, 5, 3));
    assert_eq!(recent.share(), Some(0.6));
    assert!(
        recent.weight_share().unwrap() < 0.6,
        "the stranger is larger"
    );
    hear(&mut pool, &mut chain, NOW + 1_800, &[]);
    assert_eq!(pool.heard(NOW + 1_800).last.unwrap().1.share(), None);
}

#[test]
fn who_announced_an_entry_first_is_kept_for_the_first_eight_and_no_longer_than_the_entry() {
    let (mut pool, mut chain, coins) = setup(1);
    let tx = spend(&coins, &[COIN - 1_000]);
    let hash: [u8; 32] = *tx.compute_wtxid().as_ref();
    pool.announced(hash, peer(3), NOW * 1_000 - 400);
    pool.announced(hash, peer(1), NOW * 1_000 - 300);
    pool.announced(hash, peer(3), NOW * 1_000 - 200);
    pool.accept_from(raw(&tx), Some(peer(1)), NOW, &chain, chain.tip())
        .unwrap();
    for n in 10..30 {
        pool.announced(hash, peer(n), NOW * 1_000 + u64::from(n));
    }
    let txid = tx.compute_txid();
    let seen: Vec<(SocketAddr, u64)> = pool
        .sightings(&txid)
        .iter()
        .map(|sighting| (*sighting.peer, sighting.at))
        .collect();
    assert_eq!(seen.len(), 8);
    assert_eq!(
        seen[..3],
        [
            (peer(3), NOW * 1_000 - 400),
            (peer(1), NOW * 1_000 - 300),
            (peer(10), NOW * 1_000 + 10)
        ]
    );
    assert_eq!(
        (pool.heard(NOW).peers, pool.heard(NOW).peers_ever),
        (22, 22)
    );
    assert_eq!(pool.heard(NOW + 601).peers, 0);
    hear(&mut pool, &mut chain, NOW, std::slice::from_ref(&tx));
    assert!(pool.sightings(&txid).is_empty());
    // Announcements of what never comes are bounded.
    for n in 0..100_000u32 {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&n.to_le_bytes());
        pool.announced(hash, peer(1), NOW * 1_000);
    }
    assert!(pool.sightings.ahead() <= 40_000);
}

#[test]
fn what_pays_less_than_the_mining_floor_is_a_class_of_its_own() {
    let (chain, coins) = Chain::with_coins(200, 3, COIN);
    let mut pool = Mempool::new(MempoolConfig {
        mining_floor: 1_000,
        ..Default::default()
    });
    let cheap = spend(&coins[..1], &[COIN - 40]);
    let dear = spend(&coins[1..2], &[COIN - 92]);
    enter(&mut pool, &chain, &cheap);
    enter(&mut pool, &chain, &dear);
    let class =
        |pool: &Mempool, tx: &Transaction| pool.class(&pool.get(&tx.compute_txid()).unwrap());
    assert_eq!(class(&pool, &cheap), Class::Secondary);
    assert_eq!(class(&pool, &dear), Class::Primary);
    assert_eq!(pool.info(NOW).secondary, 1);
    // A child that pays for both lifts its parent.
    let child = spend(&[pay(&cheap)], &[COIN - 300]);
    enter(&mut pool, &chain, &child);
    assert_eq!(class(&pool, &cheap), Class::Primary);
    assert_eq!(
        (class(&pool, &child), pool.info(NOW).secondary),
        (Class::Primary, 0)
    );
}

#[test]
fn the_floor_halves_in_twelve_hours_after_a_block() {
    let mut floor = minimum_fee::MinimumFee::default();
    floor.raise(8_000.0, NOW);
    let full = 100;
    assert_eq!(
        floor.rate(NOW + 86_400, full, 100, 100.0),
        8_000.0,
        "no block made room"
    );
    floor.block_connected();
    let at = |hours: u64, usage| floor.rate(NOW + hours * 3_600, usage, 100, 100.0).round();
    assert_eq!((at(12, full), at(24, full)), (4_000.0, 2_000.0));
    assert_eq!((at(12, 49), at(12, 24)), (2_000.0, 500.0));
    assert_eq!(at(12 * 12, full), 0.0);
}
