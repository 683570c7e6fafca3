#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
use super::*;
use bitcoin::p2p::address::{AddrV2, AddrV2Message};

use crate::chain::Output;
use crate::wire::message::{Message, PROTOCOL_VERSION, Version, unspecified};

const ADDR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8333);
const START: Moment = Moment::from_secs(1_700_000_000);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn a_peer_that_refused_and_never_offered_is_not_asked_for_version_2_again() {
    let mut transports = Transports::default();
    let choose =
        |transports: &Transports, now| transports.known(ADDR).unwrap_or_default().choose(true, now);
    assert_eq!(choose(&transports, START), TransportKind::V2);
    transports.refused(ADDR, START);
    assert_eq!(choose(&transports, START), TransportKind::V1);
    let late = START + DAY * 30;
    assert_eq!(choose(&transports, late), TransportKind::V1);
    // A node that lacks it says so in its version.
    transports.connected(ADDR, TransportKind::V1, ServiceFlags::NETWORK, late);
    assert_eq!(choose(&transports, late + DAY * 30), TransportKind::V1);
    // It was upgraded: its refusal was long ago, and it offers it now.
    transports.connected(ADDR, TransportKind::V1, ServiceFlags::P2P_V2, late);
    assert_eq!(choose(&transports, late), TransportKind::V2);
}

#[test]
fn a_peer_that_refused_what_it_offers_is_asked_again_after_a_day() {
    let mut transports = Transports::default();
    transports.connected(ADDR, TransportKind::V1, ServiceFlags::P2P_V2, START);
    let choose = |transports: &Transports, now| {
        transports
            .known(ADDR)
            .unwrap_or_default()
            .choose(false, now)
    };
    assert_eq!(choose(&transports, START), TransportKind::V2);
    transports.refused(ADDR, START);
    assert_eq!(choose(&transports, START), TransportKind::V1);
    let before = START + (DAY - Duration::from_millis(1));
    assert_eq!(choose(&transports, before), TransportKind::V1);
    assert_eq!(choose(&transports, START + DAY), TransportKind::V2);
    // It took it: the refusal is forgotten.
    transports.connected(ADDR, TransportKind::V2, ServiceFlags::NONE, START);
    assert_eq!(choose(&transports, START), TransportKind::V2);
}

#[test]
fn the_table_forgets_what_it_heard_of_longest_ago() {
    let mut transports = Transports::default();
    let addr = |n: usize| SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 8333));
    for n in 0..=MAX_REMEMBERED {
        transports.refused(addr(n), Moment(n as u64));
    }
    assert_eq!(transports.known.len(), MAX_REMEMBERED);
    assert_eq!(transports.known(addr(0)), None);
    assert!(
        transports
            .known(addr(1))
            .is_some_and(|known| known.refused_v2.is_some())
    );
}

fn machine(transport: TransportPreference, network: Network) -> Sync {
    let params = network.params();
    let config = crate::chain::SyncConfig {
        connect: vec![ADDR],
        transport,
        entropy: crate::wire::Entropy::Seeded(1, 0),
        handshake_timeout: Duration::from_secs(60),
        ..crate::chain::SyncConfig::new(params)
    };
    let tree = crate::chain::HeaderTree::new(params);
    Sync::new(config, params, tree, 7, START)
}

/// Ticks, and connects if the machine wants to; whether it then opened with version 1 or 2.
fn dial(sync: &mut Sync, id: u64, now: Moment) -> Option<TransportKind> {
    sync.tick(now);
    let wants = sync
        .drain()
        .any(|output| matches!(output, Output::Connect { .. }));
    if !wants {
        return None;
    }
    sync.connected(PeerId(id), ADDR, true, now);
    let first = sync.drain().find_map(|output| match output {
        Output::Send { bytes, .. } => Some(bytes),
        _ => None,
    });
    let v1 = first.unwrap().starts_with(&sync.params.magic);
    Some(if v1 {
        TransportKind::V1
    } else {
        TransportKind::V2
    })
}

