//! Peers that are chosen from the book: which, how many, and what becomes of those that lie, flood or are not there.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::Block;
use bitcoin::hashes::Hash;
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::address::{AddrV2, AddrV2Message};
use bitcoin::p2p::message_blockdata::Inventory;

use super::network::{Chance, FakePeer, Sim, chain, fork, params};
use crate::chain::header_tree::HeaderTree;
use crate::chain::sync::book::{BookFile, Group, NetAddress, Place};
use crate::chain::sync::{
    ConnectionKind, DropReason, PeerChange, PeerChangeError, PeerRef, Sync, SyncConfig,
};
use crate::wire::Moment;
use crate::wire::codec::encode_frame;
use crate::wire::message::Message;

mod bans;
mod gossip;

const SECOND: Duration = Duration::from_secs(1);

const MINUTE: Duration = Duration::from_secs(60);

const HOUR: Duration = Duration::from_secs(60 * 60);

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// An address in the nth /16.
fn public(n: usize) -> SocketAddr {
    SocketAddr::from(([20 + (n / 200) as u8, (n % 200) as u8, 7, 7], 18_444))
}

fn peers_at(addrs: &[SocketAddr], chain: &[Block]) -> Vec<FakePeer> {
    let peers = addrs.iter().map(|addr| {
        let mut peer = FakePeer::new(1, chain.to_vec());
        peer.addr = *addr;
        peer
    });
    peers.collect()
}

fn know(sim: &mut Sim, addrs: &[SocketAddr]) {
    let now = sim.now;
    // A name each, or the secret places of a single source would be too few.
    for (n, addr) in addrs.iter().enumerate() {
        sim.sync.seeded(&format!("seed {n}"), &[*addr], now);
    }
}

/// A network where nobody is named: peers at these addresses, all in the book.
fn sim(
    seed: u64,
    addrs: &[SocketAddr],
    chain: &[Block],
    configure: impl FnOnce(&mut SyncConfig),
) -> Sim {
    let mut sim = Sim::new(seed, peers_at(addrs, chain), |config| {
        config.connect.clear();
        configure(config);
    });
    know(&mut sim, addrs);
    sim
}

fn kinds(sim: &Sim, kind: ConnectionKind) -> Vec<SocketAddr> {
    let peers = sim.sync.peers();
    let of_kind = peers.iter().filter(|peer| peer.kind == kind && peer.ready);
    of_kind.map(|peer| peer.addr).collect()
}

fn many(count: usize) -> Vec<SocketAddr> {
    (0..count).map(public).collect()
}

/// An `addrv2` message with addresses that nobody knows.
fn told(salt: u64, count: usize) -> Message {
    let mut chance = Chance(salt);
    let addresses = (0..count).map(|_| AddrV2Message {
        time: 1_400_000_000,
        services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
        addr: AddrV2::Ipv4(std::net::Ipv4Addr::from(
            0x5000_0000 + (chance.next() as u32 >> 4),
        )),
        port: 8_333,
    });
    Message::AddrV2(addresses.collect())
}

/// How often a peer was told something.
fn heard(sim: &Sim, wanted: &Message) -> usize {
    let peers = sim.peers.iter();
    peers
        .map(|peer| {
            peer.heard
                .iter()
                .filter(|message| *message == wanted)
                .count()
        })
        .sum()
}

#[test]
fn eight_full_peers_and_two_for_blocks_are_kept_each_in_a_group_of_its_own() {
    let chain = chain(20);
    // Three addresses in each of thirty groups.
    let addrs: Vec<SocketAddr> = (0..90)
        .map(|n| SocketAddr::from(([30, (n % 30) as u8, 1, n as u8], 18_444)))
        .collect();
    let mut sim = sim(1, &addrs, &chain, |_| {});
    sim.run_until("ten peers", MINUTE, |sim| {
        kinds(sim, ConnectionKind::Full).len() == 8
            && kinds(sim, ConnectionKind::BlockOnly).len() == 2
    });
    sim.run_to_tip(&chain[19]);
    sim.coast(5 * MINUTE);
    let kept: Vec<SocketAddr> = sim
        .sync
        .peers()
        .iter()
        .filter(|peer| peer.kind != ConnectionKind::Feeler)
        .map(|peer| peer.addr)
        .collect();
    assert_eq!(kept.len(), 10);
    let groups: BTreeSet<Group> = kept
        .iter()
        .map(|addr| NetAddress::ip(*addr).group())
        .collect();
    assert_eq!(groups.len(), 10);
    // One that goes is replaced by another.
    let gone = sim
        .peers
        .iter()
        .position(|peer| peer.addr == kept[0])
        .unwrap();
    let id = sim.id_of(gone).unwrap();
    sim.peers[gone].reachable = false;
    let now = sim.now;
    sim.sync.disconnected(id, now);
    sim.run_until("ten peers again", MINUTE, |sim| {
        kinds(sim, ConnectionKind::Full).len() + kinds(sim, ConnectionKind::BlockOnly).len() == 10
    });
    sim.check_outputs();
}

