//! Transactions: each is asked for once, of one peer at a time, and only at the tip.

use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Transaction, Witness};
use bytes::Bytes;

use super::network::{FakePeer, Sim, chain, txid_bytes};
use crate::chain::fixtures::spend;
use crate::chain::sync::transactions::TxRequests;
use crate::chain::sync::{DropReason, PeerId, PoolVerdict};
use crate::wire::Moment;
use crate::wire::message::Message;

const MINUTE: Duration = Duration::from_secs(60);

fn transaction(n: u32) -> Transaction {
    let mut tx = spend(n);
    tx.input[0].witness = Witness::from_slice(&[[n as u8; 8]]);
    tx
}

fn give(peer: &mut FakePeer, tx: &Transaction) {
    let wtxid = tx.compute_wtxid();
    peer.pool.insert(*wtxid.as_ref(), tx.clone());
    peer.pool.insert(txid_bytes(tx), tx.clone());
    peer.say(&Message::Inv(vec![Inventory::WTx(wtxid)]));
}

fn synced(seed: u64, peers: usize) -> Sim {
    let chain = chain(10);
    let peers = (1..=peers as u16)
        .map(|port| FakePeer::new(port, chain.clone()))
        .collect();
    let mut sim = Sim::new(seed, peers, |_| {});
    sim.run_to_tip(&chain[9]);
    sim.run_until("synced", MINUTE, |sim| sim.sync.synced(sim.now));
    sim
}

#[test]
fn a_transaction_that_all_announce_is_asked_of_one() {
    let mut sim = synced(1, 3);
    let tx = transaction(1);
    for peer in &mut sim.peers {
        give(peer, &tx);
    }
    sim.run_until("the transaction", MINUTE, |sim| {
        !sim.transactions.is_empty()
    });
    sim.run_for(3 * MINUTE);
    assert_eq!(sim.transactions.len(), 1);
    assert_eq!(sim.transactions[0].1, tx.compute_txid());
    let asked: usize = sim
        .peers
        .iter()
        .map(|peer| peer.transactions_asked().len())
        .sum();
    assert_eq!(asked, 1);
}

#[test]
fn what_is_announced_before_the_tip_is_reached_is_asked_for_then() {
    let chain = chain(200);
    let mut sim = Sim::new(2, vec![FakePeer::new(1, chain.clone())], |_| {});
    sim.run_until("ready", MINUTE, |sim| sim.sync.best_header().0 > 0);
    let tx = transaction(2);
    give(&mut sim.peers[0], &tx);
    sim.run_until("the transaction", 5 * MINUTE, |sim| {
        !sim.transactions.is_empty()
    });
    assert_eq!(sim.sync.tip().0, 200);
}

#[test]
fn another_peer_is_asked_after_a_minute_and_at_once_when_the_first_has_gone_or_lost_it() {
    for how in 0..3 {
        let mut sim = synced(3, 2);
        let tx = transaction(3);
        let wtxid = tx.compute_wtxid();
        let asked = |sim: &Sim| -> Vec<usize> {
            (0..2)
                .filter(|peer| !sim.peers[*peer].transactions_asked().is_empty())
                .collect()
        };
        for peer in &mut sim.peers {
            if how < 2 {
                peer.faults.stalls = true;
            }
            peer.say(&Message::Inv(vec![Inventory::WTx(wtxid)]));
        }
        sim.run_until("asked", MINUTE, |sim| !asked(sim).is_empty());
        let first = asked(&sim)[0];
        let before = sim.now;
        if how == 1 {
            let id = sim.id_of(first).unwrap();
            sim.run_for(Duration::from_secs(5));
            sim.sync.disconnected(id, sim.now);
            sim.peers[first].reachable = false;
            sim.settle();
        }
        sim.run_until("the other asked", 2 * MINUTE, |sim| asked(sim).len() == 2);
        let waited = sim.now.since(before);
        if how == 0 {
            assert!(
                waited >= Duration::from_secs(60) && waited < Duration::from_secs(62),
                "{waited:?}"
            );
        } else {
            assert!(waited < Duration::from_secs(20), "{waited:?}");
        }
    }
}

