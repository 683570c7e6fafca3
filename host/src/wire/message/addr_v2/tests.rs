#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
use proptest::prelude::*;

use super::*;
use crate::wire::RawMessage;
use crate::wire::codec::Command;
use crate::wire::message::Message;

fn read(payload: Vec<u8>) -> Result<Vec<AddrV2Message>, PayloadError> {
    let raw = RawMessage {
        command: Command::from_padded(*b"addrv2\0\0\0\0\0\0").unwrap(),
        payload: payload.into(),
    };
    match Message::read(raw)? {
        Message::AddrV2(list) => Ok(list),
        other => panic!("{other:?}"),
    }
}

/// One entry: the time, services 1,033, the network and the address as given, port 8333.
fn entry(network: u8, address: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x78, 0x56, 0x34, 0x12, 0xfd, 0x09, 0x04, network];
    match u16::try_from(address.len()).unwrap() {
        short if short < 0xfd => bytes.push(short as u8),
        long => {
            bytes.push(0xfd);
            bytes.extend(long.to_le_bytes());
        }
    }
    bytes.extend(address);
    bytes.extend([0x20, 0x8d]);
    bytes
}

/// A message of these, and an ordinary address behind them.
fn message(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![entries.len() as u8 + 1];
    entries.iter().for_each(|entry| bytes.extend(entry));
    bytes.extend(entry(1, &[1, 2, 3, 4]));
    bytes
}

fn ipv6(text: &str) -> Vec<u8> {
    text.parse::<Ipv6Addr>().unwrap().octets().to_vec()
}

#[test]
fn addresses_that_embed_others_are_passed_over_and_those_behind_them_are_read() {
    for (network, address) in [
        (2, ipv6("::ffff:1.2.3.4")),
        // OnionCat, a name of Core's, and CJDNS out of its range.
        (2, ipv6("fd87:d87e:eb43:edb1:8e4:3588:e546:35ca")),
        (2, ipv6("fd6b:88c0:8724:edb1:8e4:3588:e546:35ca")),
        (6, ipv6("aa00:1:2:3:4:5:6:7")),
    ] {
        let payload = message(&[entry(network, &address)]);
        let list = read(payload.clone()).unwrap();
        assert_eq!(list[0].addr, AddrV2::Unknown(network, address));
        assert_eq!(list[1].addr, AddrV2::Ipv4([1, 2, 3, 4].into()));
        // As it came, should anybody send it on.
        assert_eq!(Message::AddrV2(list).payload(), payload);
    }
}

#[test]
fn unknown_networks_are_passed_over_with_any_length_up_to_512() {
    for (network, length) in [(0, 4), (3, 10), (3, 16), (7, 0), (99, 300), (255, 512)] {
        let list = read(message(&[entry(network, &vec![9; length])])).unwrap();
        assert_eq!(list[0].addr, AddrV2::Unknown(network, vec![9; length]));
        assert_eq!(list[1].port, 8_333);
    }
    assert!(matches!(
        read(message(&[entry(255, &[9; 513])])),
        Err(PayloadError::Malformed { .. })
    ));
}

#[test]
fn a_wrong_length_of_a_known_network_is_an_error() {
    for (network, right) in [(1, 4), (2, 16), (4, 32), (5, 32), (6, 16)] {
        // 0xfc is what a CJDNS address begins with, and public IPv6 ones do not.
        let first = if network == 6 { 0xfc } else { 0x20 };
        for length in [0, 3, 4, 5, 10, 15, 16, 17, 31, 32, 33, 512] {
            let address = vec![first; length];
            let result = read(message(&[entry(network, &address)]));
            assert_eq!(result.is_ok(), length == right, "{network} {length}");
        }
    }
}

#[test]
fn all_that_bip155_names_is_read_as_it_says() {
    let list = read(message(&[
        entry(2, &ipv6("2001:db8::7")),
        entry(4, &[4; 32]),
        entry(5, &[5; 32]),
        entry(6, &ipv6("fc00:1:2:3:4:5:6:7")),
    ]));
    let list = list.unwrap();
    assert_eq!(
        (list[0].time, list[0].services.to_u64(), list[0].port),
        (0x1234_5678, 1_033, 8_333)
    );
    let addresses: Vec<AddrV2> = list.into_iter().map(|entry| entry.addr).collect();
    assert_eq!(
        addresses,
        [
            AddrV2::Ipv6("2001:db8::7".parse().unwrap()),
            AddrV2::TorV3([4; 32]),
            AddrV2::I2p([5; 32]),
            AddrV2::Cjdns("fc00:1:2:3:4:5:6:7".parse().unwrap()),
            AddrV2::Ipv4([1, 2, 3, 4].into()),
        ]
    );
}

#[test]
fn a_thousand_are_taken_and_one_more_is_an_offence() {
    let mut payload = vec![0xfd, 0xe8, 0x03];
    (0..1_000).for_each(|_| payload.extend(entry(1, &[1, 2, 3, 4])));
    assert_eq!(read(payload.clone()).unwrap().len(), 1_000);
    payload[1] = 0xe9;
    payload.extend(entry(1, &[1, 2, 3, 4]));
    assert!(matches!(
        read(payload),
        Err(PayloadError::TooMany { count: 1_001, .. })
    ));
}

proptest! {
    /// Where the `bitcoin` crate reads a message, we read the same.
    #[test]
    fn what_the_library_reads_is_read_the_same(
        networks in proptest::collection::vec((0u8..9, 0usize..5), 0..4),
        noise in proptest::collection::vec(any::<u8>(), 64),
    ) {
        let mut payload = vec![networks.len() as u8];
        for (network, length) in &networks {
            let length = [4, 10, 16, 32, 7][*length];
            payload.extend(entry(*network, &noise[..length]));
        }
        let theirs: Result<Vec<AddrV2Message>, _> = bitcoin::consensus::deserialize(&payload);
        if let Ok(theirs) = theirs {
            // Tor's version 2 alone is another to us: none.
            let theirs: Vec<AddrV2Message> = theirs
                .into_iter()
                .map(|mut entry| {
                    if let AddrV2::TorV2(name) = entry.addr {
                        entry.addr = AddrV2::Unknown(3, name.to_vec());
                    }
                    entry
                })
                .collect();
            prop_assert_eq!(read(payload).unwrap(), theirs);
        }
    }
}
