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

#[test]
fn addresses_without_end_are_taken_at_their_rate_and_fill_a_sixteenth_of_the_book() {
    let chain = chain(5);
    let mut sim = sim(3, &many(1), &chain, |config| {
        config.stale_tip = 1_000 * HOUR
    });
    sim.run_until("the peer", MINUTE, |sim| {
        kinds(sim, ConnectionKind::Full).len() == 1
    });
    for round in 0..40 {
        sim.peers[0].say(&told(round, 1_000));
        sim.run_for(SECOND);
    }
    // A thousand and one when it was asked, and one every ten seconds.
    sim.run_for(10 * SECOND);
    let known = sim.sync.book().counts().new;
    assert!((700..=1_010).contains(&known), "{known}");
    let over = sim.sync.peers()[0].addresses_over;
    assert!(over > 38_000, "{over} of 40,000 were passed over");
    // Days later it has told no more than the rate allows, and the book has room for others.
    for round in 100..130 {
        sim.sleep(20 * SECOND);
        sim.peers[0].say(&told(round, 1_000));
        sim.run_for(SECOND);
    }
    let more = sim.sync.book().counts().new - known;
    assert!(more <= 80, "{more} in eleven minutes");
}

#[test]
fn what_is_not_reachable_useful_or_believable_is_not_taken() {
    let chain = chain(5);
    let mut sim = sim(4, &many(1), &chain, |config| config.reach.local = false);
    sim.run_until("the peer", MINUTE, |sim| {
        kinds(sim, ConnectionKind::Full).len() == 1
    });
    let now = sim.now.secs() as u32;
    let all = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
    let message = |addr, time, services| AddrV2Message {
        time,
        services,
        addr,
        port: 8_333,
    };
    let four = |a, b, c, d| AddrV2::Ipv4([a, b, c, d].into());
    let banned = PeerChange::Ban {
        subnet: "60.0.0.0/8".parse().unwrap(),
        seconds: None,
        reason: String::new(),
    };
    let at = sim.now;
    sim.sync.change_peers(banned, at).unwrap();
    sim.peers[0].say(&Message::AddrV2(vec![
        message(four(127, 0, 0, 1), now, all),
        message(four(10, 0, 0, 1), now, all),
        message(four(60, 1, 1, 1), now, all),
        message(four(61, 1, 1, 1), now, ServiceFlags::NONE),
        message(AddrV2::TorV3([1; 32]), now, all),
        message(AddrV2::I2p([1; 32]), now, all),
        message(AddrV2::Unknown(77, vec![1, 2, 3]), now, all),
        // From the future, and without a time: taken, as some days old.
        message(four(62, 1, 1, 1), now + 10_000, all),
        message(four(63, 1, 1, 1), 5, all),
        message(four(64, 1, 1, 1), now, all),
    ]));
    sim.run_for(SECOND);
    let seen = |ip: [u8; 4]| {
        let record = sim.sync.book().get(&SocketAddr::from((ip, 8_333)))?;
        Some(u64::from(now) - record.seen)
    };
    assert_eq!(sim.sync.book().len(), 4);
    let days = 5 * 24 * 60 * 60 + 2 * 60 * 60;
    assert!((days..days + 60).contains(&seen([62, 1, 1, 1]).unwrap()));
    assert!((days..days + 60).contains(&seen([63, 1, 1, 1]).unwrap()));
    assert!((7_200..7_260).contains(&seen([64, 1, 1, 1]).unwrap()));
}

#[test]
fn an_address_that_is_to_be_passed_over_costs_nobody_the_connection_and_a_wrong_list_does() {
    let chain = chain(5);
    let mut sim = sim(4, &many(3), &chain, |_| {});
    sim.run_until("the peers", MINUTE, |sim| {
        kinds(sim, ConnectionKind::Full).len() == 3
    });
    let now = sim.now.secs() as u32;
    let message = |addr| AddrV2Message {
        time: now,
        services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
        addr,
        port: 8_333,
    };
    let mapped = std::net::Ipv4Addr::new(60, 1, 1, 1).to_ipv6_mapped();
    let before = sim.sync.book().len();
    sim.peers[0].say(&Message::AddrV2(vec![
        message(AddrV2::Unknown(2, mapped.octets().to_vec())),
        message(AddrV2::Unknown(77, vec![1; 20])),
        message(AddrV2::Unknown(6, vec![1; 16])),
        message(AddrV2::Ipv4([64, 1, 1, 1].into())),
    ]));
    sim.run_for(SECOND);
    assert_eq!(sim.sync.book().len(), before + 1);
    assert!(sim.sync.book().get(&addr("64.1.1.1:8333")).is_some());
    assert!(sim.dropped.is_empty(), "{:?}", sim.dropped);
    sim.peers[1].say(&Message::AddrV2(vec![message(AddrV2::Unknown(
        1,
        vec![1; 5],
    ))]));
    sim.peers[2].say(&told(1, 1_001));
    sim.run_for(SECOND);
    let dropped: BTreeSet<SocketAddr> = sim.dropped.iter().map(|(addr, _)| *addr).collect();
    assert_eq!(dropped, BTreeSet::from([public(1), public(2)]));
}

