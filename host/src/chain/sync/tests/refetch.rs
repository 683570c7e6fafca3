//! Blocks that were pruned, asked for once more: from whom, what becomes of bad ones, and that the tip goes on.

use std::collections::BTreeSet;
use std::time::Duration;

use bitcoin::p2p::ServiceFlags;
use bitcoin::{Block, BlockHash};

use super::network::{FakePeer, Sim, chain, fork};
use crate::chain::block_check::BadBlock;
use crate::chain::fixtures;
use crate::chain::sync::DropReason;

const MINUTE: Duration = Duration::from_secs(60);

fn peers(count: u16, chain: &[Block]) -> Vec<FakePeer> {
    (1..=count)
        .map(|port| FakePeer::new(port, chain.to_vec()))
        .collect()
}

fn hashes(blocks: &[Block]) -> Vec<BlockHash> {
    blocks.iter().map(Block::block_hash).collect()
}

/// A network at the tip of a chain, and nothing said so far.
fn at_tip(seed: u64, peers: Vec<FakePeer>, chain: &[Block]) -> Sim {
    let mut sim = Sim::new(seed, peers, |_| {});
    sim.run_to_tip(chain.last().unwrap());
    sim.run_for(Duration::from_secs(10));
    sim.blocks.clear();
    for peer in &mut sim.peers {
        peer.heard.clear();
    }
    sim
}

/// Wants these blocks, as a shell does that has a window of some above what came, until all are there.
fn fetch(sim: &mut Sim, wanted: &[BlockHash], limit: Duration) {
    let end = sim.now + limit;
    loop {
        let here: BTreeSet<BlockHash> = sim.again.iter().map(|(hash, _)| *hash).collect();
        let missing: Vec<BlockHash> = wanted
            .iter()
            .filter(|hash| !here.contains(*hash))
            .take(50)
            .copied()
            .collect();
        sim.sync.set_refetch(&missing, usize::MAX, sim.now);
        sim.settle();
        if missing.is_empty() {
            return;
        }
        assert!(sim.now < end, "{} not within {limit:?}", missing.len());
        sim.step();
    }
}

#[test]
fn pruned_blocks_come_from_several_peers_once_each_and_move_no_tip() {
    let chain = chain(400);
    for seed in 0..4 {
        let mut sim = at_tip(seed, peers(3, &chain), &chain);
        let tips = sim.tips.len();
        let wanted = hashes(&chain[..200]);
        fetch(&mut sim, &wanted, MINUTE);
        let mut came: Vec<u32> = sim.again.iter().map(|(_, height)| *height).collect();
        came.sort_unstable();
        assert_eq!(came, (1..=200).collect::<Vec<u32>>());
        assert!(sim.peers.iter().all(|peer| !peer.blocks_asked().is_empty()));
        assert!(sim.blocks.is_empty(), "the log is given none of them");
        assert_eq!(sim.tips.len(), tips);
        assert!(sim.dropped.is_empty(), "{:?}", sim.dropped);
    }
}

#[test]
fn a_peer_with_few_blocks_is_never_asked_for_older_ones() {
    let chain = chain(400);
    let mut all = peers(2, &chain);
    all[0].services = ServiceFlags::NETWORK_LIMITED | ServiceFlags::WITNESS;
    let mut sim = at_tip(1, all, &chain);
    fetch(&mut sim, &hashes(&chain[..400]), MINUTE);
    let asked: Vec<u32> = sim.peers[0]
        .blocks_asked()
        .iter()
        .map(|hash| sim.sync.height_of(hash).unwrap())
        .collect();
    assert!(!asked.is_empty(), "it is asked for the last ones");
    assert!(asked.iter().all(|height| *height > 400 - 288), "{asked:?}");
}

#[test]
fn a_mutated_block_costs_its_peer_the_connection_and_another_gives_it() {
    let chain = chain(100);
    for seed in 0..4 {
        let mut sim = at_tip(seed, peers(2, &chain), &chain);
        sim.peers[0].faults.mutates = true;
        fetch(&mut sim, &hashes(&chain[..50]), 2 * MINUTE);
        assert!(sim.dropped.iter().all(|(addr, reason)| {
            *addr == sim.peers[0].addr
                && matches!(
                    reason,
                    DropReason::BadBlock {
                        error: BadBlock::Mutated(_),
                        ..
                    }
                )
        }));
        assert!(!sim.dropped.is_empty());
        // The block is as good as it was.
        assert_eq!(sim.sync.tip().1, chain[99].block_hash());
        assert_eq!(sim.sync.tree().invalid_reason(&chain[0].block_hash()), None);
    }
}