#[test]
fn what_the_pool_knows_is_not_asked_for() {
    let mut sim = synced(4, 1);
    let tx = transaction(4);
    sim.sync.tx_known(*tx.compute_wtxid().as_ref());
    give(&mut sim.peers[0], &tx);
    sim.run_for(MINUTE);
    assert!(sim.peers[0].transactions_asked().is_empty());
}

#[test]
fn a_transaction_announced_by_txid_is_asked_for_with_its_witness() {
    let mut sim = synced(5, 1);
    let tx = transaction(5);
    let txid = tx.compute_txid();
    sim.peers[0].pool.insert(txid_bytes(&tx), tx.clone());
    sim.peers[0].say(&Message::Inv(vec![Inventory::Transaction(txid)]));
    sim.run_until("the transaction", MINUTE, |sim| {
        !sim.transactions.is_empty()
    });
    assert_eq!(
        sim.peers[0].transactions_asked(),
        [Inventory::WitnessTransaction(txid)]
    );
}

#[test]
fn no_more_than_a_hundred_are_asked_of_a_peer_at_once() {
    let mut sim = synced(6, 1);
    sim.peers[0].faults.stalls = true;
    let items: Vec<_> = (0..20_000)
        .map(|n| Inventory::WTx(transaction(n).compute_wtxid()))
        .collect();
    sim.peers[0].say(&Message::Inv(items));
    sim.run_for(Duration::from_secs(30));
    assert_eq!(sim.peers[0].transactions_asked().len(), 100);
}

#[test]
fn what_nobody_asked_for_is_passed_over_and_what_is_no_transaction_gets_a_peer_dropped() {
    let mut sim = synced(7, 1);
    let tx = transaction(7);
    sim.peers[0].say(&Message::Tx(Bytes::from(bitcoin::consensus::serialize(
        &tx,
    ))));
    sim.run_for(Duration::from_secs(5));
    assert!(sim.transactions.is_empty() && sim.dropped.is_empty());
    sim.peers[0].say(&Message::Tx(Bytes::from_static(&[1, 2, 3])));
    sim.run_until("dropped", MINUTE, |sim| !sim.dropped.is_empty());
    assert!(matches!(sim.dropped[0].1, DropReason::MalformedTransaction));
}

#[test]
fn only_a_peer_with_bloom_filters_is_asked_for_its_pool_and_once() {
    let chain = chain(10);
    let mut peers = vec![
        FakePeer::new(1, chain.clone()),
        FakePeer::new(2, chain.clone()),
    ];
    peers[1].services |= ServiceFlags::BLOOM;
    let mut sim = Sim::new(8, peers, |_| {});
    sim.run_to_tip(&chain[9]);
    sim.run_for(MINUTE);
    let asked = |peer: &FakePeer| {
        peer.heard
            .iter()
            .filter(|message| **message == Message::MemPool)
            .count()
    };
    assert_eq!((asked(&sim.peers[0]), asked(&sim.peers[1])), (0, 1));
}

fn verdict(sim: &mut Sim, verdict: PoolVerdict) {
    let now = sim.now;
    sim.sync.pool_verdict(verdict, now);
    sim.settle();
}

#[test]
fn what_the_pool_refused_is_asked_for_again_after_the_next_block_and_not_before() {
    let mut sim = synced(9, 2);
    let tx = transaction(9);
    give(&mut sim.peers[0], &tx);
    sim.run_until("the transaction", MINUTE, |sim| {
        !sim.transactions.is_empty()
    });
    let (txid, wtxid) = (tx.compute_txid(), tx.compute_wtxid());
    verdict(&mut sim, PoolVerdict::Refused { txid, wtxid });
    give(&mut sim.peers[1], &tx);
    sim.run_for(MINUTE);
    assert_eq!(sim.transactions.len(), 1);
    for peer in &mut sim.peers {
        peer.chain = chain(11);
        peer.announce(1);
    }
    let tip = chain(11)[10].clone();
    sim.run_to_tip(&tip);
    give(&mut sim.peers[1], &tx);
    sim.run_until("it comes again", MINUTE, |sim| sim.transactions.len() == 2);
    // One that was taken is not, whatever blocks come.
    give(&mut sim.peers[0], &tx);
    sim.run_for(MINUTE);
    assert_eq!(sim.transactions.len(), 2);
    verdict(&mut sim, PoolVerdict::NotTaken { txid, wtxid });
    give(&mut sim.peers[0], &tx);
    sim.run_until("it was dropped here", MINUTE, |sim| {
        sim.transactions.len() == 3
    });
}

