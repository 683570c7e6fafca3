//! Headers: from whom, how far, and what gets a peer dropped.

use std::time::Duration;

use bitcoin::p2p::message_blockdata::Inventory;

use super::network::{FakePeer, Faults, Sim, chain, fork};
use crate::chain::fixtures::mine_header;
use crate::chain::header_rules::HeaderError;
use crate::chain::sync::DropReason;
use crate::wire::message::Message;

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn headers_come_from_one_peer_and_then_from_all() {
    let chain = chain(4_500);
    let peers = vec![
        FakePeer::new(1, chain.clone()),
        FakePeer::new(2, chain.clone()),
    ];
    let mut sim = Sim::new(1, peers, |config| config.download_window = 10);
    sim.busy = true;
    sim.run_until("all headers", MINUTE, |sim| {
        sim.sync.best_header().0 == 4_500
    });
    sim.run_for(Duration::from_secs(2));
    assert_eq!(sim.headers.len(), 4_500);
    let asked = |peer: &FakePeer| {
        peer.heard
            .iter()
            .filter(|message| matches!(message, Message::GetHeaders(_)))
            .count()
    };
    // 2,000, 2,000, 500 from one; one question to the other, which shows that it has the same tip.
    let mut questions = [asked(&sim.peers[0]), asked(&sim.peers[1])];
    questions.sort_unstable();
    assert_eq!(questions, [1, 3]);
    assert_eq!(
        sim.sync
            .peers()
            .iter()
            .map(|peer| peer.height)
            .collect::<Vec<_>>(),
        [4_500, 4_500]
    );
    sim.check_outputs();
}

#[test]
fn a_peer_that_sends_a_bad_header_is_dropped_and_the_rest_goes_on() {
    let chain = chain(50);
    let peers = vec![
        FakePeer::new(1, chain.clone()).with(Faults {
            forges_header: true,
            ..Faults::default()
        }),
        FakePeer::new(2, chain.clone()),
    ];
    let mut sim = Sim::new(2, peers, |_| {});
    sim.run_to_tip(&chain[49]);
    sim.run_until("the forger dropped", MINUTE, |sim| !sim.dropped.is_empty());
    let (addr, reason) = &sim.dropped[0];
    assert_eq!(*addr, sim.peers[0].addr);
    assert!(
        matches!(
            reason,
            DropReason::BadHeader {
                error: HeaderError::BadProofOfWork(_),
                ..
            }
        ),
        "{reason}"
    );
    // What came before the bad one was good, and is kept.
    assert_eq!(sim.sync.best_header().0, 50);
    sim.check_outputs();
}

#[test]
fn headers_that_do_not_follow_one_another_get_a_peer_dropped() {
    let chain = chain(10);
    let mut sim = Sim::new(3, vec![FakePeer::new(1, chain.clone())], |_| {});
    sim.run_to_tip(&chain[9]);
    let header = |n: usize| chain[n].header;
    sim.peers[0].say(&Message::Headers(vec![header(3), header(5)]));
    sim.run_until("dropped", MINUTE, |sim| !sim.dropped.is_empty());
    assert!(matches!(sim.dropped[0].1, DropReason::BrokenHeaders));
}

#[test]
fn headers_without_a_known_parent_are_asked_for_from_below_but_not_for_ever() {
    let long = chain(30);
    let mut sim = Sim::new(4, vec![FakePeer::new(1, long[..10].to_vec())], |_| {});
    sim.run_to_tip(&long[9]);
    sim.run_for(Duration::from_secs(7));
    // The peer gets twenty blocks and announces only the last.
    sim.peers[0].chain = long.clone();
    sim.peers[0].announce(1);
    sim.run_to_tip(&long[29]);
    assert!(sim.dropped.is_empty());
    // Announcements of a chain that it never shows.
    sim.peers[0].faults.hides_headers = true;
    let stranger = mine_header(
        &mine_header(&long[0].header, |header| header.time += 1),
        |_| {},
    );
    for _ in 0..12 {
        sim.peers[0].say(&Message::Headers(vec![stranger]));
        sim.run_for(Duration::from_secs(6));
    }
    sim.run_until("dropped", MINUTE, |sim| !sim.dropped.is_empty());
    assert!(matches!(sim.dropped[0].1, DropReason::UnconnectedHeaders));
}