#[test]
fn block_only_peers_hear_of_no_transactions_and_no_addresses() {
    let chain = chain(10);
    let mut sim = sim(2, &many(30), &chain, |_| {});
    sim.run_to_tip(&chain[9]);
    sim.run_until("ten peers", MINUTE, |sim| {
        kinds(sim, ConnectionKind::BlockOnly).len() == 2
    });
    sim.run_for(MINUTE);
    let block_only = kinds(&sim, ConnectionKind::BlockOnly);
    let full = kinds(&sim, ConnectionKind::Full);
    for peer in &sim.peers {
        let relay = peer.heard.iter().find_map(|message| match message {
            Message::Version(version) => Some(version.relay),
            _ => None,
        });
        let asked = peer
            .heard
            .iter()
            .filter(|m| **m == Message::GetAddr)
            .count();
        if block_only.contains(&peer.addr) {
            assert_eq!((relay, asked), (Some(false), 0));
        } else if full.contains(&peer.addr) {
            assert_eq!((relay, asked), (Some(true), 1), "asked once");
        }
    }
    // What it announces all the same is not asked for, and what it tells is not believed.
    let at = sim
        .peers
        .iter()
        .position(|peer| peer.addr == block_only[0])
        .unwrap();
    let before = sim.sync.book().len();
    sim.peers[at].say(&Message::Inv(vec![Inventory::WTx(
        bitcoin::Wtxid::all_zeros(),
    )]));
    sim.peers[at].say(&told(1, 500));
    sim.run_for(MINUTE);
    assert!(sim.peers[at].transactions_asked().is_empty());
    assert_eq!(sim.sync.book().len(), before);
}

#[test]
fn a_feeler_tests_an_address_that_was_only_heard_of_and_goes() {
    let chain = chain(5);
    let addrs = many(60);
    let mut sim = sim(6, &addrs, &chain, |config| {
        config.max_outbound = 2;
        config.max_block_only = 1;
        config.stale_tip = 1_000 * HOUR;
    });
    sim.run_until("three peers", MINUTE, |sim| {
        kinds(sim, ConnectionKind::BlockOnly).len() == 1
    });
    let tried = sim.sync.book().counts().tried;
    sim.coast(2 * HOUR);
    let tested = sim.sync.book().counts().tried - tried;
    // One every two minutes on average.
    assert!((25..=57).contains(&tested), "{tested} in two hours");
    let feelers = sim
        .dropped
        .iter()
        .filter(|(_, why)| matches!(why, DropReason::FeelerDone));
    assert!(feelers.count() >= tested);
    assert!(sim.dropped.iter().all(|(_, why)| !why.is_fault()));
    assert_eq!(sim.sync.peers().len(), 3);
    // It is asked for nothing.
    let kept = [
        kinds(&sim, ConnectionKind::Full),
        kinds(&sim, ConnectionKind::BlockOnly),
    ]
    .concat();
    for peer in sim.peers.iter().filter(|peer| !kept.contains(&peer.addr)) {
        assert!(peer.blocks_asked().is_empty() && !peer.heard.contains(&Message::GetAddr));
    }
}

#[test]
fn anchors_are_kept_over_a_restart_and_tried_first() {
    let chain = chain(5);
    let addrs = many(40);
    let mut sim = sim(7, &addrs, &chain, |_| {});
    sim.run_until("two anchors", MINUTE, |sim| {
        kinds(sim, ConnectionKind::BlockOnly).len() == 2
    });
    let anchors: BTreeSet<_> = kinds(&sim, ConnectionKind::BlockOnly).into_iter().collect();
    let bytes = sim.sync.book_file();

    let mut again = Sim::new(8, peers_at(&addrs, &chain), |config| config.connect.clear());
    again
        .sync
        .restore_book(BookFile::decode("regtest", &bytes).unwrap());
    again.now = sim.now;
    again.run_for(5 * SECOND);
    let first: BTreeSet<_> = again
        .connects
        .iter()
        .take(2)
        .map(|(addr, _)| *addr)
        .collect();
    assert_eq!(first, anchors);
    assert_eq!(kinds(&again, ConnectionKind::BlockOnly).len(), 2);
    // A restart before any of them was connected to loses none.
    let mut early = Sim::new(9, peers_at(&addrs, &chain), |config| config.connect.clear());
    early
        .sync
        .restore_book(BookFile::decode("regtest", &bytes).unwrap());
    let kept = BookFile::decode("regtest", &early.sync.book_file())
        .unwrap()
        .anchors;
    assert_eq!(
        kept.iter().map(NetAddress::handle).collect::<BTreeSet<_>>(),
        anchors
    );
}

