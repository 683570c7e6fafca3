//! Branches with little work: measured, not kept.

use std::time::Duration;

use bitcoin::Work;

use super::network::{FakePeer, Faults, Sim, chain, fork, params};
use crate::chain::sync::DropReason;
use crate::wire::message::Message;

const MINUTE: Duration = Duration::from_secs(60);

/// The work of a regtest chain of this height.
fn work(height: u32) -> Work {
    let step = params().genesis_header.work();
    (0..height).fold(step, |sum, _| sum + step)
}

fn headers_asked(peer: &FakePeer) -> usize {
    let asked = |message: &&Message| matches!(message, Message::GetHeaders(_));
    peer.heard.iter().filter(asked).count()
}

#[test]
fn a_long_branch_without_the_work_costs_no_memory_and_the_next_peer_is_asked() {
    let honest = chain(4_300);
    let liar = fork(&honest, 1, 4_200, 5);
    let mut peers = vec![FakePeer::new(1, liar), FakePeer::new(2, honest)];
    peers[1].reachable = false;
    let mut sim = Sim::new(11, peers, |config| {
        config.minimum_work = work(4_300);
        config.download_window = 1;
    });
    sim.busy = true;
    sim.run_until("the liar measured", MINUTE, |sim| {
        headers_asked(&sim.peers[0]) >= 3
    });
    assert_eq!(sim.sync.best_header().0, 0);
    assert_eq!(sim.sync.tree().len(), 1);
    sim.peers[1].reachable = true;
    sim.run_until("the honest headers", MINUTE, |sim| {
        sim.sync.best_header().0 == 4_300
    });
    assert_eq!(sim.sync.tree().len(), 4_301);
    assert_eq!(sim.headers.len(), 4_300);
    assert!(sim.dropped.is_empty());
}

#[test]
fn a_branch_with_enough_work_is_read_twice_and_kept_once() {
    let chain = chain(4_100);
    let mut sim = Sim::new(12, vec![FakePeer::new(1, chain)], |config| {
        config.minimum_work = work(4_050);
        config.download_window = 1;
    });
    sim.busy = true;
    sim.run_until("all headers", MINUTE, |sim| {
        sim.sync.best_header().0 == 4_100
    });
    // Three messages, and three again.
    assert_eq!(headers_asked(&sim.peers[0]), 6);
    assert_eq!(sim.headers.len(), 4_100);
}

#[test]
fn headers_that_change_between_the_readings_get_a_peer_dropped() {
    let first = chain(4_100);
    let second = fork(&first, 3, 4_097, 9);
    let mut sim = Sim::new(13, vec![FakePeer::new(1, first)], |config| {
        config.minimum_work = work(4_050);
    });
    sim.run_until("the first reading", MINUTE, |sim| {
        headers_asked(&sim.peers[0]) == 4
    });
    sim.peers[0].chain = second;
    // The question that is on its way is answered with the old ones.
    sim.run_until("dropped", MINUTE, |sim| !sim.dropped.is_empty());
    assert!(
        matches!(sim.dropped[0].1, DropReason::Presync(_)),
        "{}",
        sim.dropped[0].1
    );
    assert_eq!(sim.sync.tree().len(), 1);
}

#[test]
fn once_there_is_a_chain_a_branch_far_below_it_is_not_kept() {
    let best = chain(300);
    let mut sim = Sim::new(14, vec![FakePeer::new(1, best.clone())], |_| {});
    sim.run_to_tip(&best[299]);
    // 155 blocks: the work of a tip 145 blocks ago.
    sim.peers[0].chain = fork(&best, 5, 150, 3);
    sim.peers[0].announce(150);
    sim.run_for(Duration::from_secs(2));
    assert_eq!(sim.sync.tree().len(), 301);
    // One more is near enough, and may become the best.
    sim.peers[0].chain = fork(&best, 5, 151, 3);
    sim.peers[0].announce(151);
    sim.run_until("kept", MINUTE, |sim| sim.sync.tree().len() == 301 + 151);
    assert!(sim.dropped.is_empty());
    assert_eq!(sim.sync.best_header().0, 300);
}

#[test]
fn a_better_branch_from_far_below_is_followed() {
    let ours = chain(2_500);
    let theirs = fork(&ours, 10, 2_600, 4);
    let mut sim = Sim::new(15, vec![FakePeer::new(1, ours.clone())], |config| {
        config.download_window = 5_000;
    });
    sim.run_to_tip(&ours[2_499]);
    sim.peers[0].chain = theirs.clone();
    sim.peers[0].announce(1);
    sim.run_to_tip(&theirs[2_609]);
    assert!(sim.dropped.is_empty());
    sim.check_outputs();
}

#[test]
fn a_peer_whose_headers_never_end_makes_room_for_another() {
    let honest = chain(30);
    let mut slow = FakePeer::new(1, honest.clone()).with(Faults {
        hides_headers: true,
        ..Faults::default()
    });
    slow.start_height = Some(900_000);
    let mut other = FakePeer::new(2, honest.clone());
    other.reachable = false;
    let mut sim = Sim::new(16, vec![slow, other], |config| {
        config.headers_sync_timeout = Duration::from_secs(30);
        config.headers_timeout = Duration::from_secs(3_600);
    });
    sim.run_for(Duration::from_secs(2));
    sim.peers[1].reachable = true;
    // A millisecond for each of the 173,000 headers since the genesis, and 30 s.
    sim.run_until("the slow one dropped", Duration::from_secs(205), |sim| {
        !sim.dropped.is_empty()
    });
    assert!(matches!(
        sim.dropped[0].1,
        DropReason::HeadersSyncTimeout(_)
    ));
    sim.run_to_tip(&honest[29]);
}

#[test]
fn headers_that_were_announced_meanwhile_do_not_disturb_the_reading() {
    let chain = chain(4_100);
    let mut sim = Sim::new(17, vec![FakePeer::new(1, chain)], |config| {
        config.minimum_work = work(4_050);
        config.download_window = 1;
    });
    sim.busy = true;
    sim.run_until("some measured", MINUTE, |sim| {
        headers_asked(&sim.peers[0]) >= 2
    });
    sim.peers[0].announce(1);
    sim.run_until("all headers", MINUTE, |sim| {
        sim.sync.best_header().0 == 4_100
    });
    assert!(sim.dropped.is_empty());
}
