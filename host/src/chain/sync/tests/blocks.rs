//! Blocks: from whom, in what order, and what becomes of bad ones.

use std::time::Duration;

use bitcoin::p2p::ServiceFlags;

use super::network::{Chance, FakePeer, Faults, Sim, chain, fork};
use crate::chain::block_check::{BadBlock, Invalidity};
use crate::chain::fixtures;
use crate::chain::header_tree::TipChange;
use crate::chain::sync::{DropReason, SyncConfig};
use crate::wire::{Misbehaviour, WireError};

const MINUTE: Duration = Duration::from_secs(60);

/// A window and a share of it so small that no peer can take everything before the others are there.
fn share(config: &mut SyncConfig) {
    config.download_window = 40;
    config.blocks_per_peer = 8;
    config.blocks_per_fast_peer = 8;
}

fn three(chain: &[bitcoin::Block]) -> Vec<FakePeer> {
    (1..=3)
        .map(|port| FakePeer::new(port, chain.to_vec()))
        .collect()
}

#[test]
fn a_chain_is_synced_from_several_peers_whatever_the_order_of_bytes_and_checks() {
    let chain = chain(300);
    for seed in 0..12 {
        let mut peers = three(&chain);
        for peer in &mut peers {
            peer.faults.shuffles = true;
        }
        let mut sim = Sim::new(seed, peers, share);
        sim.frames_itself = seed % 2 == 1;
        sim.run_to_tip(&chain[299]);
        sim.run_until("synced", MINUTE, |sim| sim.sync.synced(sim.now));
        sim.check_outputs();
        assert!(sim.dropped.is_empty(), "{:?}", sim.dropped);
        assert_eq!(sim.blocks.len(), 300, "each block is fetched once");
        assert!(
            sim.peers.iter().all(|peer| !peer.blocks_asked().is_empty()),
            "every peer takes part"
        );
        for (height, block) in chain.iter().enumerate() {
            assert_eq!(
                sim.sync.hash_at(height as u32 + 1),
                Some(block.block_hash())
            );
        }
    }
}

#[test]
fn a_staller_is_dropped_and_its_blocks_come_from_others() {
    let chain = chain(200);
    for seed in 0..4 {
        let mut peers = three(&chain);
        peers[1].faults.stalls = true;
        let mut sim = Sim::new(seed, peers, share);
        sim.run_until("the staller dropped", MINUTE, |sim| !sim.dropped.is_empty());
        assert_eq!(sim.dropped[0].0, sim.peers[1].addr);
        assert!(
            matches!(sim.dropped[0].1, DropReason::Stalled(after) if after == Duration::from_secs(2))
        );
        sim.run_to_tip(&chain[199]);
        sim.check_outputs();
    }
}