#[test]
fn peers_that_are_added_come_beside_the_chosen_ones_and_named_ones_are_the_only_ones() {
    let chain = chain(5);
    let added = public(50);
    let mut addrs = many(20);
    let mut beside = {
        addrs.push(added);
        let mut sim = Sim::new(13, peers_at(&addrs, &chain), |config| {
            config.connect.clear()
        });
        know(&mut sim, &addrs[..20]);
        sim
    };
    let now = beside.now;
    beside.sync.add_peer(NetAddress::ip(added), now);
    beside.run_until("all", MINUTE, |sim| {
        kinds(sim, ConnectionKind::Full).len() == 8
            && kinds(sim, ConnectionKind::BlockOnly).len() == 2
            && kinds(sim, ConnectionKind::Manual) == [added]
    });

    let mut only = Sim::new(14, peers_at(&addrs, &chain), |config| {
        config.connect = vec![public(3)]
    });
    know(&mut only, &addrs);
    only.run_until("the named one", MINUTE, |sim| {
        kinds(sim, ConnectionKind::Manual).len() == 1
    });
    only.peers[3].say(&told(1, 100));
    only.coast(HOUR);
    assert_eq!(only.connects.len(), 1);
    assert_eq!(heard(&only, &Message::GetAddr), 0);
}

#[test]
fn when_the_tip_is_stale_another_peer_is_tried_and_the_one_with_the_oldest_news_goes() {
    let old = chain(20);
    let addrs = many(40);
    let mut sim = sim(15, &addrs, &old, |config| {
        config.max_outbound = 4;
        config.stale_tip = 20 * MINUTE;
        // Feelers would find the others too.
        config.feeler_interval = 10_000 * HOUR;
    });
    sim.run_until("six peers", MINUTE, |sim| {
        kinds(sim, ConnectionKind::Full).len() == 4
            && kinds(sim, ConnectionKind::BlockOnly).len() == 2
    });
    sim.run_to_tip(&old[19]);
    let silent = kinds(&sim, ConnectionKind::Full);
    // The network went on, and none of our peers says so.
    let new = fork(&old, 20, 6, 9);
    for index in 0..sim.peers.len() {
        if sim.id_of(index).is_none() {
            sim.peers[index].chain = new.clone();
        }
    }
    sim.coast(15 * MINUTE);
    assert_eq!(sim.sync.tip().0, 20, "nobody knows better");
    assert_eq!(kinds(&sim, ConnectionKind::Full).len(), 4);
    sim.coast(25 * MINUTE);
    assert_eq!(sim.sync.tip().0, 26);
    sim.run_until("four peers", 5 * MINUTE, |sim| {
        kinds(sim, ConnectionKind::Full).len() == 4
    });
    let extra: Vec<_> = sim
        .dropped
        .iter()
        .filter(|(_, why)| matches!(why, DropReason::TooManyPeers))
        .map(|(addr, _)| *addr)
        .collect();
    assert!(extra.len() == 1 && silent.contains(&extra[0]), "{extra:?}");
    sim.coast(HOUR / 4);
    assert_eq!(
        kinds(&sim, ConnectionKind::Full).len(),
        4,
        "and no more are tried"
    );
}

#[test]
fn the_book_remembers_what_became_of_each_and_named_peers_too() {
    let chain = chain(5);
    let mut sim = Sim::new(23, peers_at(&[public(1)], &chain), |config| {
        config.connect.clear();
    });
    let now = sim.now;
    sim.sync.add_peer(NetAddress::ip(public(1)), now);
    sim.peers[0].reachable = false;
    sim.run_for(10 * SECOND);
    let why = |sim: &Sim| {
        sim.sync
            .book()
            .get(&public(1))
            .unwrap()
            .dropped
            .clone()
            .unwrap()
            .1
    };
    assert_eq!(why(&sim), "no connection");
    sim.peers[0].reachable = true;
    sim.run_until("the peer", MINUTE, |sim| {
        kinds(sim, ConnectionKind::Manual).len() == 1
    });
    let record = sim.sync.book().get(&public(1)).unwrap();
    assert!(matches!(record.place, Place::Tried(_)) && record.good == record.seen);
    let id = sim.id_of(0).unwrap();
    let now = sim.now;
    sim.sync.disconnected(id, now);
    assert_eq!(why(&sim), "closed by the peer");
}