#[test]
fn a_peer_that_closes_on_a_key_is_connected_to_with_version_1_at_the_next_tick() {
    for network in [Network::Mainnet, Network::Regtest] {
        let mut sync = machine(TransportPreference::PreferV2, network);
        assert_eq!(dial(&mut sync, 1, START), Some(TransportKind::V2));
        sync.disconnected(PeerId(1), START);
        let soon = START + Duration::from_millis(100);
        assert_eq!(dial(&mut sync, 2, soon), Some(TransportKind::V1));
        // Lost again, it is an ordinary peer that waits for its turn.
        sync.disconnected(PeerId(2), soon);
        assert_eq!(dial(&mut sync, 3, soon + Duration::from_millis(100)), None);
        let later = soon + Duration::from_secs(1);
        assert_eq!(dial(&mut sync, 3, later), Some(TransportKind::V1));
    }
}

#[test]
fn a_handshake_that_stops_half_way_is_given_up_in_time_and_tried_in_version_1() {
    let mut sync = machine(TransportPreference::PreferV2, Network::Mainnet);
    assert_eq!(dial(&mut sync, 1, START), Some(TransportKind::V2));
    sync.received(PeerId(1), &[9; 70], START);
    let almost = START + Duration::from_millis(59_999);
    let mut now = START;
    // In steps, so that the machine does not believe that it slept.
    while now < almost {
        now = (now + Duration::from_secs(1)).min(almost);
        sync.tick(now);
    }
    assert!(
        sync.drain()
            .all(|output| !matches!(output, Output::Disconnect { .. }))
    );
    let end = START + Duration::from_secs(60);
    // The tick that gives it up comes before the one that connects.
    let kind = dial(&mut sync, 2, end).or_else(|| dial(&mut sync, 2, end));
    assert_eq!(kind, Some(TransportKind::V1));
}

#[test]
fn what_is_tried_first_is_as_configured() {
    use TransportPreference::{Auto, PreferV2, V1, V2};
    for (transport, network, first, second) in [
        (Auto, Network::Mainnet, TransportKind::V2, TransportKind::V1),
        (Auto, Network::Regtest, TransportKind::V1, TransportKind::V1),
        (
            PreferV2,
            Network::Regtest,
            TransportKind::V2,
            TransportKind::V1,
        ),
        (V1, Network::Mainnet, TransportKind::V1, TransportKind::V1),
        (V2, Network::Mainnet, TransportKind::V2, TransportKind::V2),
        (V2, Network::Regtest, TransportKind::V2, TransportKind::V2),
    ] {
        let mut sync = machine(transport, network);
        assert_eq!(dial(&mut sync, 1, START), Some(first), "{transport:?}");
        sync.disconnected(PeerId(1), START);
        let later = START + Duration::from_secs(2);
        assert_eq!(dial(&mut sync, 2, later), Some(second), "{transport:?}");
    }
}

#[test]
fn a_sleep_in_the_middle_of_a_handshake_says_nothing_about_the_peer() {
    let mut sync = machine(TransportPreference::PreferV2, Network::Mainnet);
    assert_eq!(dial(&mut sync, 1, START), Some(TransportKind::V2));
    let morning = START + DAY;
    let kind = dial(&mut sync, 2, morning).or_else(|| dial(&mut sync, 2, morning));
    assert_eq!(kind, Some(TransportKind::V2));
}

#[test]
fn who_connects_to_us_chooses_the_version_unless_we_insist() {
    use crate::wire::Transport;
    let version = version(SERVES | ServiceFlags::WITNESS);
    for (preference, v2, taken) in [
        (TransportPreference::Auto, true, true),
        (TransportPreference::Auto, false, true),
        (TransportPreference::V1, true, false),
        (TransportPreference::V1, false, true),
        (TransportPreference::V2, true, true),
        (TransportPreference::V2, false, false),
    ] {
        let mut sync = machine(preference, Network::Regtest);
        let opening = match v2 {
            true => Opening::Initiator(crate::wire::Entropy::Seeded(2, 0).secret().unwrap()),
            false => Opening::V1,
        };
        let mut theirs = Transport::new(sync.params.magic, opening);
        theirs.send("version", version.payload());
        theirs.send("verack", Vec::new());
        sync.connected(PeerId(1), ADDR, false, START);
        for _ in 0..4 {
            while let Some(bytes) = theirs.pop() {
                sync.received(PeerId(1), &bytes, START);
            }
            for output in sync.drain() {
                if let Output::Send { bytes, .. } = output {
                    theirs.feed(&bytes);
                }
            }
            while let Ok(Some(_)) = theirs.next() {}
        }
        let ready = sync.peers().iter().any(|peer| peer.ready);
        assert_eq!(ready, taken, "{preference:?} {v2}");
        if ready {
            let kind = if v2 {
                TransportKind::V2
            } else {
                TransportKind::V1
            };
            assert_eq!(sync.peers()[0].transport, Some(kind));
            assert_eq!(sync.peers()[0].session_id, theirs.session_id());
        }
    }
}

