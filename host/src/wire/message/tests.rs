#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
use bitcoin::hashes::Hash;
use bitcoin::p2p::address::AddrV2;
use bitcoin::{Txid, Wtxid};
use proptest::prelude::*;

use super::*;
use crate::network::Network;
use crate::wire::codec::Decoder;

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

fn raw(command: &str, payload: &[u8]) -> RawMessage {
    let mut name = [0; 12];
    name[..command.len()].copy_from_slice(command.as_bytes());
    RawMessage {
        command: Command::from_padded(name).unwrap(),
        payload: Bytes::copy_from_slice(payload),
    }
}

fn round_trip(message: Message) {
    let mut decoder = Decoder::new(MAGIC);
    decoder.feed(&message.encode(MAGIC));
    let read = Message::read(decoder.next().unwrap().unwrap()).unwrap();
    assert_eq!(read, message);
}

pub(crate) fn version() -> Version {
    Version {
        version: PROTOCOL_VERSION,
        services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
        timestamp: 1_700_000_000,
        receiver: unspecified(ServiceFlags::NONE),
        sender: unspecified(ServiceFlags::NETWORK),
        nonce: 42,
        user_agent: b"/test:1.0/".to_vec(),
        start_height: 100,
        relay: true,
    }
}

#[test]
fn what_is_written_is_read_back() {
    let header = Network::Regtest.params().genesis_header;
    let hash = header.block_hash();
    let inventory = vec![
        Inventory::Transaction(Txid::from_byte_array([1; 32])),
        Inventory::WTx(Wtxid::from_byte_array([2; 32])),
        Inventory::WitnessBlock(hash),
        Inventory::Unknown {
            inv_type: 99,
            hash: [3; 32],
        },
    ];
    let locator = Locator {
        hashes: vec![hash; 101],
        stop: hash,
    };
    let address = AddrV2Message {
        time: 5,
        services: ServiceFlags::NETWORK,
        addr: AddrV2::Ipv4([127, 0, 0, 1].into()),
        port: 8333,
    };
    for message in [
        Message::Version(Box::new(version())),
        Message::Verack,
        Message::WtxidRelay,
        Message::SendAddrV2,
        Message::SendHeaders,
        Message::Ping(7),
        Message::Pong(8),
        Message::FeeFilter(1000),
        Message::GetAddr,
        Message::Addr(vec![(3, unspecified(ServiceFlags::NETWORK))]),
        Message::AddrV2(vec![address]),
        Message::Inv(inventory.clone()),
        Message::GetData(inventory.clone()),
        Message::NotFound(inventory),
        Message::GetHeaders(locator.clone()),
        Message::GetBlocks(locator),
        Message::Headers(vec![header; 2000]),
        Message::Headers(Vec::new()),
        Message::Block(Bytes::from_static(b"a block")),
        Message::Tx(Bytes::from_static(b"a transaction")),
        Message::MemPool,
        Message::Unknown(raw("sendtxrcncl", &[]).command),
    ] {
        round_trip(message);
    }
}

#[test]
fn a_summary_says_what_and_how_much() {
    let header = Network::Regtest.params().genesis_header;
    let hash = header.block_hash();
    let item = Inventory::WitnessBlock(hash);
    for (message, summary) in [
        (Message::Verack, "verack".to_owned()),
        (
            Message::Headers(vec![header; 3]),
            format!("headers 3 to {hash}"),
        ),
        (Message::Headers(Vec::new()), "headers 0".to_owned()),
        (
            Message::GetData(vec![item]),
            format!("getdata block {hash}"),
        ),
        (
            Message::GetData(vec![item; 2]),
            format!("getdata 2 from block {hash}"),
        ),
        (
            Message::Block(Bytes::from_static(&[0; 9])),
            "block 9 bytes".to_owned(),
        ),
        (
            Message::GetHeaders(Locator::from_hashes(vec![hash])),
            format!("getheaders from {hash}"),
        ),
    ] {
        assert_eq!(message.summary(), summary);
    }
}

