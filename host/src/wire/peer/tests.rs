#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
use super::messages::MAX_EARLY_MESSAGES;
use super::*;
use crate::wire::codec::{Decoder, encode_frame};
use crate::wire::message::{PROTOCOL_VERSION, unspecified};

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
const OUR_NONCE: u64 = 77;
const START: Moment = Moment::from_secs(1_700_000_000);

fn config() -> Arc<PeerConfig> {
    Arc::new(PeerConfig::new(MAGIC, OUR_NONCE))
}

fn peer(outbound: bool) -> Peer {
    Peer::new(
        config(),
        SocketAddr::from(([127, 0, 0, 1], 18_444)),
        outbound,
        5,
        START,
    )
}

fn version() -> Version {
    Version {
        version: PROTOCOL_VERSION,
        services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
        timestamp: 1_700_000_010,
        receiver: unspecified(ServiceFlags::NONE),
        sender: unspecified(ServiceFlags::NONE),
        nonce: 1,
        user_agent: b"/Satoshi:31.0.0/".to_vec(),
        start_height: 130,
        relay: true,
    }
}

fn sent(peer: &mut Peer) -> Vec<Message> {
    let mut decoder = Decoder::new(MAGIC);
    while let Some(bytes) = peer.pop_outbox() {
        decoder.feed(&bytes);
    }
    let mut messages = Vec::new();
    while let Some(raw) = decoder.next().unwrap() {
        messages.push(Message::read(raw).unwrap());
    }
    messages
}

fn give(peer: &mut Peer, message: &Message, now: Moment) -> Result<Vec<PeerStep>, Misbehaviour> {
    peer.feed(&message.encode(MAGIC), now);
    let mut steps = Vec::new();
    while let Some(step) = peer.next(now)? {
        steps.push(step);
    }
    Ok(steps)
}

fn say_version(peer: &mut Peer, version: Version) -> Result<Vec<PeerStep>, Misbehaviour> {
    give(peer, &Message::Version(Box::new(version)), START)
}

fn ready() -> Peer {
    let mut peer = peer(true);
    say_version(&mut peer, version()).unwrap();
    let steps = give(&mut peer, &Message::Verack, START).unwrap();
    assert!(matches!(steps[..], [PeerStep::Ready]));
    peer
}

#[test]
fn an_outbound_handshake_is_in_the_order_that_the_bips_ask_for() {
    let mut peer = peer(true);
    let [Message::Version(ours)] = &sent(&mut peer)[..] else {
        panic!("our version")
    };
    assert_eq!(
        (ours.nonce, ours.start_height, ours.relay),
        (OUR_NONCE, 5, true)
    );
    assert!(ours.user_agent.starts_with(b"/blockmill:"));

    say_version(&mut peer, version()).unwrap();
    assert_eq!(
        sent(&mut peer),
        [Message::WtxidRelay, Message::SendAddrV2, Message::Verack]
    );
    assert!(!peer.is_ready());
    give(&mut peer, &Message::WtxidRelay, START).unwrap();
    give(&mut peer, &Message::SendAddrV2, START).unwrap();
    let steps = give(&mut peer, &Message::Verack, START).unwrap();
    assert!(matches!(steps[..], [PeerStep::Ready]));
    assert!(matches!(
        sent(&mut peer)[..],
        [Message::SendHeaders, Message::Ping(_)]
    ));
    assert!(peer.is_ready() && peer.uses_wtxid() && peer.wants_addr_v2());
    assert_eq!(
        (peer.user_agent(), peer.start_height(), peer.time_offset()),
        ("/Satoshi:31.0.0/", 130, 10)
    );
    assert!(peer.bytes_in() > 0 && peer.bytes_out() > 0);
}

#[test]
fn an_inbound_handshake_waits_for_the_other_version() {
    let mut peer = peer(false);
    assert_eq!(sent(&mut peer), []);
    say_version(
        &mut peer,
        Version {
            services: ServiceFlags::NONE,
            ..version()
        },
    )
    .unwrap();
    assert!(matches!(
        sent(&mut peer)[..],
        [
            Message::Version(_),
            Message::WtxidRelay,
            Message::SendAddrV2,
            Message::Verack
        ]
    ));
}

#[test]
fn an_older_peer_is_not_told_what_it_does_not_know() {
    let mut peer = peer(true);
    sent(&mut peer);
    say_version(
        &mut peer,
        Version {
            version: 70_001,
            ..version()
        },
    )
    .unwrap();
    assert_eq!(sent(&mut peer), [Message::Verack]);
    give(&mut peer, &Message::Verack, START).unwrap();
    assert!(matches!(sent(&mut peer)[..], [Message::Ping(_)]));
}

