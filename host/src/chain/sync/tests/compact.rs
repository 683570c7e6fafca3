//! Compact blocks: filled from the pool, completed by the peer, and given up for the whole block.

use std::time::Duration;

use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Block, Transaction};

use super::network::{FakePeer, Faults, Sim, chain};
use crate::chain::fixtures::{self, coinbase, spend};
use crate::chain::sync::DropReason;
use crate::wire::message::Message;

const MINUTE: Duration = Duration::from_secs(60);

/// A block of ten transactions on top of a chain.
fn next(chain: &[Block]) -> Block {
    let mut transactions = vec![coinbase(chain.len() as u32 + 1, 3)];
    transactions.extend((0..10).map(spend));
    fixtures::block(&chain.last().unwrap().header, transactions)
}

/// A host at the tip of ten blocks, and the eleventh, which the peer does not have yet.
fn at_the_tip(seed: u64, faults: Faults) -> (Sim, Block) {
    let blocks = chain(10);
    let mut peer = FakePeer::new(1, blocks.clone()).with(faults);
    peer.compact = true;
    let mut sim = Sim::new(seed, vec![peer], |_| {});
    sim.run_to_tip(&blocks[9]);
    sim.run_until("synced", MINUTE, |sim| sim.sync.synced(sim.now));
    // The first sync is no time for compact blocks.
    assert_eq!(kinds(&sim.peers[0]), (0, 10));
    let block = next(&blocks);
    (sim, block)
}

fn announce(sim: &mut Sim, block: &Block) {
    sim.peers[0].chain.push(block.clone());
    sim.peers[0].announce(1);
}

/// How many blocks were asked for in their compact form, and whole.
fn kinds(peer: &FakePeer) -> (usize, usize) {
    let items = peer.heard.iter().filter_map(|message| match message {
        Message::GetData(items) => Some(items),
        _ => None,
    });
    let compact = |item: &&Inventory| matches!(item, Inventory::CompactBlock(_));
    let compact = items.flatten().filter(compact).count();
    (compact, peer.blocks_asked().len())
}

fn transactions_asked(peer: &FakePeer) -> Vec<u64> {
    let asked = peer.heard.iter().filter_map(|message| match message {
        Message::GetBlockTxn(request) => Some(request.indexes.clone()),
        _ => None,
    });
    asked.flatten().collect()
}

fn pool(block: &Block, which: impl Fn(usize) -> bool) -> Vec<Transaction> {
    let transactions = block.txdata.iter().enumerate();
    let kept = transactions.filter(|(place, _)| which(*place));
    kept.map(|(_, transaction)| transaction.clone()).collect()
}

#[test]
fn a_block_whose_transactions_are_in_the_pool_needs_no_more_than_its_short_ids() {
    let (mut sim, block) = at_the_tip(31, Faults::default());
    sim.pool = pool(&block, |_| true);
    assert_eq!(sim.sync.peers()[0].blocks, 10);
    announce(&mut sim, &block);
    sim.run_to_tip(&block);
    assert_eq!(kinds(&sim.peers[0]), (1, 10));
    assert!(transactions_asked(&sim.peers[0]).is_empty());
    // It counts as any other.
    assert_eq!(sim.sync.peers()[0].blocks, 11);
    let session = sim.sync.peers.values().next().unwrap();
    assert!(sim.now.since(session.life.last_block) < MINUTE);
}

#[test]
fn what_the_pool_lacks_is_asked_for_by_its_place() {
    let (mut sim, block) = at_the_tip(32, Faults::default());
    sim.pool = pool(&block, |place| place % 3 == 1);
    announce(&mut sim, &block);
    sim.run_to_tip(&block);
    assert_eq!(kinds(&sim.peers[0]), (1, 10));
    assert_eq!(transactions_asked(&sim.peers[0]), [2, 3, 5, 6, 8, 9]);
    assert!(sim.events.iter().any(
        |event| event.starts_with("compact-block") && event.ends_with("4 of 10 from the pool")
    ),);
}

#[test]
fn a_block_that_was_put_together_wrongly_is_asked_for_whole_and_nobody_is_to_blame() {
    let (mut sim, block) = at_the_tip(33, Faults::default());
    // Another transaction under each short id, as by a collision.
    sim.pool = pool(&block, |_| true);
    sim.impostor = Some(spend(99));
    announce(&mut sim, &block);
    sim.run_to_tip(&block);
    assert_eq!(kinds(&sim.peers[0]), (1, 11));
    assert!(sim.dropped.is_empty());
}

#[test]
fn wrong_short_ids_only_cost_their_sender_the_transactions() {
    let faults = Faults {
        wrong_short_ids: true,
        ..Faults::default()
    };
    let (mut sim, block) = at_the_tip(34, faults);
    sim.pool = pool(&block, |_| true);
    announce(&mut sim, &block);
    sim.run_to_tip(&block);
    assert_eq!(transactions_asked(&sim.peers[0]).len(), 10);
}

#[test]
fn another_number_of_transactions_than_was_asked_for_gets_a_peer_dropped() {
    let faults = Faults {
        short_blocktxn: true,
        ..Faults::default()
    };
    let (mut sim, block) = at_the_tip(35, faults);
    announce(&mut sim, &block);
    sim.run_until("dropped", MINUTE, |sim| !sim.dropped.is_empty());
    assert!(matches!(
        sim.dropped[0].1,
        DropReason::MalformedCompactBlock
    ));
}