#[test]
fn an_announcement_by_inv_is_followed_too() {
    let long = chain(12);
    let mut sim = Sim::new(5, vec![FakePeer::new(1, long[..10].to_vec())], |_| {});
    sim.run_to_tip(&long[9]);
    sim.run_until("synced", MINUTE, |sim| sim.sync.synced(sim.now));
    sim.peers[0].chain = long.clone();
    sim.peers[0].say(&Message::Inv(vec![Inventory::Block(long[11].block_hash())]));
    sim.run_to_tip(&long[11]);
    // Fetching a block is no outage.
    assert!(sim.sync.synced(sim.now));
}

#[test]
fn a_peer_that_sends_nothing_where_it_has_nothing_counts_as_having_nothing() {
    let chain = chain(20);
    let quiet = Faults {
        silent_when_empty: true,
        ..Faults::default()
    };
    let mut sim = Sim::new(
        6,
        vec![FakePeer::new(1, chain.clone()).with(quiet.clone())],
        |_| {},
    );
    sim.run_to_tip(&chain[19]);
    sim.run_until("synced", Duration::from_secs(10), |sim| {
        sim.sync.synced(sim.now)
    });

    // Both at the genesis.
    let mut peer = FakePeer::new(1, Vec::new()).with(quiet);
    peer.start_height = Some(0);
    let mut sim = Sim::new(7, vec![peer], |_| {});
    sim.run_for(Duration::from_secs(2));
    assert!(!sim.sync.synced(sim.now));
    sim.run_until("synced", Duration::from_secs(10), |sim| {
        sim.sync.synced(sim.now)
    });
    assert!(sim.dropped.is_empty());
}

#[test]
fn a_peer_that_claims_more_and_shows_nothing_is_not_the_tip_and_is_dropped_when_it_does_not_answer()
{
    // Below its own minimum chain work: it answers, with nothing.
    let mut peer = FakePeer::new(1, Vec::new());
    peer.start_height = Some(500);
    let mut sim = Sim::new(8, vec![peer], |_| {});
    sim.run_for(MINUTE);
    assert!(!sim.sync.synced(sim.now));
    assert!(sim.dropped.is_empty());
    // It has caught up.
    let chain = chain(500);
    sim.peers[0].chain = chain.clone();
    sim.run_to_tip(&chain[499]);
    sim.run_until("synced", MINUTE, |sim| sim.sync.synced(sim.now));

    let silent = Faults {
        hides_headers: true,
        ..Faults::default()
    };
    let mut sim = Sim::new(9, vec![FakePeer::new(1, chain).with(silent)], |_| {});
    sim.run_until("dropped", 2 * MINUTE, |sim| !sim.dropped.is_empty());
    assert!(matches!(sim.dropped[0].1, DropReason::HeadersTimeout));
}

#[test]
fn a_branch_below_the_minimum_work_is_not_downloaded() {
    let short = chain(20);
    let long = fork(&short, 5, 60, 1);
    let work = long.iter().fold(
        super::network::params().genesis_header.work(),
        |work, block| work + block.header.work(),
    );
    let mut sim = Sim::new(10, vec![FakePeer::new(1, short)], |config| {
        config.minimum_work = work
    });
    sim.run_for(5 * MINUTE);
    assert_eq!(sim.sync.best_header().0, 0);
    assert!(sim.peers[0].blocks_asked().is_empty());
    assert!(!sim.sync.synced(sim.now));
    sim.peers[0].chain = long.clone();
    sim.run_to_tip(&long[64]);
    sim.run_until("synced", MINUTE, |sim| sim.sync.synced(sim.now));
}