#[test]
fn each_staller_in_a_row_gets_twice_the_time_of_the_one_before() {
    let chain = chain(300);
    let mut peers: Vec<FakePeer> = (1..=4)
        .map(|port| FakePeer::new(port, chain.clone()))
        .collect();
    for peer in &mut peers {
        peer.faults.stalls = true;
    }
    let mut sim = Sim::new(5, peers, |config| {
        share(config);
        config.download_window = 20;
        config.block_timeout = 60 * MINUTE;
    });
    sim.run_until("seven dropped", 10 * MINUTE, |sim| sim.dropped.len() >= 7);
    let patience: Vec<u64> = sim
        .dropped
        .iter()
        .map(|(_, reason)| match reason {
            DropReason::Stalled(after) => after.as_secs(),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(patience[..7], [2, 4, 8, 16, 32, 64, 64]);
    for peer in &mut sim.peers {
        peer.faults.stalls = false;
    }
    sim.run_to_tip(&chain[299]);
}

#[test]
fn nobody_is_dropped_for_our_own_slowness() {
    let chain = chain(200);
    let mut sim = Sim::new(19, three(&chain), share);
    for _ in 0..6 {
        sim.busy = true;
        sim.run_for(Duration::from_secs(20));
        sim.busy = false;
        sim.run_for(Duration::from_millis(300));
    }
    sim.run_to_tip(&chain[199]);
    assert!(sim.dropped.is_empty(), "{:?}", sim.dropped);
}

#[test]
fn a_late_block_at_the_tip_is_asked_of_an_idle_peer() {
    let chain = chain(20);
    let mut peers = three(&chain);
    peers[0].faults.stalls = true;
    let mut sim = Sim::new(5, peers, |_| {});
    sim.run_to_tip(&chain[19]);
    assert!(sim.now.since(super::network::START) < Duration::from_secs(20));
    // Nobody was held up by the window, so nobody is dropped for it.
    assert!(sim.dropped.is_empty());
    sim.check_outputs();
}

/// Two that sent the blocks before it, and not this one, are not asked by turns while three others have it.
#[test]
fn a_late_block_is_asked_of_nobody_twice_while_there_are_others() {
    let long = chain(21);
    let mut peers: Vec<FakePeer> = (1..=5)
        .map(|port| FakePeer::new(port, long[..20].to_vec()))
        .collect();
    for peer in &mut peers[2..] {
        peer.faults.stalls = true;
    }
    let mut sim = Sim::new(40, peers, |_| {});
    sim.run_to_tip(&long[19]);
    for (place, peer) in sim.peers.iter_mut().enumerate() {
        peer.faults.stalls = place < 2;
        peer.chain = long.clone();
        peer.announce(1);
    }
    let before = sim.now;
    sim.run_to_tip(&long[20]);
    let took = sim.now.since(before);
    // 2 s for the first, and 4 for the second.
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[test]
fn the_only_peer_is_dropped_when_it_sends_no_block_for_two_minutes() {
    let chain = chain(20);
    let stalls = Faults {
        stalls: true,
        ..Faults::default()
    };
    let mut sim = Sim::new(
        6,
        vec![FakePeer::new(1, chain.clone()).with(stalls)],
        |_| {},
    );
    sim.run_until("dropped", 3 * MINUTE, |sim| !sim.dropped.is_empty());
    assert!(matches!(sim.dropped[0].1, DropReason::BlockTimeout));
    sim.peers[0].faults.stalls = false;
    sim.run_to_tip(&chain[19]);
}

#[test]
fn a_wrong_checksum_gets_a_peer_dropped_and_the_chain_goes_on_with_another() {
    let chain = chain(60);
    for frames_itself in [false, true] {
        let mut peers = three(&chain);
        peers[0].faults.spoils_checksums = true;
        let mut sim = Sim::new(7, peers, |_| {});
        sim.frames_itself = frames_itself;
        sim.run_to_tip(&chain[59]);
        let (addr, reason) = &sim.dropped[0];
        assert_eq!(*addr, sim.peers[0].addr);
        let DropReason::Misbehaviour(Misbehaviour::Wire(WireError::Checksum(command))) = reason
        else {
            panic!("{reason}")
        };
        assert_eq!(command.as_str(), "block");
    }
}

#[test]
fn a_mutated_block_gets_its_peer_dropped_and_condemns_nothing() {
    let chain = chain(120);
    let mut peers = three(&chain);
    peers[2].faults.mutates = true;
    let mut sim = Sim::new(8, peers, share);
    sim.run_to_tip(&chain[119]);
    let (addr, reason) = &sim.dropped[0];
    assert_eq!(*addr, sim.peers[2].addr);
    assert!(
        matches!(
            reason,
            DropReason::BadBlock {
                error: BadBlock::Mutated(_),
                ..
            }
        ),
        "{reason}"
    );
    sim.check_outputs();

    // The only peer there is: its header stays good, and the block is had once it mends its ways.
    let mutates = Faults {
        mutates: true,
        ..Faults::default()
    };
    let mut sim = Sim::new(
        9,
        vec![FakePeer::new(1, chain[..1].to_vec()).with(mutates)],
        |_| {},
    );
    sim.run_until("dropped", MINUTE, |sim| sim.dropped.len() == 2);
    assert_eq!(sim.sync.tree().invalid_reason(&chain[0].block_hash()), None);
    sim.peers[0].faults.mutates = false;
    sim.run_to_tip(&chain[0]);
}

#[test]
fn an_invalid_block_condemns_its_branch_and_the_next_best_is_followed() {
    let good = chain(30);
    let bad = fork(&good, 20, 15, 1);
    let mut peers = vec![
        FakePeer::new(1, bad.clone()),
        FakePeer::new(2, good.clone()),
    ];
    peers[1].start_height = Some(0);
    let mut sim = Sim::new(10, peers, |_| {});
    let culprit = bad[25].block_hash();
    sim.verdicts
        .insert(culprit, BadBlock::Invalid(Invalidity::NoInputs(1)));
    sim.run_until("the good branch", 2 * MINUTE, |sim| {
        sim.sync.tip().1 == good[29].block_hash()
    });
    let (addr, reason) = &sim.dropped[0];
    assert_eq!(*addr, sim.peers[0].addr);
    assert!(
        matches!(reason, DropReason::BadBlock { hash, error: BadBlock::Invalid(_) } if *hash == culprit)
    );
    assert!(
        sim.sync
            .tree()
            .invalid_reason(&bad[34].block_hash())
            .unwrap()
            .contains("has no inputs")
    );
    assert_eq!(sim.sync.best_header().1, good[29].block_hash());
    assert!(!sim.sync.tree().is_active(&bad[24].block_hash()));
    sim.check_outputs();
}

#[test]
fn a_block_that_its_coins_refuse_takes_the_tip_back() {
    let chain = chain(30);
    let mut sim = Sim::new(11, three(&chain), |_| {});
    sim.run_to_tip(&chain[29]);
    let hash = chain[24].block_hash();
    sim.sync
        .block_refused_by_coins(hash, "more out than in", sim.now);
    sim.settle();
    let last = *sim.tips.last().unwrap();
    assert_eq!(
        last,
        TipChange {
            fork_height: 24,
            height: 24,
            hash: chain[23].block_hash()
        }
    );
    assert_eq!(
        sim.sync.tree().invalid_reason(&hash).as_deref(),
        Some("more out than in")
    );
    // Whoever stays on that branch is of no use.
    sim.run_until("dropped", MINUTE, |sim| sim.dropped.len() >= 3);
    assert!(
        sim.dropped
            .iter()
            .all(|(_, reason)| matches!(reason, DropReason::BadHeader { .. }))
    );
    sim.check_outputs();
}

#[test]
fn a_connection_that_breaks_in_the_middle_of_a_block_is_made_again() {
    let chain = chain(80);
    for seed in 0..4 {
        let faults = Faults {
            cuts_block: Some(30),
            ..Faults::default()
        };
        let mut sim = Sim::new(
            seed,
            vec![FakePeer::new(1, chain.clone()).with(faults)],
            |_| {},
        );
        sim.run_to_tip(&chain[79]);
        assert_eq!(sim.connects.len(), 2);
        assert!(
            sim.events
                .iter()
                .any(|event| event.starts_with("disconnected"))
        );
        sim.check_outputs();
    }
}

#[test]
fn a_heavier_branch_that_appears_later_is_followed_from_the_fork() {
    let first = chain(40);
    let second = fork(&first, 30, 12, 1);
    for seed in 0..4 {
        let mut sim = Sim::new(seed, three(&first), |_| {});
        sim.run_to_tip(&first[39]);
        let before = sim.tips.len();
        for peer in &mut sim.peers {
            peer.chain = second.clone();
        }
        sim.peers[1].announce(1);
        sim.run_to_tip(&second[41]);
        assert_eq!(sim.tips[before].fork_height, 30);
        // As heavy as the old one is not enough to leave it.
        assert!(sim.tips[before].height > 40);
        assert_eq!(
            sim.sync
                .tree()
                .fork_point(&first[39].block_hash())
                .unwrap()
                .0,
            30
        );
        sim.check_outputs();
    }
}

#[test]
fn a_block_of_a_branch_that_was_left_is_not_waited_for() {
    let first = chain(40);
    let second = fork(&first, 30, 12, 1);
    let mut sim = Sim::new(18, vec![FakePeer::new(1, first[..39].to_vec())], |_| {});
    sim.run_to_tip(&first[38]);
    // The block is announced and asked for, and the peer leaves its branch before it has sent it.
    sim.peers[0].faults.stalls = true;
    sim.peers[0].chain = first.clone();
    sim.peers[0].announce(1);
    sim.run_until("asked", MINUTE, |sim| {
        sim.peers[0]
            .blocks_asked()
            .contains(&first[39].block_hash())
    });
    sim.peers[0].faults.stalls = false;
    sim.peers[0].chain = second.clone();
    sim.peers[0].announce(1);
    sim.run_to_tip(&second[41]);
    sim.run_for(5 * MINUTE);
    assert!(sim.dropped.is_empty(), "{:?}", sim.dropped);
    assert_eq!(sim.sync.peers()[0].inflight, 0);
}

#[test]
fn a_peer_with_few_blocks_is_asked_for_the_last_288_only() {
    let chain = chain(400);
    let mut peers = vec![
        FakePeer::new(1, chain.clone()),
        FakePeer::new(2, chain.clone()),
    ];
    peers[0].services = ServiceFlags::NETWORK_LIMITED | ServiceFlags::WITNESS;
    let mut sim = Sim::new(12, peers, |_| {});
    sim.run_to_tip(&chain[399]);
    let lowest = sim.peers[0]
        .blocks_asked()
        .iter()
        .map(|hash| sim.sync.height_of(hash).unwrap())
        .min();
    assert!(
        lowest.is_some_and(|height| height > 400 - 288),
        "{lowest:?}"
    );
}

#[test]
fn no_block_above_the_download_limit_is_asked_for() {
    let chain = chain(100);
    let mut sim = Sim::new(13, three(&chain), |config| config.download_window = 50);
    sim.sync.set_download_limit(Some(25), sim.now);
    sim.run_for(MINUTE);
    assert_eq!(sim.sync.tip().0, 25);
    assert_eq!(sim.blocks.len(), 25);
    // Being held back by us is no stall of theirs.
    assert!(sim.dropped.is_empty());
    sim.sync.set_download_limit(None, sim.now);
    sim.run_to_tip(&chain[99]);
}

#[test]
fn what_waits_for_a_busy_shell_is_bounded() {
    let chain = chain(200);
    let size = fixtures::raw(&chain[100]).len();
    let mut sim = Sim::new(14, three(&chain), |config| {
        config.max_unchecked_bytes = 20 * size
    });
    sim.busy = true;
    sim.run_for(MINUTE);
    let held = sim.held();
    assert!((1..=60).contains(&held), "{held} blocks wait");
    sim.busy = false;
    sim.run_to_tip(&chain[199]);
}

#[test]
fn a_peer_that_has_not_got_a_block_is_not_asked_for_it_again_and_again() {
    let chain = chain(30);
    let mut peers = vec![
        FakePeer::new(1, chain.clone()),
        FakePeer::new(2, chain.clone()),
    ];
    peers[0].faults.not_found = true;
    let mut sim = Sim::new(15, peers, |_| {});
    sim.run_to_tip(&chain[29]);
    assert!(sim.peers[0].blocks_asked().len() <= 30);
    assert!(sim.dropped.is_empty());
}

#[test]
fn a_peer_behind_our_headers_still_gives_the_blocks_it_has() {
    let chain = chain(50);
    let mut sim = Sim::new(16, vec![FakePeer::new(1, chain.clone())], |_| {});
    sim.busy = true;
    sim.run_until("headers", MINUTE, |sim| sim.sync.best_header().0 == 50);
    // It goes, and another comes that has thirty blocks.
    sim.peers[0].chain.truncate(30);
    sim.busy = false;
    sim.sleep(Duration::from_secs(3600));
    sim.run_until("thirty blocks", MINUTE, |sim| sim.sync.tip().0 >= 30);
}

#[test]
fn a_lost_block_is_fetched_again() {
    let chain = chain(20);
    let mut sim = Sim::new(17, three(&chain), |_| {});
    sim.run_to_tip(&chain[19]);
    sim.blocks.clear();
    sim.sync.block_lost(chain[9].block_hash(), sim.now);
    sim.settle();
    assert_eq!(sim.sync.tip().0, 9);
    sim.run_to_tip(&chain[19]);
    assert_eq!(sim.blocks, [(chain[9].block_hash(), 10)]);
    sim.check_outputs();
}

#[test]
fn blocks_that_the_shell_could_not_keep_are_asked_for_again() {
    let chain = chain(20);
    let mut sim = Sim::new(18, three(&chain), |_| {});
    sim.busy = true;
    sim.run_until("blocks", MINUTE, |sim| sim.waiting.len() >= 5);
    for lost in std::mem::take(&mut sim.waiting) {
        sim.sync.block_lost(lost.hash, sim.now);
    }
    sim.busy = false;
    sim.run_to_tip(&chain[19]);
    assert!(sim.dropped.is_empty());
}

#[test]
fn a_large_block_comes_in_pieces_and_from_another_peer_when_one_is_gone() {
    let chain = chain(12);
    let last = chain.last().unwrap().clone();
    let mut whole = Sim::new(3, vec![FakePeer::new(1, chain.clone())], |_| {});
    whole.run_to_tip(&last);
    assert_eq!(whole.pieces, 0);

    let mut broken = 0;
    for seed in 0..10 {
        let mut stalls = FakePeer::new(1, chain.clone());
        // It ends the connection in the middle of its third block.
        stalls.faults.cuts_block = Some(3);
        let peers = vec![stalls, FakePeer::new(2, chain.clone())];
        let mut sim = Sim::new(seed, peers, |config| {
            share(config);
            config.stream_above = 100;
        });
        sim.run_to_tip(&last);
        assert!(sim.pieces >= 12, "{}", sim.pieces);
        assert_eq!(sim.held(), 0);
        sim.check_outputs();
        broken += sim.broken;

        // A block that could not be kept is asked for again.
        sim.sync.block_lost(last.block_hash(), sim.now);
        sim.settle();
        sim.run_to_tip(&last);
    }
    assert!(broken >= 1);
}

/// One honest peer among three of all sorts, reorgs and sleeps between, and the shell now and then busy: the honest
/// chain wins, whatever the order.
#[test]
fn one_honest_peer_is_enough() {
    let seeds = std::env::var("BLOCKMILL_TEST_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok());
    for seed in 0..seeds.unwrap_or(20) {
        let mut chance = Chance(seed ^ 0x5eed);
        let honest = chain(60);
        let mut best = honest.clone();
        let mut peers = vec![FakePeer::new(1, honest.clone())];
        for port in 2..=4 {
            let faults = Faults {
                stalls: chance.below(4) == 0,
                silent_when_empty: chance.below(3) == 0,
                hides_headers: chance.below(6) == 0,
                mutates: chance.below(4) == 0,
                spoils_checksums: chance.below(6) == 0,
                forges_header: chance.below(6) == 0,
                cuts_block: (chance.below(3) == 0).then(|| 1 + chance.below(20) as u32),
                not_found: chance.below(6) == 0,
                shuffles: chance.below(2) == 0,
                ..Faults::default()
            };
            let keep = 1 + chance.below(60);
            peers.push(FakePeer::new(port, honest[..keep].to_vec()).with(faults));
        }
        let mut sim = Sim::new(seed, peers, |config| {
            share(config);
            config.block_timeout = Duration::from_secs(20);
            if seed % 2 == 1 {
                // Every block comes in pieces.
                config.stream_above = 100;
            }
        });
        for round in 0..4 {
            sim.busy = chance.below(2) == 0;
            sim.run_for(Duration::from_millis(chance.below(5_000) as u64));
            sim.busy = false;
            if chance.below(3) == 0 {
                sim.sleep(Duration::from_secs(chance.below(100) as u64));
            }
            let keep = best.len() - chance.below(10);
            let more = best.len() - keep + 1 + chance.below(5);
            best = fork(&best, keep, more as u32, round + 1);
            sim.peers[0].chain = best.clone();
            sim.peers[0].announce(1 + chance.below(3));
        }
        sim.run_to_tip(best.last().unwrap());
        sim.check_outputs();
        assert_eq!(
            sim.sync.tree().best_header().1,
            best.last().unwrap().block_hash()
        );
    }
}