#[test]
fn a_tor_address_is_kept_and_connected_to_by_name_where_there_is_a_proxy() {
    let chain = chain(5);
    let mut sim = sim(5, &many(1), &chain, |config| config.reach.tor = true);
    sim.run_until("the peer", MINUTE, |sim| {
        kinds(sim, ConnectionKind::Full).len() == 1
    });
    let onion = NetAddress::Tor([9; 32], 8_333);
    let services = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
    let now = sim.now.secs() as u32;
    sim.peers[0].say(&Message::AddrV2(vec![onion.to_v2(now, services)]));
    sim.run_until("a try", 5 * MINUTE, |sim| !sim.names.is_empty());
    let name = onion.host_name().unwrap();
    assert!(
        name.ends_with(".onion") && sim.names.contains(&name),
        "{:?}",
        sim.names
    );
    let record = sim.sync.book().get(&onion.handle()).unwrap();
    assert_eq!(record.dropped.as_ref().unwrap().1, "no connection");
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
fn seeds_are_asked_when_the_book_is_empty_and_not_when_it_leads_to_peers() {
    let chain = chain(5);
    let seeds = |config: &mut SyncConfig| {
        config.dns_seeds = (0..8).map(|n| format!("seed{n}.example.org")).collect();
    };
    let mut sim = Sim::new(10, peers_at(&many(12), &chain), |config| {
        config.connect.clear();
        seeds(config);
    });
    sim.run_for(5 * SECOND);
    assert_eq!(sim.resolved.len(), 3, "three at once");
    sim.run_for(7 * SECOND);
    assert_eq!(sim.resolved.len(), 6);
    let now = sim.now;
    sim.sync.seeded("seed0.example.org", &many(12), now);
    sim.run_until("peers", MINUTE, |sim| {
        kinds(sim, ConnectionKind::Full).len() == 8
    });
    sim.coast(3 * HOUR);
    assert_eq!(sim.resolved.len(), 6);

    // A book that leads to peers makes them needless; one that does not, does not.
    let bytes = sim.sync.book_file();
    for (reachable, asked) in [(true, 0), (false, 3)] {
        let mut again = Sim::new(11, peers_at(&many(12), &chain), |config| {
            config.connect.clear();
            seeds(config);
        });
        again
            .sync
            .restore_book(BookFile::decode("regtest", &bytes).unwrap());
        for peer in &mut again.peers {
            peer.reachable = reachable;
        }
        again.run_for(15 * SECOND);
        assert_eq!(again.resolved.len(), asked);
    }
    // Named peers make them needless altogether.
    let mut named = Sim::new(12, peers_at(&many(1), &chain), seeds);
    named.peers[0].reachable = false;
    named.coast(HOUR);
    assert!(named.resolved.is_empty());
}

#[test]
fn whom_a_proxy_finds_under_a_seeds_name_is_asked_for_addresses_once_and_let_go() {
    let chain = chain(5);
    let stand_in = |n: u16| addr(&format!("[fd62:6d69:6c6c::{n}]:18444"));
    // One that answers, one that says nothing but its own address, one that breaks the rules, one that is not there.
    let mut addrs: Vec<SocketAddr> = (1..=4).map(stand_in).collect();
    addrs.extend(many(12));
    let mut sim = Sim::new(15, peers_at(&addrs, &chain), |config| {
        config.connect.clear();
    });
    sim.peers[3].reachable = false;
    let ask = |sim: &mut Sim| {
        for n in 1..=4 {
            let now = sim.now;
            sim.sync
                .ask_seed_by_proxy(&format!("seed{n}.example.org"), stand_in(n), now);
        }
        sim.settle();
    };
    ask(&mut sim);
    // Asking twice at a time makes no second connection.
    ask(&mut sim);
    sim.run_until("three fetches", MINUTE, |sim| {
        kinds(sim, ConnectionKind::AddressFetch).len() == 3
    });
    let tries = |sim: &Sim, n: u16| {
        let tries = sim.connects.iter().filter(|(addr, _)| *addr == stand_in(n));
        tries.count()
    };
    assert_eq!([1, 2, 3].map(|n| tries(&sim, n)), [1, 1, 1]);
    let failed = tries(&sim, 4);
    assert_eq!(heard(&sim, &Message::GetAddr), 3);
    let services = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
    let seen = sim.now.secs() as u32;
    let list = |addrs: &[SocketAddr]| {
        let list = addrs.iter().map(|addr| NetAddress::ip(*addr));
        Message::AddrV2(list.map(|addr| addr.to_v2(seen, services)).collect())
    };
    sim.peers[1].say(&list(&many(1)));
    sim.peers[2].say_bytes(&[0xee; 40]);
    sim.run_for(2 * SECOND);
    sim.peers[0].say(&list(&many(12)));
    // They lead to the peers of the network, whose places the stand-ins do not take.
    sim.run_until("peers", MINUTE, |sim| {
        kinds(sim, ConnectionKind::Full).len() == 8
            && kinds(sim, ConnectionKind::BlockOnly).len() == 2
    });
    sim.run_to_tip(&chain[4]);
    assert!(
        sim.sync.synced(sim.now),
        "the one that says nothing is no reason to wait"
    );
    assert_eq!(kinds(&sim, ConnectionKind::AddressFetch), [stand_in(2)]);
    sim.coast(5 * MINUTE);
    assert!(kinds(&sim, ConnectionKind::AddressFetch).is_empty());
    let gone = |n: u16| {
        let dropped = sim.dropped.iter().find(|(addr, _)| *addr == stand_in(n));
        &dropped.unwrap().1
    };
    assert!(matches!(gone(1), DropReason::AddressFetchDone));
    assert!(matches!(gone(2), DropReason::AddressFetchDone));
    assert!(matches!(gone(3), DropReason::Misbehaviour(_)));
    // They were asked for nothing else, none is named, kept, banned or connected to again.
    for peer in &sim.peers[..4] {
        let other = peer.heard.iter().find(|message| {
            matches!(
                message,
                Message::GetHeaders(_) | Message::GetData(_) | Message::MemPool
            )
        });
        assert!(other.is_none(), "{other:?}");
    }
    sim.coast(HOUR);
    for n in 1..=4 {
        assert!(sim.sync.book().get(&stand_in(n)).is_none());
        assert_eq!(tries(&sim, n), if n == 4 { failed } else { 1 });
    }
    assert_eq!(sim.sync.pinned().count(), 0);
    assert_eq!(sim.sync.bans().all().count(), 0);
    // When the seeds are to be asked again, they are.
    ask(&mut sim);
    assert_eq!(tries(&sim, 1), 2);
    sim.check_outputs();
}

#[test]
fn while_peers_are_short_those_that_are_there_are_asked_for_addresses_again() {
    let chain = chain(5);
    let asked = |peers: usize| {
        let mut sim = sim(16, &many(peers), &chain, |config| {
            config.max_outbound = 4;
            config.max_block_only = 0;
            config.addresses_again = 30 * MINUTE;
            config.stale_tip = 1_000 * HOUR;
            config.feeler_interval = 1_000 * HOUR;
        });
        sim.run_until("peers", MINUTE, |sim| {
            kinds(sim, ConnectionKind::Full).len() == peers.min(4)
        });
        let at_once = heard(&sim, &Message::GetAddr);
        assert_eq!(at_once, peers.min(4));
        sim.coast(2 * HOUR + MINUTE);
        heard(&sim, &Message::GetAddr) - at_once
    };
    assert_eq!(asked(3), 3 * 4);
    assert_eq!(asked(4), 0);
}

#[test]
fn the_answer_to_who_asks_for_addresses_is_the_same_for_as_long_as_is_set() {
    let chain = chain(5);
    let asking: Vec<SocketAddr> = (1..=3).map(|n| addr(&format!("50.{n}.1.1:5"))).collect();
    let mut sim = Sim::new(22, peers_at(&asking, &chain), |config| {
        config.connect.clear();
        config.address_answer_life = HOUR;
    });
    for n in 0..400 {
        know(&mut sim, &[public(n)]);
    }
    let mut answers = Vec::new();
    for (peer, wait) in [30 * MINUTE, 40 * MINUTE, MINUTE].into_iter().enumerate() {
        sim.connect_inbound(peer);
        sim.run_for(SECOND);
        sim.peers[peer].say(&Message::GetAddr);
        sim.run_for(SECOND);
        let heard = sim.peers[peer].heard.iter();
        let told: Vec<SocketAddr> = heard
            .filter_map(|message| match message {
                Message::Addr(list) => Some(list.iter().map(|(_, a)| a.socket_addr().unwrap())),
                _ => None,
            })
            .flatten()
            .collect();
        answers.push(told);
        sim.coast(wait);
    }
    assert!(!answers[0].is_empty());
    assert_eq!(answers[0], answers[1], "within the hour");
    assert_ne!(answers[0], answers[2], "after it");
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
fn who_misbehaves_is_banned_minutes_then_hours_then_for_good_and_named_peers_never() {
    let chain = chain(5);
    let bad = addr("40.1.2.3:18444");
    let mut sim = Sim::new(16, peers_at(&[bad, public(1)], &chain), |config| {
        config.connect = vec![public(1)];
    });
    let mut until = Vec::new();
    for _ in 0..3 {
        sim.connect_inbound(0);
        sim.run_for(5 * SECOND);
        assert!(sim.id_of(0).is_some(), "its ban is over");
        // A block that is no block.
        sim.peers[0].say_bytes(&encode_frame(super::network::MAGIC, "block", &[1, 2, 3]));
        sim.run_for(5 * SECOND);
        assert!(sim.id_of(0).is_none());
        let now = sim.now.secs();
        let ban = sim.sync.bans().of(bad.ip(), now).unwrap().1.clone();
        until.push(ban.until.map(|until| until - ban.since));
        assert_eq!(ban.reason, "malformed block");
        // While it is banned it is not let in.
        sim.connect_inbound(0);
        assert!(matches!(sim.dropped.last().unwrap().1, DropReason::Banned));
        let tick = sim.config_late_tick();
        let over = ban.until.unwrap_or(now) - now + 1;
        for _ in 0..=over / tick.as_secs() {
            sim.sleep(tick);
        }
    }
    assert_eq!(until, [Some(600), Some(86_400), None]);
    sim.peers[1].say_bytes(&encode_frame(super::network::MAGIC, "block", &[1, 2, 3]));
    sim.run_for(MINUTE);
    let now = sim.now.secs();
    assert!(sim.sync.bans().of(public(1).ip(), now).is_none());
    assert!(sim.id_of(1).is_some(), "it is connected to again");
}

#[test]
fn a_ban_closes_every_connection_from_the_same_address() {
    let chain = chain(5);
    let addrs = ["50.1.1.1:5", "50.1.1.1:6", "50.1.1.2:5"].map(addr);
    let mut sim = Sim::new(28, peers_at(&addrs, &chain), |config| {
        config.connect.clear()
    });
    for peer in 0..3 {
        sim.connect_inbound(peer);
    }
    sim.run_for(5 * SECOND);
    sim.peers[0].say_bytes(&encode_frame(super::network::MAGIC, "block", &[1, 2, 3]));
    sim.run_for(5 * SECOND);
    let open: Vec<bool> = (0..3).map(|peer| sim.id_of(peer).is_some()).collect();
    assert_eq!(open, [false, false, true]);
    assert_eq!(sim.sync.bans().holding(sim.now.secs()).count(), 1);
}

#[test]
fn slow_peers_and_those_that_lack_services_are_not_banned() {
    let chain = chain(30);
    let addrs = many(3);
    let mut sim = sim(17, &addrs, &chain, |_| {});
    sim.peers[0].services = ServiceFlags::NETWORK;
    sim.peers[1].faults.stalls = true;
    sim.run_to_tip(&chain[29]);
    sim.coast(10 * MINUTE);
    let now = sim.now.secs();
    assert_eq!(sim.sync.bans().holding(now).count(), 0);
    let record = sim.sync.book().get(&addrs[0]).unwrap();
    assert_eq!(
        record.services,
        ServiceFlags::NETWORK,
        "what it said itself"
    );
    assert!(record.dropped.as_ref().unwrap().1.contains("not enough"));
    let tries = sim
        .connects
        .iter()
        .filter(|(addr, _)| *addr == addrs[0])
        .count();
    assert!(tries <= 2, "{tries}: it is known to be of no use");
}

#[test]
fn incoming_connections_are_bounded_in_all_and_of_one_address() {
    let chain = chain(5);
    let one = (0..6).map(|n| SocketAddr::from(([50, 1, 1, 1], 1_000 + n)));
    let others = (0..60).map(|n| SocketAddr::from(([50, 2, n, 1], 1_000)));
    let addrs: Vec<SocketAddr> = one.chain(others).collect();
    let mut sim = Sim::new(18, peers_at(&addrs, &chain), |config| {
        config.connect.clear();
        config.max_incoming = 30;
        config.max_incoming_per_address = 2;
    });
    for peer in 0..addrs.len() {
        sim.connect_inbound(peer);
        sim.run_for(SECOND);
        assert!(sim.sync.peers().len() <= 30);
    }
    let of_one = kinds(&sim, ConnectionKind::Incoming);
    let of_one = of_one.iter().filter(|addr| addr.ip() == addrs[0].ip());
    assert!(of_one.count() <= 2);
    let refused =
        |wanted: fn(&DropReason) -> bool| sim.dropped.iter().filter(|(_, why)| wanted(why)).count();
    assert_eq!(
        refused(|why| matches!(why, DropReason::TooManyFromAddress)),
        4
    );
    assert!(
        refused(|why| matches!(why, DropReason::Evicted)) >= 20,
        "those that came last in the biggest group go"
    );
    assert_eq!(sim.sync.bans().holding(sim.now.secs()).count(), 0);
}

#[test]
fn who_connects_again_and_again_is_let_in_now_and_then() {
    let chain = chain(5);
    let mut sim = Sim::new(19, peers_at(&[addr("50.1.1.1:5")], &chain), |config| {
        config.connect.clear()
    });
    let mut admitted = 0;
    for _ in 0..200 {
        sim.connect_inbound(0);
        sim.run_for(SECOND / 2);
        if let Some(id) = sim.id_of(0) {
            admitted += 1;
            let now = sim.now;
            sim.sync.disconnected(id, now);
        }
    }
    // Ten at once and one every ten seconds, for a hundred seconds.
    assert!((15..=22).contains(&admitted), "{admitted}");
}

#[test]
fn an_incoming_peer_that_says_too_much_is_dropped_and_banned() {
    let chain = chain(5);
    let flooder = addr("50.1.1.1:5");
    let mut sim = Sim::new(
        20,
        peers_at(&[flooder, addr("50.2.1.1:5")], &chain),
        |config| {
            config.connect.clear();
            config.incoming_rate = 1_000;
        },
    );
    sim.connect_inbound(0);
    sim.connect_inbound(1);
    sim.run_for(5 * SECOND);
    let noise = Message::Inv(vec![Inventory::WTx(bitcoin::Wtxid::all_zeros()); 20]);
    let mut rounds = 0;
    while sim.id_of(0).is_some() {
        rounds += 1;
        assert!(rounds < 10_000, "it is never dropped");
        sim.peers[0].say(&noise);
        sim.run_for(SECOND / 10);
    }
    assert!(rounds > 40, "half a minute of the rate may come at once");
    assert!(matches!(sim.dropped[0].1, DropReason::Flooding));
    assert!(sim.sync.bans().of(flooder.ip(), sim.now.secs()).is_some());
    assert!(sim.id_of(1).is_some());
}

#[test]
fn who_connected_to_us_is_told_a_part_of_the_book_once_and_all_the_same() {
    let chain = chain(5);
    let mut addrs = vec![addr("50.1.1.1:5"), addr("50.2.1.1:5"), addr("50.3.1.1:5")];
    addrs.extend(many(20));
    let mut sim = Sim::new(21, peers_at(&addrs, &chain), |config| {
        config.connect.clear()
    });
    for n in 0..400 {
        know(&mut sim, &[public(n)]);
    }
    sim.run_until("peers", MINUTE, |sim| {
        kinds(sim, ConnectionKind::Full).len() == 8
    });
    for peer in 0..3 {
        sim.connect_inbound(peer);
        sim.run_for(SECOND);
        for _ in 0..3 {
            sim.peers[peer].say(&Message::GetAddr);
        }
        sim.run_for(SECOND);
    }
    // And an outgoing one.
    let full = kinds(&sim, ConnectionKind::Full)[0];
    let full = sim.peers.iter().position(|peer| peer.addr == full).unwrap();
    sim.peers[full].say(&Message::GetAddr);
    sim.run_for(SECOND);
    let answers = |peer: usize| -> Vec<Vec<SocketAddr>> {
        let heard = sim.peers[peer].heard.iter();
        heard
            .filter_map(|message| match message {
                Message::Addr(list) => {
                    Some(list.iter().map(|(_, a)| a.socket_addr().unwrap()).collect())
                }
                _ => None,
            })
            .collect()
    };
    let first = answers(0);
    assert_eq!(first.len(), 1, "once");
    let known = sim.sync.book().len();
    assert!(
        (60..=known * 23 / 100).contains(&first[0].len()),
        "{} of {known}",
        first[0].len()
    );
    assert_eq!((answers(1), answers(2)), (first.clone(), first));
    assert!(answers(full).is_empty());
}

#[test]
fn the_operator_bans_lifts_adds_and_drops_and_is_told_what_cannot_be() {
    let chain = chain(5);
    let named = public(1);
    let mut sim = Sim::new(
        22,
        peers_at(&[named, public(2), public(3)], &chain),
        |config| {
            config.connect = vec![named];
        },
    );
    sim.run_until("the named one", MINUTE, |sim| sim.id_of(0).is_some());
    let change = |sim: &mut Sim, change: PeerChange| {
        let now = sim.now;
        let done = sim.sync.change_peers(change, now);
        sim.settle();
        done
    };
    let ban = |text: &str| PeerChange::Ban {
        subnet: text.parse().unwrap(),
        seconds: Some(60),
        reason: "test".to_owned(),
    };
    let unban = |text: &str| PeerChange::Unban {
        subnet: text.parse().unwrap(),
    };
    let add = |addr: SocketAddr| PeerChange::Add {
        address: NetAddress::ip(addr),
    };
    let drop = |peer: PeerRef| PeerChange::Drop { peer };
    let drop_at = |addr: SocketAddr| drop(PeerRef::Address(NetAddress::ip(addr)));

    for range in [format!("{}", named.ip()), "20.0.0.0/8".to_owned()] {
        let why = change(&mut sim, ban(&range)).unwrap_err();
        assert!(
            matches!(&why, PeerChangeError::Configured { peer } if *peer == named.to_string()),
            "{why}"
        );
    }
    assert_eq!(
        change(&mut sim, add(named)).unwrap_err(),
        PeerChangeError::AlreadyThere(named.to_string())
    );

    // A ban closes what is connected, and holds until it is lifted.
    sim.connect_inbound(1);
    sim.run_for(SECOND);
    let done = change(&mut sim, ban("20.2.0.0/16")).unwrap();
    assert!(
        done.contains("20.2.0.0/16 is banned for 1m; 1 connections closed"),
        "{done}"
    );
    assert!(sim.id_of(1).is_none());
    let why = change(&mut sim, add(public(2))).unwrap_err();
    assert!(why.to_string().contains("peers unban 20.2.0.0/16"), "{why}");
    assert!(
        change(&mut sim, unban("20.2.0.0/17")).is_err(),
        "just this range"
    );
    change(&mut sim, unban("20.2.0.0/16")).unwrap();
    assert!(matches!(
        change(&mut sim, unban("20.2.0.0/16")),
        Err(PeerChangeError::NotBanned(_))
    ));
    sim.connect_inbound(1);
    assert!(sim.id_of(1).is_some());

    // What was added is kept until it is dropped.
    change(&mut sim, add(public(3))).unwrap();
    sim.run_until("the added one", MINUTE, |sim| sim.id_of(2).is_some());
    let id = sim.id_of(2).unwrap();
    change(&mut sim, drop(PeerRef::Id(id))).unwrap();
    sim.connects.clear();
    sim.coast(HOUR);
    assert!(sim.connects.is_empty() && sim.id_of(2).is_none());
    for gone in [
        drop(PeerRef::Id(id)),
        drop_at(public(3)),
        drop_at(public(99)),
    ] {
        assert!(matches!(
            change(&mut sim, gone),
            Err(PeerChangeError::NoSuchPeer(_))
        ));
    }
    // One of the configuration comes again.
    let done = change(&mut sim, drop_at(named)).unwrap();
    assert!(done.contains("connected to again"), "{done}");
    sim.run_until("the named one again", MINUTE, |sim| sim.id_of(0).is_some());
    // A hidden service takes a proxy, and there is an end to adding.
    let onion = PeerChange::Add {
        address: NetAddress::Tor([1; 32], 8_333),
    };
    assert!(matches!(
        change(&mut sim, onion),
        Err(PeerChangeError::Unreachable(_))
    ));
    for n in 100..108 {
        change(&mut sim, add(public(n))).unwrap();
    }
    assert_eq!(
        change(&mut sim, add(public(109))).unwrap_err(),
        PeerChangeError::TooManyAdded
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
