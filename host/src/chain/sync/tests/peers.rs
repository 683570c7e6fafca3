//! Connections: made, lost, made again, and what they are told.

use std::time::Duration;

use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::message_blockdata::Inventory;
use proptest::prelude::*;

use super::network::{Chance, FakePeer, MAGIC, Sim, chain, fork, raw_message};
use crate::chain::sync::{DropReason, PeerId};
use crate::wire::codec::encode_frame;
use crate::wire::message::{Locator, Message};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_machine_that_slept_drops_everyone_and_connects_again_at_once() {
    let chain = chain(20);
    let peers = vec![
        FakePeer::new(1, chain.clone()),
        FakePeer::new(2, chain.clone()),
    ];
    let mut sim = Sim::new(1, peers, |_| {});
    sim.run_to_tip(&chain[19]);
    sim.connects.clear();
    // A pause within reason is nothing.
    sim.sleep(Duration::from_secs(29));
    assert!(sim.dropped.is_empty());
    // Meanwhile the network went on.
    let longer = fork(&chain, 20, 5, 3);
    for peer in &mut sim.peers {
        peer.chain = longer.clone();
    }
    sim.sleep(Duration::from_secs(8 * 60 * 60));
    assert_eq!(sim.dropped.len(), 2);
    assert!(
        sim.dropped
            .iter()
            .all(|(_, reason)| matches!(reason, DropReason::Slept(_)))
    );
    assert!(!sim.dropped[0].1.is_fault());
    assert!(sim.connects.iter().all(|(_, at)| *at == sim.now));
    assert_eq!(sim.connects.len(), 2);
    assert!(!sim.sync.synced(sim.now));
    sim.run_to_tip(&longer[24]);
    sim.run_until("synced", MINUTE, |sim| sim.sync.synced(sim.now));
}

#[test]
fn a_peer_that_is_not_there_is_tried_again_until_it_is() {
    let chain = chain(5);
    let mut peer = FakePeer::new(1, chain.clone());
    peer.reachable = false;
    let mut sim = Sim::new(2, vec![peer], |_| {});
    sim.run_for(MINUTE);
    let tries = sim.connects.len();
    assert!((5..=7).contains(&tries), "{tries} in a minute");
    sim.peers[0].reachable = true;
    sim.run_to_tip(&chain[4]);
}

#[test]
fn no_more_peers_are_connected_to_than_wanted() {
    let chain = chain(5);
    let peers = (1..=6)
        .map(|port| FakePeer::new(port, chain.clone()))
        .collect();
    let mut sim = Sim::new(3, peers, |config| config.max_outbound = 2);
    sim.run_for(MINUTE);
    assert_eq!(sim.sync.peers().len(), 2);
    let id = sim.id_of(0).unwrap();
    sim.peers[0].reachable = false;
    sim.sync.disconnected(id, sim.now);
    sim.run_for(MINUTE);
    assert_eq!(sim.sync.peers().len(), 2);
}

#[test]
fn the_status_of_a_peer_says_what_it_said() {
    let chain = chain(7);
    let mut sim = Sim::new(4, vec![FakePeer::new(9, chain.clone())], |config| {
        config.message_events = true
    });
    sim.run_to_tip(&chain[6]);
    let peers = sim.sync.peers();
    let peer = &peers[0];
    assert_eq!(
        (peer.user_agent.as_str(), peer.start_height, peer.height),
        ("/fake:1/", 7, 7)
    );
    assert!(peer.ready && peer.outbound && peer.bytes_in > 1_000 && peer.bytes_out > 100);
    assert_eq!((peer.addr.port(), peer.inflight), (9, 0));
    for event in [
        "connected outbound",
        "ready /fake:1/ v1 version 70016",
        "received headers 7 to",
        "sent getdata",
    ] {
        assert!(
            sim.events.iter().any(|line| line.starts_with(event)),
            "{event} in {:?}",
            sim.events
        );
    }
}