#[test]
fn what_nobody_has_is_said_and_comes_when_somebody_has_it() {
    let chain = chain(400);
    let limited = |mut peer: FakePeer| {
        peer.services = ServiceFlags::NETWORK_LIMITED | ServiceFlags::WITNESS;
        peer
    };
    let mut all = peers(3, &chain);
    let whole = all.pop().unwrap();
    let mut sim = Sim::new(
        3,
        vec![whole]
            .into_iter()
            .chain(all.into_iter().map(limited))
            .collect(),
        |_| {},
    );
    sim.run_to_tip(&chain[399]);
    // The only one with the whole chain goes for now.
    sim.peers[0].reachable = false;
    sim.sleep(MINUTE);
    sim.run_until("two peers", 10 * MINUTE, |sim| {
        sim.sync.peers().iter().filter(|peer| peer.ready).count() == 2
    });
    let asked: Vec<usize> = sim
        .peers
        .iter()
        .map(|peer| peer.blocks_asked().len())
        .collect();
    let wanted = hashes(&chain[4..30]);
    sim.sync.set_refetch(&wanted, usize::MAX, sim.now);
    sim.settle();
    sim.run_for(5 * MINUTE);
    assert_eq!(sim.sync.refetch_unavailable(), Some(5));
    assert!(sim.again.is_empty());
    let later: Vec<usize> = sim
        .peers
        .iter()
        .map(|peer| peer.blocks_asked().len())
        .collect();
    assert_eq!(asked, later, "nobody is asked for what it says it has not");
    assert!(
        sim.dropped.len() <= 3,
        "nobody but the sleep's: {:?}",
        sim.dropped
    );
    sim.peers[0].reachable = true;
    fetch(&mut sim, &wanted, 10 * MINUTE);
    assert_eq!(sim.sync.refetch_unavailable(), None);
}

#[test]
fn a_peer_that_has_pruned_what_it_promises_is_not_asked_again_and_again() {
    let chain = chain(300);
    let mut sim = at_tip(4, peers(2, &chain), &chain);
    sim.peers[0].faults.not_found = true;
    fetch(&mut sim, &hashes(&chain[..100]), MINUTE);
    let asked = sim.peers[0].blocks_asked().len();
    assert!(asked <= 64, "{asked}");
    assert!(sim.dropped.is_empty());

    // With it alone: said, not asked for in a loop.
    let mut sim = at_tip(5, peers(1, &chain), &chain);
    sim.peers[0].faults.not_found = true;
    sim.sync
        .set_refetch(&hashes(&chain[..20]), usize::MAX, sim.now);
    sim.settle();
    sim.run_for(3 * MINUTE);
    assert!(sim.peers[0].blocks_asked().len() <= 4 * 20);
    assert!(sim.dropped.is_empty());
    sim.peers[0].faults.not_found = false;
    fetch(&mut sim, &hashes(&chain[..20]), 3 * MINUTE);
}

#[test]
fn a_staller_gets_nothing_to_hold_up() {
    let chain = chain(300);
    for seed in 0..4 {
        let mut sim = at_tip(seed, peers(3, &chain), &chain);
        sim.peers[1].faults.stalls = true;
        fetch(&mut sim, &hashes(&chain[..200]), Duration::from_secs(20));
        assert!(sim.dropped.is_empty(), "{:?}", sim.dropped);
    }
    // The only peer is dropped in the end, as one that sends no new block is.
    let mut sim = at_tip(7, peers(1, &chain), &chain);
    sim.peers[0].faults.stalls = true;
    sim.sync
        .set_refetch(&hashes(&chain[..20]), usize::MAX, sim.now);
    sim.settle();
    sim.run_until("dropped", 3 * MINUTE, |sim| !sim.dropped.is_empty());
    assert!(matches!(sim.dropped[0].1, DropReason::BlockTimeout));
    sim.peers[0].faults.stalls = false;
    fetch(&mut sim, &hashes(&chain[..20]), MINUTE);
}