/// A host and one peer of it, which speaks as it was opened and passes bytes on until nobody has any.
fn talk(sync: &mut Sync, theirs: &mut crate::wire::Transport, id: PeerId) -> Vec<Message> {
    let mut heard = Vec::new();
    for _ in 0..6 {
        while let Some(bytes) = theirs.pop() {
            sync.received(id, &bytes, START);
        }
        for output in sync.drain() {
            if let Output::Send { peer, bytes } = output
                && peer == id
            {
                theirs.feed(&bytes);
            }
        }
        while let Ok(Some(raw)) = theirs.next() {
            heard.push(Message::read(raw).unwrap());
        }
    }
    heard
}

fn version(services: ServiceFlags) -> Message {
    Message::Version(Box::new(Version {
        version: PROTOCOL_VERSION,
        services,
        timestamp: 1_700_000_000,
        receiver: unspecified(ServiceFlags::NONE),
        sender: unspecified(ServiceFlags::NONE),
        nonce: 1,
        user_agent: b"/knocker/".to_vec(),
        start_height: 0,
        relay: true,
    }))
}

const SERVES: ServiceFlags = ServiceFlags::NETWORK;

#[test]
fn version_2_is_offered_in_both_roles_where_it_is_spoken_and_nothing_else_is() {
    use TransportPreference::{Auto, PreferV2, V1, V2};
    let bsv: Network = "bsv-main".parse().unwrap();
    for (transport, network, offered) in [
        (Auto, Network::Mainnet, true),
        (Auto, Network::Regtest, true),
        (Auto, Network::Signet, true),
        (Auto, bsv, false),
        (PreferV2, bsv, true),
        (PreferV2, Network::Mainnet, true),
        (V2, Network::Mainnet, true),
        (V1, Network::Mainnet, false),
    ] {
        for outbound in [true, false] {
            let mut sync = machine(transport, network);
            let secret = crate::wire::Entropy::Seeded(2, 0).secret().unwrap();
            sync.connected(PeerId(1), ADDR, outbound, START);
            let first = sync.outputs.iter().find_map(|output| match output {
                Output::Send { bytes, .. } => Some(bytes.clone()),
                _ => None,
            });
            // Who is connected to answers as it is asked; who connects takes version 2 where it is taken.
            let opening = match (first, offered) {
                (Some(first), _) if first.starts_with(&sync.params.magic) => Opening::V1,
                (Some(_), _) => Opening::Responder(secret),
                (None, true) => Opening::Initiator(secret),
                (None, false) => Opening::V1,
            };
            let mut theirs = crate::wire::Transport::new(sync.params.magic, opening);
            theirs.send("version", version(SERVES | ServiceFlags::WITNESS).payload());
            let heard = talk(&mut sync, &mut theirs, PeerId(1));
            let Some(Message::Version(ours)) = heard.first() else {
                panic!("{transport:?} {network} outbound {outbound}: {heard:?}");
            };
            let expected = match offered {
                true => ServiceFlags::P2P_V2,
                false => ServiceFlags::NONE,
            };
            assert_eq!(
                ours.services, expected,
                "{transport:?} {network} {outbound}"
            );
            assert_eq!(ours.sender.services, expected);
        }
    }
}