#[test]
fn who_is_ourselves_or_too_old_or_serves_nothing_is_refused() {
    let refused = |version: Version| say_version(&mut peer(true), version).unwrap_err();
    assert!(matches!(
        refused(Version {
            nonce: OUR_NONCE,
            ..version()
        }),
        Misbehaviour::SelfConnection
    ));
    assert!(matches!(
        refused(Version {
            version: 31_799,
            ..version()
        }),
        Misbehaviour::OldVersion(31_799)
    ));
    for services in [
        ServiceFlags::NONE,
        ServiceFlags::NETWORK,
        ServiceFlags::WITNESS,
    ] {
        assert!(matches!(
            refused(Version {
                services,
                ..version()
            }),
            Misbehaviour::MissingServices(_)
        ));
    }
    let services = ServiceFlags::NETWORK_LIMITED | ServiceFlags::WITNESS;
    assert!(
        say_version(
            &mut peer(true),
            Version {
                services,
                ..version()
            }
        )
        .is_ok()
    );
}

#[test]
fn messages_out_of_order_are_refused() {
    for message in [Message::WtxidRelay, Message::SendAddrV2] {
        assert!(matches!(
            give(&mut ready(), &message, START),
            Err(Misbehaviour::OutOfOrder(_))
        ));
    }
    // A second verack does no harm.
    assert!(
        give(&mut ready(), &Message::Verack, START)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_second_version_is_passed_over_and_changes_nothing() {
    let mut peer = peer(true);
    say_version(&mut peer, version()).unwrap();
    sent(&mut peer);
    let other = Version {
        user_agent: b"/other/".to_vec(),
        start_height: 7,
        services: ServiceFlags::NONE,
        nonce: OUR_NONCE,
        ..version()
    };
    for _ in 0..2 * MAX_EARLY_MESSAGES {
        assert!(say_version(&mut peer, other.clone()).unwrap().is_empty());
    }
    assert_eq!(sent(&mut peer), []);
    let steps = give(&mut peer, &Message::Verack, START).unwrap();
    assert!(matches!(steps[..], [PeerStep::Ready]));
    assert!(say_version(&mut peer, other).unwrap().is_empty());
    // Not even read.
    peer.feed(&encode_frame(MAGIC, "version", &[1]), START);
    assert!(peer.next(START).unwrap().is_none());
    assert_eq!(
        (peer.user_agent(), peer.start_height(), peer.services()),
        ("/Satoshi:31.0.0/", 130, version().services)
    );
}

#[test]
fn compact_blocks_may_be_offered_before_verack() {
    let mut peer = peer(true);
    say_version(&mut peer, version()).unwrap();
    let offer = Message::SendCmpct {
        announce: false,
        version: 2,
    };
    let steps = give(&mut peer, &offer, START).unwrap();
    assert!(matches!(
        steps[..],
        [PeerStep::Message(Message::SendCmpct { version: 2, .. })]
    ));
}

#[test]
fn messages_before_the_handshake_are_passed_over_but_not_for_ever() {
    let mut early = peer(true);
    for _ in 0..MAX_EARLY_MESSAGES {
        assert!(
            give(&mut early, &Message::GetAddr, START)
                .unwrap()
                .is_empty()
        );
    }
    assert!(matches!(
        give(&mut early, &Message::GetAddr, START),
        Err(Misbehaviour::OutOfOrder(_))
    ));
}

#[test]
fn a_user_agent_is_shown_without_what_could_fool_a_terminal() {
    let mut peer = peer(true);
    let user_agent = b"/evil\x1b[2J\n\"<b>'\xff:1.0(x; y)/".to_vec();
    say_version(
        &mut peer,
        Version {
            user_agent,
            ..version()
        },
    )
    .unwrap();
    assert_eq!(peer.user_agent(), "/evil2Jb:1.0(x; y)/");
}

#[test]
fn a_ping_is_answered_and_ours_measures_the_latency() {
    let mut peer = ready();
    let Some(Message::Ping(nonce)) = sent(&mut peer).pop() else {
        panic!("a ping")
    };
    give(&mut peer, &Message::Ping(9), START).unwrap();
    assert_eq!(sent(&mut peer), [Message::Pong(9)]);
    let later = START + Duration::from_millis(120);
    give(&mut peer, &Message::Pong(nonce ^ 1), later).unwrap();
    assert_eq!(peer.latency(), None);
    give(&mut peer, &Message::Pong(nonce), later).unwrap();
    assert_eq!(peer.latency(), Some(Duration::from_millis(120)));

    assert!(peer.tick(START + Duration::from_secs(119)).is_ok());
    assert_eq!(sent(&mut peer), []);
    assert!(peer.tick(START + Duration::from_secs(120)).is_ok());
    assert!(matches!(sent(&mut peer)[..], [Message::Ping(other)] if other != nonce));
}

#[test]
fn a_peer_out_of_its_time_is_dropped() {
    let mut silent = peer(true);
    assert!(silent.tick(START + Duration::from_secs(59)).is_ok());
    assert!(matches!(
        silent.tick(START + Duration::from_secs(60)),
        Err(Misbehaviour::HandshakeTimeout)
    ));

    let mut deaf = ready();
    let end = START + Duration::from_secs(20 * 60);
    deaf.feed(&[], end);
    assert!(deaf.tick(START + Duration::from_secs(20 * 60 - 1)).is_ok());
    assert!(matches!(deaf.tick(end), Err(Misbehaviour::PongTimeout)));

    let mut silent = ready();
    let Some(Message::Ping(nonce)) = sent(&mut silent).pop() else {
        panic!("a ping")
    };
    give(&mut silent, &Message::Pong(nonce), START).unwrap();
    silent.last_ping = end;
    assert!(matches!(silent.tick(end), Err(Misbehaviour::Silence)));
}

#[test]
fn bytes_that_are_no_messages_end_the_connection() {
    let mut peer = ready();
    peer.feed(b"GET / HTTP/1.1\r\n\r\n", START);
    assert!(matches!(
        peer.next(START),
        Err(Misbehaviour::Wire(WireError::Magic(_)))
    ));
    let mut peer = ready();
    peer.feed(&encode_frame(MAGIC, "ping", &[1]), START);
    assert!(matches!(peer.next(START), Err(Misbehaviour::Payload(_))));
}

#[test]
fn a_fee_filter_is_kept() {
    let mut peer = ready();
    give(&mut peer, &Message::FeeFilter(1234), START).unwrap();
    assert_eq!(peer.fee_filter(), 1234);
}

/// Shakes hands as a peer of a chain with `protoconf` and extended messages.
fn agreed(version_number: u32) -> (Peer, Vec<Message>) {
    let config = PeerConfig {
        segwit: false,
        required_services: ServiceFlags::NONE,
        extended_messages: true,
        protoconf: Some(1 << 20),
        largest_block: 10_000_000,
        stream_above: 100_000,
        ..PeerConfig::new(MAGIC, OUR_NONCE)
    };
    let addr = SocketAddr::from(([127, 0, 0, 1], 8333));
    let mut peer = Peer::new(Arc::new(config), addr, true, 5, START);
    let theirs = Version {
        version: version_number,
        ..version()
    };
    say_version(&mut peer, theirs).unwrap();
    give(&mut peer, &Message::Verack, START).unwrap();
    let said = sent(&mut peer);
    (peer, said)
}

#[test]
fn a_chain_without_segregated_witness_speaks_of_its_own_limits() {
    let (mut peer, said) = agreed(70_016);
    assert!(said.contains(&Message::Protoconf(1 << 20)));
    // What is between version and verack elsewhere is unknown there.
    assert!(!said.contains(&Message::WtxidRelay) && !said.contains(&Message::SendAddrV2));

    // A peer that takes little is not sent more at once.
    let most = 1_000;
    give(&mut peer, &Message::Protoconf(most as u32 * 36 + 9), START).unwrap();
    let hash = bitcoin::hashes::Hash::all_zeros();
    peer.send(&Message::GetData(vec![Inventory::Block(hash); 2_500]));
    let lengths: Vec<usize> = sent(&mut peer)
        .iter()
        .map(|message| match message {
            Message::GetData(list) => list.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lengths, [most, most, 500]);
}

#[test]
fn pieces_of_a_block_come_after_the_handshake_and_keep_a_peer_alive() {
    let (mut peer, _) = agreed(70_016);
    let block = vec![3; 200_000];
    let bytes = super::super::codec::encode_frame(MAGIC, "block", &block);
    let (first, second) = bytes.split_at(120_000);
    let mut now = START;
    let mut come = 0;
    for part in [first, second] {
        now = now + Duration::from_secs(15 * 60);
        peer.feed(part, now);
        while let Some(step) = peer.next(now).unwrap() {
            match step {
                PeerStep::Piece(piece) => come += piece.bytes.len(),
                other => panic!("{other:?}"),
            }
        }
        // The pong to the first ping waits behind the block.
        peer.tick(now).unwrap();
    }
    assert_eq!(come, block.len());

    let config = PeerConfig {
        stream_above: 100_000,
        ..PeerConfig::new(MAGIC, OUR_NONCE)
    };
    let addr = SocketAddr::from(([127, 0, 0, 1], 8333));
    let mut early = Peer::new(Arc::new(config), addr, true, 5, START);
    early.feed(first, START);
    assert!(matches!(
        early.next(START),
        Err(Misbehaviour::OutOfOrder(_))
    ));
}

#[test]
fn the_extended_header_is_for_peers_of_protocol_70016_and_above() {
    let block = vec![3; 200_000];
    let mut name = [0; 12];
    name[..5].copy_from_slice(b"block");
    let frame = [
        &MAGIC[..],
        b"extmsg\0\0\0\0\0\0",
        &[0xff; 4],
        &[0; 4],
        &name,
        &(block.len() as u64).to_le_bytes(),
        &block,
    ]
    .concat();
    let (mut new, _) = agreed(70_016);
    new.feed(&frame, START);
    let mut come = 0;
    while let Some(PeerStep::Piece(piece)) = new.next(START).unwrap() {
        come += piece.bytes.len();
    }
    assert_eq!(come, block.len());

    let (mut old, _) = agreed(70_015);
    old.feed(&frame, START);
    assert!(matches!(old.next(START), Err(Misbehaviour::Wire(_))));
}