#[test]
fn in_a_reorg_blocks_of_the_branch_that_was_left_are_not_waited_for() {
    let first = chain(60);
    let second = fork(&first, 30, 40, 1);
    for seed in 0..4 {
        let mut sim = at_tip(seed, peers(2, &first), &first);
        for peer in &mut sim.peers {
            peer.faults.stalls = true;
        }
        sim.sync
            .set_refetch(&hashes(&first[20..50]), usize::MAX, sim.now);
        sim.settle();
        sim.run_for(Duration::from_millis(500));
        for peer in &mut sim.peers {
            peer.faults.stalls = false;
            peer.chain = second.clone();
            peer.announce(1);
        }
        sim.run_to_tip(&second[69]);
        fetch(&mut sim, &hashes(&second[20..50]), MINUTE);
        assert_eq!(
            sim.again
                .iter()
                .filter(|(hash, _)| *hash == first[40].block_hash())
                .count(),
            0
        );
        sim.run_for(5 * MINUTE);
        assert!(sim.dropped.is_empty(), "{:?}", sim.dropped);
        sim.check_outputs();
    }
}

#[test]
fn the_tip_goes_on_while_old_blocks_come() {
    let first = chain(300);
    let mut longer = first.clone();
    longer.extend(fixtures::chain(&first[299].header, 300, 30, 0));
    let mut sim = at_tip(8, peers(3, &first), &first);
    let wanted = hashes(&first[..250]);
    for count in 301..=330 {
        for peer in &mut sim.peers {
            peer.chain = longer[..count].to_vec();
            peer.announce(1);
        }
        let missing: Vec<BlockHash> = wanted
            .iter()
            .filter(|hash| !sim.again.iter().any(|(here, _)| here == *hash))
            .take(50)
            .copied()
            .collect();
        sim.sync.set_refetch(&missing, usize::MAX, sim.now);
        sim.settle();
        let hash = longer[count - 1].block_hash();
        sim.run_until("the new block", Duration::from_secs(3), |sim| {
            sim.sync.tip().1 == hash
        });
    }
    fetch(&mut sim, &wanted, MINUTE);
    assert!(sim.dropped.is_empty());
    sim.check_outputs();
}

#[test]
fn what_waits_to_be_checked_is_bounded() {
    let chain = chain(300);
    let size = fixtures::raw(&chain[100]).len();
    let mut sim = Sim::new(9, peers(3, &chain), |config| {
        config.max_again_bytes = 20 * size;
    });
    sim.run_to_tip(&chain[299]);
    sim.busy = true;
    sim.sync
        .set_refetch(&hashes(&chain[..200]), usize::MAX, sim.now);
    sim.settle();
    sim.run_for(MINUTE);
    let held = sim.held();
    assert!((1..=30).contains(&held), "{held} blocks wait");
    sim.busy = false;
    fetch(&mut sim, &hashes(&chain[..200]), MINUTE);
}

#[test]
fn a_block_that_nobody_wants_any_more_is_no_fault_of_its_peer() {
    let chain = chain(300);
    let mut sim = at_tip(10, peers(1, &chain), &chain);
    for n in 0..40 {
        sim.sync
            .set_refetch(&hashes(&chain[n * 5..n * 5 + 20]), usize::MAX, sim.now);
        sim.settle();
        sim.sync.set_refetch(&[], usize::MAX, sim.now);
        sim.settle();
        sim.run_for(Duration::from_millis(200));
    }
    sim.run_for(MINUTE);
    assert!(sim.dropped.is_empty(), "{:?}", sim.dropped);
}

#[test]
fn as_many_are_asked_for_as_there_is_room_for_and_what_is_under_way_is_taken_when_there_is_less() {
    let chain = chain(300);
    let mut sim = at_tip(11, peers(1, &chain), &chain);
    let wanted = hashes(&chain[..40]);
    sim.sync.set_refetch(&wanted, 2, sim.now);
    sim.settle();
    sim.sync.set_refetch(&wanted, 0, sim.now);
    sim.settle();
    sim.run_for(MINUTE);
    let came: BTreeSet<BlockHash> = sim.again.iter().map(|(hash, _)| *hash).collect();
    // With room for none it is the most needed one still, one after another. (The first two are checked in any order.)
    assert_eq!(came, wanted.iter().copied().collect());
    assert_eq!(sim.again.len(), wanted.len());
    assert_eq!(sim.peers[0].blocks_asked(), wanted, "each once");
}