/// How peers are opened to that an incoming peer tells of, by the services that it tells.
fn opened_to(transport: TransportPreference, network: Network) -> [TransportKind; 2] {
    let mut sync = machine(transport, network);
    sync.config.connect.clear();
    sync.addresses = crate::chain::sync::addresses::Addresses::new(&[], DAY, DAY, DAY);
    let opening = match transport {
        TransportPreference::V2 => {
            Opening::Initiator(crate::wire::Entropy::Seeded(2, 0).secret().unwrap())
        }
        _ => Opening::V1,
    };
    let mut theirs = crate::wire::Transport::new(sync.params.magic, opening);
    theirs.send("version", version(ServiceFlags::NONE).payload());
    theirs.send("sendaddrv2", Vec::new());
    theirs.send("verack", Vec::new());
    let teller = PeerId(1);
    sync.connected(teller, SocketAddr::from(([77, 1, 1, 1], 9)), false, START);
    talk(&mut sync, &mut theirs, teller);
    sync.peers
        .get_mut(&teller)
        .unwrap()
        .life
        .addresses
        .grant(9.0);
    let plain = SERVES | sync.config.required_services;
    let told = [plain, plain | ServiceFlags::P2P_V2];
    let list = [0, 1].map(|n| AddrV2Message {
        time: START.secs() as u32 - 60,
        services: told[n],
        addr: AddrV2::Ipv4([50 + n as u8, 1, 1, 1].into()),
        port: 8_333,
    });
    theirs.send("addrv2", Message::AddrV2(list.to_vec()).payload());
    talk(&mut sync, &mut theirs, teller);
    assert_eq!(sync.book().len(), 2);
    let mut opened = [None; 2];
    let mut now = START;
    while opened.contains(&None) {
        now = now + Duration::from_secs(1);
        assert!(now.since(START) < DAY, "{opened:?}");
        sync.tick(now);
        let wanted = sync.drain().find_map(|output| match output {
            Output::Connect { addr, .. } => Some(addr),
            _ => None,
        });
        let Some(addr) = wanted else { continue };
        let n = (0..2).find(|n| addr == SocketAddr::from(([50 + n, 1, 1, 1], 8_333)));
        let n = usize::from(n.unwrap());
        let id = PeerId(n as u64 + 2);
        sync.connected(id, addr, true, now);
        let first = sync.drain().find_map(|output| match output {
            Output::Send { peer, bytes } if peer == id => Some(bytes),
            _ => None,
        });
        opened[n] = Some(match first.unwrap().starts_with(&sync.params.magic) {
            true => TransportKind::V1,
            false => TransportKind::V2,
        });
    }
    opened.map(Option::unwrap)
}

#[test]
fn who_is_said_to_speak_version_2_is_opened_to_with_it_and_who_is_not_with_version_1() {
    use TransportKind::{V1, V2};
    let bsv: Network = "bsv-main".parse().unwrap();
    for (transport, network, opened) in [
        (TransportPreference::Auto, Network::Mainnet, [V1, V2]),
        (TransportPreference::Auto, Network::Regtest, [V1, V2]),
        (TransportPreference::PreferV2, Network::Mainnet, [V1, V2]),
        (TransportPreference::V1, Network::Mainnet, [V1, V1]),
        (TransportPreference::V2, Network::Mainnet, [V2, V2]),
        // There the bit may mean anything.
        (TransportPreference::Auto, bsv, [V1, V1]),
    ] {
        assert_eq!(
            opened_to(transport, network),
            opened,
            "{transport:?} {network}"
        );
    }
}

/// A machine that finds `book` on its disk, and nothing else.
fn restarted(transport: TransportPreference, book: &Sync) -> Sync {
    let mut sync = machine(transport, Network::Regtest);
    let book = crate::chain::sync::book::BookFile::decode("regtest", &book.book_file());
    sync.restore_book(book.unwrap());
    sync
}

#[test]
fn after_a_restart_a_peer_that_was_never_asked_is_asked_and_one_that_refused_is_not() {
    let offers = SERVES | ServiceFlags::WITNESS | ServiceFlags::P2P_V2;
    for refuses in [false, true] {
        let transport = match refuses {
            true => TransportPreference::PreferV2,
            false => TransportPreference::Auto,
        };
        let mut sync = machine(transport, Network::Regtest);
        let now = START.secs();
        sync.connections
            .book
            .pin(crate::chain::sync::book::NetAddress::ip(ADDR), now);
        if refuses {
            assert_eq!(dial(&mut sync, 1, START), Some(TransportKind::V2));
            sync.disconnected(PeerId(1), START);
        }
        let mut theirs = crate::wire::Transport::new(sync.params.magic, Opening::V1);
        theirs.send("version", version(offers).payload());
        theirs.send("verack", Vec::new());
        sync.tick(START);
        sync.connected(PeerId(2), ADDR, true, START);
        talk(&mut sync, &mut theirs, PeerId(2));
        assert_eq!(sync.peers()[0].transport, Some(TransportKind::V1));

        let mut again = restarted(transport, &sync);
        let first = match refuses {
            true => TransportKind::V1,
            false => TransportKind::V2,
        };
        assert_eq!(dial(&mut again, 1, START), Some(first));
        if refuses {
            // That it came about in version 1 once more does not make the refusal forgotten.
            let mut theirs = crate::wire::Transport::new(sync.params.magic, Opening::V1);
            theirs.send("version", version(offers).payload());
            theirs.send("verack", Vec::new());
            sync = restarted(transport, &sync);
            sync.tick(START);
            sync.connected(PeerId(2), ADDR, true, START);
            talk(&mut sync, &mut theirs, PeerId(2));
            sync.disconnected(PeerId(2), START);
            let later = START + Duration::from_secs(2);
            assert_eq!(dial(&mut sync, 3, later), Some(TransportKind::V1));
        }
    }
}