#[test]
fn a_block_is_not_copied() {
    let raw = raw("block", &[1; 1000]);
    let start = raw.payload.as_ptr();
    let Message::Block(block) = Message::read(raw).unwrap() else {
        panic!("a block")
    };
    assert_eq!(block.as_ptr(), start);
}

#[test]
fn a_version_may_end_before_its_relay_flag_or_go_on_after_it() {
    let mut payload = Message::Version(Box::new(version())).payload();
    payload.extend_from_slice(&[1, 2, 3]);
    assert_eq!(
        Message::read(raw("version", &payload)).unwrap(),
        Message::Version(Box::new(version()))
    );
    payload.truncate(payload.len() - 4);
    assert_eq!(
        Message::read(raw("version", &payload)).unwrap(),
        Message::Version(Box::new(version()))
    );
}

#[test]
fn lists_longer_than_the_protocol_allows_are_refused() {
    for (command, count) in [
        ("headers", 2_001u64),
        ("inv", 50_001),
        ("getdata", 50_001),
        ("notfound", 50_001),
        ("addr", 1_001),
        ("addrv2", 1_001),
        ("inv", u64::MAX),
    ] {
        let mut payload = Vec::new();
        write(&mut payload, &VarInt(count));
        let error = Message::read(raw(command, &payload)).unwrap_err();
        assert!(
            matches!(error, PayloadError::TooMany { count: at, .. } if at == count),
            "{command}: {error}"
        );
    }
    let mut payload = 70_016u32.to_le_bytes().to_vec();
    write(&mut payload, &VarInt(102));
    assert!(matches!(
        Message::read(raw("getheaders", &payload)),
        Err(PayloadError::TooMany { .. })
    ));
    let mut long = version();
    long.user_agent = vec![b'a'; 257];
    let payload = Message::Version(Box::new(long)).payload();
    assert!(matches!(
        Message::read(raw("version", &payload)),
        Err(PayloadError::TooMany { .. })
    ));
}

#[test]
fn payloads_that_end_early_or_late_are_refused() {
    assert!(matches!(
        Message::read(raw("ping", &[1, 2, 3])),
        Err(PayloadError::Malformed { .. })
    ));
    assert!(matches!(
        Message::read(raw("ping", &[0; 9])),
        Err(PayloadError::LeftOver { left: 1, .. })
    ));
    let headers = Message::Headers(vec![Network::Regtest.params().genesis_header; 3]).payload();
    assert!(matches!(
        Message::read(raw("headers", &headers[..200])),
        Err(PayloadError::Malformed { .. })
    ));
    assert!(matches!(
        Message::read(raw("inv", &[2, 1])),
        Err(PayloadError::Malformed { .. })
    ));
}

proptest! {
    #[test]
    fn any_payload_gives_a_message_or_an_error(kind in 0usize..16, payload in proptest::collection::vec(any::<u8>(), 0..600)) {
        let commands = [
            "version", "verack", "wtxidrelay", "sendaddrv2", "ping", "pong", "feefilter", "addr", "addrv2", "inv",
            "getdata", "notfound", "getheaders", "getblocks", "headers", "unknown",
        ];
        let _ = Message::read(raw(commands[kind], &payload));
    }

    #[test]
    fn a_true_payload_with_one_byte_changed_gives_a_message_or_an_error(position in any::<prop::sample::Index>(), byte in any::<u8>(), which in 0usize..4) {
        let header = Network::Regtest.params().genesis_header;
        let hash = header.block_hash();
        let message = match which {
            0 => Message::Version(Box::new(version())),
            1 => Message::Headers(vec![header; 3]),
            2 => Message::GetHeaders(Locator { hashes: vec![hash; 3], stop: hash }),
            _ => Message::Inv(vec![Inventory::Block(hash); 3]),
        };
        let mut payload = message.payload();
        let position = position.index(payload.len());
        payload[position] = byte;
        let _ = Message::read(raw(message.command(), &payload));
    }
}