#[test]
fn a_flood_of_headers_beside_the_best_branch_gets_a_peer_dropped() {
    let main = chain(3);
    let mut sim = Sim::new(11, vec![FakePeer::new(1, main.clone())], |config| {
        config.download_window = 1
    });
    sim.run_until("headers", MINUTE, |sim| sim.sync.best_header().0 == 3);
    // Thousands of different headers at height 1: each costs one hash.
    let genesis = super::network::params().genesis_header;
    let mut time = genesis.time + 1;
    sim.busy = true;
    while sim.dropped.is_empty() {
        assert!(
            time < genesis.time + 200_000,
            "not dropped after {} headers",
            sim.sync.tree().len()
        );
        for _ in 0..1000 {
            time += 1;
            let header = mine_header(&genesis, |header| header.time = time);
            let message = super::network::raw_message(&Message::Headers(vec![header]));
            if let Some(id) = sim.id_of(0) {
                sim.sync.received_raw(id, message, sim.now);
            }
            sim.settle();
        }
    }
    assert!(matches!(sim.dropped[0].1, DropReason::HeaderFlood));
    assert!(sim.sync.tree().len() < 61_010);
}

#[test]
fn a_stale_tip_has_all_peers_asked_again() {
    let chain = chain(10);
    let mut sim = Sim::new(
        12,
        vec![
            FakePeer::new(1, chain.clone()),
            FakePeer::new(2, chain.clone()),
        ],
        |_| {},
    );
    sim.run_to_tip(&chain[9]);
    sim.run_for(MINUTE);
    let longer = fork(&chain, 10, 1, 5);
    // Found, and not announced.
    for peer in &mut sim.peers {
        peer.chain = longer.clone();
        peer.heard.clear();
    }
    sim.run_until("asked again", 21 * MINUTE, |sim| sim.sync.tip().0 == 11);
}

#[test]
fn a_header_from_the_future_is_passed_over_without_blame() {
    let chain = chain(10);
    let mut sim = Sim::new(13, vec![FakePeer::new(1, chain.clone())], |_| {});
    sim.run_to_tip(&chain[9]);
    let time = u32::try_from(sim.now.secs()).unwrap() + 3 * 60 * 60;
    let early = mine_header(&chain[9].header, |header| header.time = time);
    sim.peers[0].say(&Message::Headers(vec![early]));
    sim.run_for(Duration::from_secs(10));
    assert!(sim.dropped.is_empty());
    assert_eq!(sim.sync.best_header().0, 10);
}

#[test]
fn at_the_tip_peers_are_asked_for_headers_now_and_then_and_not_again_and_again() {
    let long = chain(300);
    let questions = |claims: &[Option<i32>], silent: bool| {
        let peers = claims.iter().enumerate().map(|(n, claim)| {
            let mut peer = FakePeer::new(n as u16 + 1, long.clone()).with(Faults {
                silent_when_empty: silent,
                ..Faults::default()
            });
            peer.start_height = *claim;
            peer
        });
        let mut sim = Sim::new(77, peers.collect(), |_| {});
        sim.run_to_tip(&long[299]);
        let count = |peer: &FakePeer| {
            let heard = peer.heard.iter();
            heard
                .filter(|message| matches!(message, Message::GetHeaders(_)))
                .count()
        };
        let before: Vec<usize> = sim.peers.iter().map(count).collect();
        sim.coast(60 * MINUTE);
        assert_eq!(sim.sync.tip().0, 300);
        let after = sim.peers.iter().map(count);
        let asked: Vec<usize> = after
            .zip(before)
            .map(|(after, before)| after - before)
            .collect();
        println!("{claims:?} silent {silent}: {asked:?}");
        asked
    };
    // Bitcoin SV nodes drop who asks them for the tip again and again. No block comes in this hour, so every peer is asked
    // when the tip is stale, each twenty minutes; one that claims more than it has, a few times more before its claim counts for
    // nothing.
    for silent in [false, true] {
        for asked in questions(&[None, None, None], silent) {
            assert!(asked <= 4, "{asked} questions in an hour");
        }
        for asked in questions(&[Some(1_000_000), Some(301), None], silent) {
            assert!(asked <= 8, "{asked} questions in an hour");
        }
    }
}