#[test]
fn a_peer_that_hides_the_transactions_is_passed_over_for_one_that_sends_the_block() {
    let faults = Faults {
        hides_transactions: true,
        ..Faults::default()
    };
    let blocks = chain(10);
    let mut hider = FakePeer::new(1, blocks.clone()).with(faults);
    hider.compact = true;
    let peers = vec![hider, FakePeer::new(2, blocks.clone())];
    let mut sim = Sim::new(36, peers, |_| {});
    sim.run_to_tip(&blocks[9]);
    sim.run_until("synced", MINUTE, |sim| sim.sync.synced(sim.now));
    let block = next(&blocks);
    announce(&mut sim, &block);
    sim.run_for(Duration::from_secs(1));
    sim.peers[1].chain.push(block.clone());
    sim.peers[1].announce(1);
    sim.run_to_tip(&block);
}

/// However many of them there are: else each costs twice what the one before did.
#[test]
fn who_is_asked_next_for_a_block_that_somebody_hides_is_asked_for_the_whole() {
    let faults = Faults {
        hides_transactions: true,
        ..Faults::default()
    };
    let blocks = chain(10);
    let hiders = (1..=5).map(|port| {
        let mut hider = FakePeer::new(port, blocks.clone()).with(faults.clone());
        hider.compact = true;
        hider
    });
    let mut sim = Sim::new(39, hiders.collect(), |_| {});
    sim.run_to_tip(&blocks[9]);
    sim.run_until("synced", MINUTE, |sim| sim.sync.synced(sim.now));
    let block = next(&blocks);
    for peer in &mut sim.peers {
        peer.chain.push(block.clone());
        peer.announce(1);
    }
    let before = sim.now;
    sim.run_to_tip(&block);
    assert!(sim.now.since(before) < Duration::from_secs(4));
    let compact: usize = sim.peers.iter().map(|peer| kinds(peer).0).sum();
    assert_eq!(compact, 1);
}

#[test]
fn a_compact_block_that_nobody_asked_for_is_an_announcement() {
    let (mut sim, block) = at_the_tip(37, Faults::default());
    sim.peers[0].chain.push(block.clone());
    sim.pool = pool(&block, |_| true);
    let compact = bitcoin::bip152::HeaderAndShortIds::from_block(&block, 5, 2, &[]).unwrap();
    sim.peers[0].say(&Message::CmpctBlock(Box::new(compact)));
    sim.run_to_tip(&block);
    assert_eq!(kinds(&sim.peers[0]), (1, 10));
}

#[test]
fn a_place_outside_the_block_gets_a_peer_dropped() {
    let (mut sim, block) = at_the_tip(38, Faults::default());
    sim.peers[0].prefilled_at = Some(60_000);
    announce(&mut sim, &block);
    sim.run_until("dropped", MINUTE, |sim| !sim.dropped.is_empty());
    assert!(matches!(
        sim.dropped[0].1,
        DropReason::MalformedCompactBlock
    ));
}

/// Two peers at the tip of ten blocks, of which the first answers no question for blocks any more, and the eleventh, which
/// both announce.
fn beside_an_honest_peer(seed: u64, faults: Faults) -> (Sim, Block) {
    let blocks = chain(10);
    let mut first = FakePeer::new(1, blocks.clone());
    first.compact = true;
    let peers = vec![first, FakePeer::new(2, blocks.clone())];
    let mut sim = Sim::new(seed, peers, |_| {});
    sim.run_to_tip(&blocks[9]);
    sim.run_until("synced", MINUTE, |sim| sim.sync.synced(sim.now));
    sim.peers[0].faults = faults;
    let block = next(&blocks);
    announce(&mut sim, &block);
    sim.run_for(Duration::from_millis(300));
    sim.peers[1].chain.push(block.clone());
    sim.peers[1].announce(1);
    (sim, block)
}

#[test]
fn short_ids_said_over_and_over_do_not_put_off_the_block() {
    let faults = Faults {
        hides_transactions: true,
        ..Faults::default()
    };
    let (mut sim, block) = beside_an_honest_peer(40, faults);
    let compact = bitcoin::bip152::HeaderAndShortIds::from_block(&block, 5, 2, &[]).unwrap();
    for _ in 0..120 {
        sim.peers[0].say(&Message::CmpctBlock(Box::new(compact.clone())));
        sim.run_for(Duration::from_millis(200));
    }
    assert_eq!(sim.sync.tip().1, block.block_hash());
}

#[test]
fn a_block_that_is_wanted_whole_is_not_taken_in_its_compact_form() {
    let faults = Faults {
        stalls: true,
        ..Faults::default()
    };
    let (mut sim, block) = beside_an_honest_peer(41, faults);
    let mut wrong = block.clone();
    *wrong.txdata.last_mut().unwrap() = spend(99);
    let all: Vec<usize> = (0..wrong.txdata.len()).collect();
    let compact = bitcoin::bip152::HeaderAndShortIds::from_block(&wrong, 5, 2, &all).unwrap();
    for _ in 0..480 {
        sim.peers[0].say(&Message::CmpctBlock(Box::new(compact.clone())));
        sim.run_for(Duration::from_millis(50));
    }
    assert_eq!(sim.sync.tip().1, block.block_hash());
}
