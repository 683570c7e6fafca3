//! Addresses: what is taken of what others tell, and what others are told.

use super::*;

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