/// What somebody makes up and sends earns him no place among those who connected to us.
#[test]
fn a_transaction_is_a_merit_of_its_sender_once_the_pool_has_taken_it() {
    let mut sim = synced(11, 2);
    let tx = transaction(11);
    give(&mut sim.peers[0], &tx);
    sim.run_until("the transaction", MINUTE, |sim| {
        !sim.transactions.is_empty()
    });
    let peer = sim.id_of(0).unwrap();
    let merit = |sim: &Sim| sim.sync.peers[&peer].life.last_transaction;
    let (txid, wtxid) = (tx.compute_txid(), tx.compute_wtxid());
    verdict(&mut sim, PoolVerdict::Refused { txid, wtxid });
    assert_eq!(merit(&sim), Moment(0));
    verdict(&mut sim, PoolVerdict::Taken { peer });
    assert_eq!(merit(&sim), sim.now);
}

#[test]
fn a_missing_parent_is_asked_of_the_peer_that_sent_the_child_even_if_it_was_refused() {
    let mut sim = synced(10, 2);
    let parent = transaction(10);
    give(&mut sim.peers[0], &parent);
    sim.run_until("the parent", MINUTE, |sim| !sim.transactions.is_empty());
    let (txid, wtxid) = (parent.compute_txid(), parent.compute_wtxid());
    verdict(&mut sim, PoolVerdict::Refused { txid, wtxid });
    let peer = sim.id_of(0).unwrap();
    verdict(
        &mut sim,
        PoolVerdict::Parents {
            peer,
            missing: vec![txid],
        },
    );
    sim.run_until("the parent again", MINUTE, |sim| {
        sim.transactions.len() == 2
    });
    assert_eq!(sim.transactions[1], (peer, txid));
    assert!(
        sim.peers[0]
            .transactions_asked()
            .contains(&Inventory::WitnessTransaction(txid))
    );
    assert!(sim.peers[1].transactions_asked().is_empty());
}

#[test]
fn who_announced_what_is_told_also_of_what_is_not_asked_for() {
    let mut sim = synced(11, 2);
    let tx = transaction(11);
    for peer in &mut sim.peers {
        give(peer, &tx);
    }
    sim.run_until("both are heard", MINUTE, |sim| sim.announced.len() == 2);
    let hash: [u8; 32] = *tx.compute_wtxid().as_ref();
    assert!(sim.announced.iter().all(|(_, hashes)| *hashes == [hash]));
    assert_ne!(sim.announced[0].0, sim.announced[1].0);
    // A flood is told of in part.
    let items: Vec<_> = (100..5_100)
        .map(|n| Inventory::WTx(transaction(n).compute_wtxid()))
        .collect();
    sim.peers[0].say(&Message::Inv(items));
    sim.run_until("the flood", MINUTE, |sim| sim.announced.len() == 3);
    assert_eq!(sim.announced[2].1.len(), 1_000);
}

fn item(n: u32) -> Inventory {
    let mut hash = [0; 32];
    hash[..4].copy_from_slice(&n.to_le_bytes());
    Inventory::WTx(bitcoin::Wtxid::from_byte_array(hash))
}

/// Everything that is asked of a peer that answers at once.
fn asked_of(requests: &mut TxRequests, peer: PeerId) -> Vec<Inventory> {
    let mut asked = Vec::new();
    loop {
        let items = requests.next_requests(peer, Moment(0));
        if items.is_empty() {
            return asked;
        }
        for item in &items {
            let Inventory::WTx(wtxid) = item else {
                panic!("{item:?}")
            };
            requests.arrived([*wtxid.as_ref(), [9; 32]]);
        }
        asked.extend(items);
    }
}