#[test]
fn after_a_sleep_the_same_peers_are_connected_to_anew_and_nobody_is_blamed() {
    let chain = chain(20);
    let mut sim = sim(24, &many(40), &chain, |_| {});
    sim.run_until("ten peers", MINUTE, |sim| {
        kinds(sim, ConnectionKind::BlockOnly).len() == 2
    });
    sim.run_to_tip(&chain[19]);
    for jump in [8 * 3_600_i64, -5 * 3_600] {
        sim.dropped.clear();
        sim.connects.clear();
        let before = sim.sync.peers().len();
        let had = |sim: &Sim| -> BTreeSet<_> {
            let peers = sim.sync.peers();
            peers.iter().map(|peer| (peer.addr, peer.kind)).collect()
        };
        let same = had(&sim);
        sim.now = Moment((sim.now.0 as i64 + jump * 1_000) as u64);
        sim.sleep(Duration::ZERO);
        assert_eq!(sim.dropped.len(), before);
        assert!(
            sim.dropped
                .iter()
                .all(|(_, why)| matches!(why, DropReason::Slept(_)))
        );
        sim.run_until("ten peers again", 2 * MINUTE, |sim| {
            kinds(sim, ConnectionKind::Full).len() == 8
                && kinds(sim, ConnectionKind::BlockOnly).len() == 2
        });
        assert_eq!(sim.sync.bans().holding(sim.now.secs()).count(), 0);
        let twice: BTreeSet<_> = sim.sync.peers().iter().map(|peer| peer.addr).collect();
        assert_eq!(twice.len(), sim.sync.peers().len());
        assert_eq!(had(&sim), same);
        sim.run_until("synced", MINUTE, |sim| sim.sync.synced(sim.now));
    }
}

#[test]
fn a_connection_that_came_about_before_the_sleep_is_not_used_after_it() {
    let chain = chain(5);
    let mut sim = sim(25, &many(1), &chain, |_| {});
    // The machine wants it, and slept before the shell could say that it came about.
    let mut sync = Sync::new(
        SyncConfig::new(params()),
        params(),
        HeaderTree::new(params()),
        1,
        sim.now,
    );
    std::mem::swap(&mut sim.sync, &mut sync);
    let now = sim.now;
    sim.sync
        .connected(crate::chain::sync::PeerId(7), public(1), true, now);
    let output: Vec<_> = sim.sync.drain().collect();
    assert!(output.iter().any(|output| matches!(
        output,
        crate::chain::sync::Output::Disconnect {
            reason: DropReason::NotNeeded,
            ..
        }
    )));
    assert!(sim.sync.peers().is_empty());
}

#[test]
fn an_attacker_with_one_network_does_not_get_all_our_places() {
    // A thousand addresses of one /16, told by the attacker; the honest are in groups of their own.
    let chain = chain(10);
    let honest = many(25);
    let mut addrs = honest.clone();
    let bad: Vec<SocketAddr> = (0..300_u32)
        .map(|n| SocketAddr::from(([99, 99, (n / 250) as u8, (n % 250) as u8], 18_444)))
        .collect();
    addrs.extend(&bad);
    let mut sim = Sim::new(26, peers_at(&addrs, &chain), |config| {
        config.connect.clear()
    });
    know(&mut sim, &honest);
    let now = sim.now;
    sim.sync.seeded("attacker.example.org", &bad, now);
    sim.run_until("ten peers", 5 * MINUTE, |sim| {
        kinds(sim, ConnectionKind::BlockOnly).len() == 2
    });
    let ours = [
        kinds(&sim, ConnectionKind::Full),
        kinds(&sim, ConnectionKind::BlockOnly),
    ]
    .concat();
    let theirs = ours.iter().filter(|addr| bad.contains(addr)).count();
    assert!(ours.len() == 10 && theirs <= 1, "{theirs} of {ours:?}");
}

#[test]
fn the_same_seed_makes_the_same_connections() {
    let run = || {
        let chain = chain(10);
        let mut sim = sim(27, &many(40), &chain, |_| {});
        sim.coast(20 * MINUTE);
        (sim.connects.clone(), sim.sync.book_file())
    };
    let (one, two) = (run(), run());
    assert_eq!(one.0, two.0);
    assert_eq!(one.1, two.1);
}
