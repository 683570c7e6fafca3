//! Blocks that are on a disk of ours, and blocks that are not needed: what peers are still asked for.

use std::collections::BTreeSet;
use std::time::Duration;

use bitcoin::Block;
use bitcoin::block::Header;

use super::network::{FakePeer, Sim, chain, fork};
use crate::chain::sync::Base;

const MINUTE: Duration = Duration::from_secs(60);

fn found<'a>(blocks: impl IntoIterator<Item = &'a Block>) -> Vec<(Header, u32)> {
    blocks
        .into_iter()
        .map(|block| (block.header, block.total_size() as u32))
        .collect()
}

/// One step, in which the shell reads what the source was asked for; `lost` it does not find.
fn step(sim: &mut Sim, lost: &Block) {
    sim.step();
    for (hash, height) in std::mem::take(&mut sim.from_source) {
        assert_eq!(sim.sync.height_of(&hash), Some(height));
        match hash == lost.block_hash() {
            true => sim.sync.source_lost(hash, sim.now),
            false => sim.sync.block_checked(hash, Ok(()), sim.now),
        }
        sim.settle();
    }
}

#[test]
fn no_peer_is_asked_for_what_the_source_has_and_one_is_for_the_rest() {
    let chain = chain(100);
    for seed in 0..6 {
        let mut sim = Sim::new(seed, vec![FakePeer::new(1, chain.clone())], |_| {});
        sim.sync.expect_source();
        // Peers show their headers, and are asked for nothing else as long as nobody knows what the source has.
        for _ in 0..300 {
            step(&mut sim, &chain[0]);
        }
        assert_eq!(sim.sync.best_header().0, 100);
        assert!(sim.blocks.is_empty(), "{:?}", sim.blocks);

        let mut has = found(chain[..60].iter().chain(&chain[70..80]));
        for at in (1..has.len()).rev() {
            has.swap(at, sim.chance.below(at + 1));
        }
        let (first, second) = has.split_at(35);
        let now = sim.now;
        sim.sync.source_found(first.to_vec(), now);
        sim.sync.source_found(second.to_vec(), now);
        sim.sync.source_scanned(now);
        sim.settle();
        let end = sim.now + MINUTE;
        while sim.sync.tip().0 < 100 {
            assert!(sim.now < end, "tip {:?}", sim.sync.tip());
            step(&mut sim, &chain[30]);
        }
        let asked: BTreeSet<u32> = sim.blocks.iter().map(|(_, height)| *height).collect();
        let wanted: BTreeSet<u32> = [31].into_iter().chain(61..=70).chain(81..=100).collect();
        assert_eq!(asked, wanted, "by height, which begins with 1");
        assert_eq!(sim.sync.source_view().waiting, 0);
        sim.check_outputs();
    }
}

#[test]
fn a_source_alone_is_enough_and_waits_for_missing_parents() {
    let chain = chain(30);
    let mut sim = Sim::new(3, vec![FakePeer::new(1, Vec::new())], |config| {
        config.connect.clear();
    });
    sim.sync.expect_source();
    let now = sim.now;
    sim.sync.source_found(found(&chain[10..]), now);
    sim.sync.source_scanned(now);
    for _ in 0..50 {
        step(&mut sim, &chain[0]);
    }
    assert_eq!(sim.sync.tip().0, 0);
    assert_eq!(sim.sync.source_view().unconnected, 20);
    assert!(!sim.sync.synced(sim.now), "more is known to be there");

    let other = chain[29].clone();
    let now = sim.now;
    sim.sync.source_found(found(&chain[..10]), now);
    for _ in 0..200 {
        // Nothing is lost: this one is not asked for twice.
        step(&mut sim, &fork(&chain, 29, 1, 9)[29]);
    }
    assert_eq!(sim.sync.tip().1, other.block_hash());
    assert_eq!(sim.sync.source_view().unconnected, 0);
    assert!(sim.sync.synced(sim.now));
    assert_eq!(sim.headers.len(), 30, "each header is kept once");
}

#[test]
fn blocks_up_to_the_base_are_never_asked_for() {
    let chain = chain(100);
    for seed in 0..6 {
        let mut sim = Sim::new(seed, vec![FakePeer::new(1, chain.clone())], |_| {});
        sim.sync.set_base(Base {
            height: 50,
            hash: chain[49].block_hash(),
        });
        sim.run_to_tip(&chain[99]);
        assert!(sim.blocks.iter().all(|(_, height)| *height > 50));
        assert_eq!(sim.blocks.len(), 50);
        assert_eq!(sim.tips[0].height, 50);
        assert_eq!(sim.sync.base(), None);
    }
}

#[test]
fn a_base_that_the_best_branch_does_not_have_holds_up_nothing() {
    let chain = chain(100);
    let other = fork(&chain, 40, 10, 7);
    let mut sim = Sim::new(8, vec![FakePeer::new(1, chain.clone())], |_| {});
    sim.sync.set_base(Base {
        height: 50,
        hash: other[49].block_hash(),
    });
    sim.run_to_tip(&chain[99]);
    assert_eq!(sim.blocks.len(), 100);
    assert!(sim.sync.base().is_some());
}