/// The first of a peer's announcements stay, as the later ones would be their children, and nobody else's are touched.
#[test]
fn the_announcements_of_one_peer_are_bounded_and_its_own() {
    let mut requests = TxRequests::new(1, 100, MINUTE);
    requests.announced(PeerId(1), item(0));
    for _ in 0..2 {
        for n in 1..20_001 {
            requests.announced(PeerId(2), item(n));
        }
    }
    let first: Vec<_> = (1..5_001).map(item).collect();
    assert_eq!(asked_of(&mut requests, PeerId(2)), first);
    assert_eq!(requests.next_requests(PeerId(1), Moment(0)), [item(0)]);
    // Announced again, the rest finds room.
    for n in 1..20_001 {
        requests.announced(PeerId(2), item(n));
    }
    let next: Vec<_> = (5_001..10_001).map(item).collect();
    assert_eq!(asked_of(&mut requests, PeerId(2)), next);
}

#[test]
fn a_parent_that_is_missing_finds_room_among_the_announcements_of_its_peer() {
    let mut requests = TxRequests::new(1, 100, MINUTE);
    for n in 1..5_001 {
        requests.announced(PeerId(1), item(n));
    }
    let parent = bitcoin::Txid::from_byte_array([7; 32]);
    requests.parent(PeerId(1), parent);
    let asked = requests.next_requests(PeerId(1), Moment(0));
    assert_eq!(asked[..2], [Inventory::Transaction(parent), item(1)]);
    requests.arrived([[8; 32], [7; 32]]);
    for n in 1..100 {
        let Inventory::WTx(wtxid) = item(n) else {
            unreachable!()
        };
        requests.arrived([*wtxid.as_ref(), [9; 32]]);
    }
    let rest: Vec<_> = (100..5_000).map(item).collect();
    assert_eq!(asked_of(&mut requests, PeerId(1)), rest);
}

#[test]
fn a_peer_that_was_asked_for_its_pool_may_announce_all_of_it() {
    let mut requests = TxRequests::new(1, 100, MINUTE);
    requests.asked_for_pool(PeerId(1));
    for n in 0..60_000 {
        requests.announced(PeerId(1), item(n));
    }
    assert_eq!(asked_of(&mut requests, PeerId(1)).len(), 50_000);
}

/// Who says over and over that it has a transaction is remembered for it once, and takes the place of nobody else.
#[test]
fn one_peer_that_announces_again_and_again_does_not_keep_another_from_being_asked() {
    let [hides, repeats, honest] = [1, 2, 3].map(PeerId);
    let now = Moment::from_secs(1_400_000_000);
    let mut requests = TxRequests::new(1, 100, MINUTE);
    let item = Inventory::WTx(bitcoin::Wtxid::from_byte_array([7; 32]));
    requests.announced(hides, item);
    assert_eq!(requests.next_requests(hides, now), [item]);
    for _ in 0..20 {
        requests.announced(repeats, item);
        assert!(requests.next_requests(repeats, now).is_empty());
    }
    requests.announced(honest, item);
    assert!(requests.next_requests(honest, now).is_empty());
    requests.tick(now + MINUTE);
    assert_eq!(requests.next_requests(repeats, now + MINUTE), [item]);
    assert!(requests.next_requests(honest, now + MINUTE).is_empty());
    requests.tick(now + MINUTE * 2);
    assert_eq!(requests.next_requests(honest, now + MINUTE * 2), [item]);
}

/// Two that have it by what they say, and say so again each time that they were late, are not asked by turns.
#[test]
fn who_was_late_is_not_asked_again_before_who_was_not_asked() {
    let [one, two, honest] = [1, 2, 3].map(PeerId);
    let mut now = Moment::from_secs(1_400_000_000);
    let mut requests = TxRequests::new(1, 100, MINUTE);
    let item = Inventory::WTx(bitcoin::Wtxid::from_byte_array([7; 32]));
    let mut asked = Vec::new();
    requests.announced(honest, item);
    for _ in 0..4 {
        requests.announced(one, item);
        requests.announced(two, item);
        for peer in [one, two, honest] {
            let items = requests.next_requests(peer, now);
            asked.extend(items.iter().map(|_| peer));
        }
        now = now + MINUTE;
        requests.tick(now);
    }
    // All have failed: it begins anew.
    assert_eq!(asked, [one, two, honest, one]);
}