/// A stranger that connected to us encrypted, and its end of the connection. It may send 30,000 bytes at once unasked.
fn stranger() -> (Sync, crate::wire::Transport, SocketAddr) {
    let addr = SocketAddr::from(([50, 1, 1, 1], 5));
    let params = Network::Regtest.params();
    let config = crate::chain::SyncConfig {
        entropy: crate::wire::Entropy::Seeded(1, 0),
        incoming_rate: 1_000,
        ..crate::chain::SyncConfig::new(params)
    };
    let tree = crate::chain::HeaderTree::new(params);
    let mut sync = Sync::new(config, params, tree, 7, START);
    let secret = crate::wire::Entropy::Seeded(2, 0).secret().unwrap();
    let mut theirs = crate::wire::Transport::new(params.magic, Opening::Initiator(secret));
    let services = SERVES | ServiceFlags::WITNESS;
    theirs.send("version", version(services).payload());
    theirs.send("verack", Vec::new());
    sync.connected(PeerId(1), addr, false, START);
    talk(&mut sync, &mut theirs, PeerId(1));
    assert_eq!(sync.peers()[0].transport, Some(TransportKind::V2));
    (sync, theirs, addr)
}

/// Gives the machine all that the peer has queued, in one piece.
fn pass_on(sync: &mut Sync, theirs: &mut crate::wire::Transport) -> usize {
    let mut bytes = Vec::new();
    while let Some(piece) = theirs.pop() {
        bytes.extend_from_slice(&piece);
    }
    sync.received(PeerId(1), &bytes, START);
    bytes.len()
}

#[test]
fn decoys_without_end_are_bytes_that_nobody_asked_for() {
    let (mut sync, mut theirs, addr) = stranger();
    let before = sync.peers()[0].bytes_in;
    let mut sent = 0;
    while sent < 20_000 {
        theirs.send_decoy(&[7; 980]);
        sent += pass_on(&mut sync, &mut theirs);
    }
    let peer = &sync.peers()[0];
    assert_eq!(peer.bytes_in - before, sent as u64);
    assert_eq!(peer.misbehaviour, 0, "that may be the noise of BIP324");
    while sent < 35_000 {
        theirs.send_decoy(&[7; 980]);
        sent += pass_on(&mut sync, &mut theirs);
    }
    assert!(sync.peers()[0].misbehaviour > 0);
    while !sync.peers().is_empty() {
        theirs.send_decoy(&[7; 980]);
        sent += pass_on(&mut sync, &mut theirs);
        assert!(sent < 200_000, "it is never dropped");
    }
    let reason = sync.drain().find_map(|output| match output {
        Output::Disconnect { reason, .. } => Some(reason),
        _ => None,
    });
    assert!(matches!(reason, Some(DropReason::Flooding)));
    assert!(sync.bans().of(addr.ip(), START.secs()).is_some());
}

#[test]
fn an_answer_does_not_excuse_the_decoys_around_it() {
    // A long one counts for more: here forty seconds of what may be said.
    for (decoys, misbehaviour) in [(0, 0), (1, 40)] {
        let (mut sync, mut theirs, _) = stranger();
        // About 81 kB that were asked for, and then no headers any more.
        let genesis = Network::Regtest.params().genesis_header;
        let headers = crate::chain::fixtures::chain(&genesis, 0, 999, 0);
        let headers = headers.iter().map(|block| block.header).collect();
        for _ in 0..decoys {
            theirs.send_decoy(&[7; 40_000]);
        }
        let answer = Message::Headers(headers);
        theirs.send("headers", answer.payload());
        assert!(pass_on(&mut sync, &mut theirs) > 80_000);
        assert_eq!(sync.best_header().0, 999);
        assert_eq!(sync.peers()[0].misbehaviour, misbehaviour, "{decoys}");
    }
}