#[test]
fn what_we_do_not_serve_is_answered_with_nothing() {
    let chain = chain(5);
    let mut sim = Sim::new(5, vec![FakePeer::new(1, chain.clone())], |_| {});
    sim.run_to_tip(&chain[4]);
    let item = Inventory::Block(chain[0].block_hash());
    sim.peers[0].heard.clear();
    sim.peers[0].say(&Message::GetHeaders(Locator::from_hashes(vec![
        chain[0].block_hash(),
    ])));
    sim.peers[0].say(&Message::GetData(vec![item]));
    sim.run_for(MINUTE);
    assert!(sim.peers[0].heard.contains(&Message::Headers(Vec::new())));
    assert!(sim.peers[0].heard.contains(&Message::NotFound(vec![item])));
}

#[test]
fn a_peer_that_is_known_no_more_is_passed_over() {
    let mut sim = Sim::new(6, vec![FakePeer::new(1, chain(5))], |_| {});
    let (stranger, now) = (PeerId(99), sim.now);
    sim.sync.disconnected(stranger, now);
    sim.sync.received(stranger, &[1, 2, 3], now);
    sim.sync
        .received_raw(stranger, raw_message(&Message::Verack), now);
    sim.sync
        .block_checked(chain(1)[0].block_hash(), Ok(()), now);
    assert!(sim.sync.next_output().is_none());
}

#[test]
fn a_peer_that_connects_to_us_is_asked_for_what_it_serves_and_not_connected_to() {
    let chain = chain(10);
    for (services, asked) in [
        (ServiceFlags::NONE, false),
        (ServiceFlags::NETWORK, false),
        (ServiceFlags::NETWORK | ServiceFlags::WITNESS, true),
    ] {
        let mut sim = Sim::new(7, vec![FakePeer::new(1, chain.clone())], |config| {
            config.connect.clear();
        });
        sim.peers[0].services = services;
        sim.connect_inbound(0);
        sim.run_for(MINUTE);
        assert_eq!(sim.sync.best_header().0, 10);
        assert_eq!(!sim.peers[0].blocks_asked().is_empty(), asked);
        assert_eq!(sim.sync.tip().0, if asked { 10 } else { 0 });
        let id = sim.id_of(0).unwrap();
        sim.sync.disconnected(id, sim.now);
        sim.run_for(MINUTE);
        assert!(sim.connects.is_empty());
    }
}

/// A message of some kind with a payload of some bytes.
fn anything(chance: &mut Chance) -> Vec<u8> {
    let commands = [
        "version",
        "verack",
        "wtxidrelay",
        "ping",
        "pong",
        "feefilter",
        "addr",
        "addrv2",
        "inv",
        "getdata",
        "notfound",
        "getheaders",
        "headers",
        "block",
        "tx",
        "nonsense",
    ];
    let command = commands[chance.below(commands.len())];
    let mut payload: Vec<u8> = (0..chance.below(200))
        .map(|_| chance.next() as u8)
        .collect();
    if chance.below(2) == 0
        && let Some(first) = payload.first_mut()
    {
        *first %= 4;
    }
    encode_frame(MAGIC, command, &payload).to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_peers_send_the_chain_goes_on_with_the_others(seed in any::<u64>()) {
        let chain = chain(20);
        let peers = vec![FakePeer::new(1, chain.clone()), FakePeer::new(2, chain.clone())];
        let mut sim = Sim::new(seed, peers, |_| {});
        for _ in 0..40 {
            for _ in 0..10 {
                sim.step();
            }
            let bytes = if sim.chance.below(8) == 0 { vec![sim.chance.next() as u8; 40] } else { anything(&mut sim.chance.clone()) };
            sim.chance.next();
            sim.peers[0].say_bytes(&bytes);
        }
        sim.run_to_tip(&chain[19]);
        sim.check_outputs();
    }
}
