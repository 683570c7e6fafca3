//! Bans, who connects to us, and what the operator does.

use super::*;
use crate::chain::sync::bans::Subnet;
use crate::chain::sync::tests::network::MAGIC;
use crate::chain::sync::{Output, PeerId};

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
        sim.peers[0].say_bytes(&encode_frame(MAGIC, "block", &[1, 2, 3]));
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
    sim.peers[1].say_bytes(&encode_frame(MAGIC, "block", &[1, 2, 3]));
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
    sim.peers[0].say_bytes(&encode_frame(MAGIC, "block", &[1, 2, 3]));
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

/// The shell may be at a connection when the operator bans whom it leads to.
#[test]
fn a_ban_holds_for_a_connection_that_is_being_made() {
    let now = Moment::from_secs(1_400_000_000);
    let mut config = SyncConfig::new(params());
    config.connect.clear();
    let mut sync = Sync::new(config, params(), HeaderTree::new(params()), 3, now);
    sync.seeded("seed", &[public(1)], now);
    sync.tick(now);
    let begun =
        |output: Output| matches!(output, Output::Connect { addr, .. } if addr == public(1));
    assert!(sync.drain().any(begun));
    let ban = PeerChange::Ban {
        subnet: Subnet::one(public(1).ip()),
        seconds: None,
        reason: "noise".into(),
    };
    sync.change_peers(ban, now).unwrap();
    sync.connected(PeerId(1), public(1), true, now);
    assert!(sync.peers().is_empty());
    let closed = |output: Output| {
        matches!(
            output,
            Output::Disconnect {
                peer: PeerId(1),
                ..
            }
        )
    };
    assert!(sync.drain().any(closed));
}
