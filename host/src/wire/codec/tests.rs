#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::wire::message::Message;

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

fn all(decoder: &mut Decoder) -> Result<Vec<RawMessage>, WireError> {
    let mut messages = Vec::new();
    while let Some(message) = decoder.next()? {
        messages.push(message);
    }
    Ok(messages)
}

#[test]
fn a_frame_is_what_bitcoin_cores_peers_send() {
    let verack = encode_frame([0xf9, 0xbe, 0xb4, 0xd9], "verack", &[]);
    assert_eq!(
        verack,
        hex("f9beb4d976657261636b000000000000000000005df6e0e2")
    );
}

fn hex(text: &str) -> Vec<u8> {
    bitcoin::hex::FromHex::from_hex(text).unwrap()
}

#[test]
fn messages_are_the_same_in_whatever_pieces_they_arrive() {
    let stream: Vec<u8> = [
        encode_frame(MAGIC, "ping", &7u64.to_le_bytes()),
        encode_frame(MAGIC, "verack", &[]),
        encode_frame(MAGIC, "block", &[9; 100_000]),
        encode_frame(MAGIC, "whatever", &[1, 2, 3]),
    ]
    .concat();
    let mut whole = Decoder::new(MAGIC);
    whole.feed(&stream);
    let expected = all(&mut whole).unwrap();
    assert_eq!(expected.len(), 4);
    assert_eq!(expected[2].payload, vec![9; 100_000]);
    assert_eq!(expected[3].command.as_str(), "whatever");
    for piece in [1, 3, 23, 24, 25, 1000, 65_536] {
        let mut decoder = Decoder::new(MAGIC);
        let mut messages = Vec::new();
        for bytes in stream.chunks(piece) {
            decoder.feed(bytes);
            messages.extend(all(&mut decoder).unwrap());
        }
        assert_eq!(messages, expected, "pieces of {piece}");
    }
}

fn refused(bytes: &[u8]) -> WireError {
    let mut decoder = Decoder::new(MAGIC);
    decoder.feed(bytes);
    let error = all(&mut decoder).unwrap_err();
    // It stays refused, whatever comes after.
    decoder.feed(&encode_frame(MAGIC, "verack", &[]));
    assert_eq!(decoder.next(), Err(error));
    error
}

#[test]
fn another_networks_magic_is_refused_by_its_first_bytes() {
    assert_eq!(refused(b"HTTP"), WireError::Magic(*b"HTTP"));
}

#[test]
fn a_wrong_checksum_is_refused() {
    let mut frame = encode_frame(MAGIC, "ping", &[0; 8]).to_vec();
    frame[20] ^= 1;
    assert!(matches!(refused(&frame), WireError::Checksum(command) if command.as_str() == "ping"));
}

#[test]
fn the_checksum_of_a_block_can_be_left_to_its_merkle_root() {
    let spoiled = |name| {
        let mut frame = encode_frame(MAGIC, name, &[0; 100]).to_vec();
        frame[20] ^= 1;
        let mut decoder = Decoder::new(MAGIC);
        decoder.set_verify_blocks(false);
        decoder.feed(&frame);
        decoder.next()
    };
    assert!(spoiled("block").unwrap().is_some());
    assert!(matches!(spoiled("tx"), Err(WireError::Checksum(_))));
}

#[test]
fn a_malformed_command_is_refused() {
    for name in [
        *b"pi\0ng\0\0\0\0\0\0\0",
        *b"p\x7fng\0\0\0\0\0\0\0\0",
        *b"p\nng\0\0\0\0\0\0\0\0",
        [0xff; 12],
    ] {
        let mut frame = encode_frame(MAGIC, "ping", &[0; 8]).to_vec();
        frame[4..16].copy_from_slice(&name);
        assert_eq!(refused(&frame), WireError::Command(name));
    }
}

#[test]
fn a_payload_longer_than_its_kind_may_be_is_refused_before_it_comes() {
    for (name, limit) in [
        ("block", MAX_PAYLOAD),
        ("ping", 64),
        ("inv", 1_800_005),
        ("headers", 162_003),
    ] {
        let mut frame = encode_frame(MAGIC, name, &[]).to_vec();
        frame[16..20].copy_from_slice(&(limit as u32 + 1).to_le_bytes());
        let error = refused(&frame);
        assert!(
            matches!(error, WireError::TooLong { length, limit: at, .. } if length == limit + 1 && at == limit)
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_give_messages_or_an_error(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8), magic in any::<bool>()) {
        let mut decoder = Decoder::new(MAGIC);
        if magic {
            decoder.feed(&MAGIC);
        }
        for piece in pieces {
            decoder.feed(&piece);
            while let Ok(Some(raw)) = decoder.next() {
                let _ = Message::read(raw);
            }
        }
    }
}

/// What the checksum costs; printed, not asserted.
#[test]
fn the_checksum_is_fast_enough() {
    let block = vec![7u8; 4_000_000];
    let frame = encode_frame(MAGIC, "block", &block);
    let started = Instant::now();
    for _ in 0..10 {
        let mut decoder = Decoder::new(MAGIC);
        for piece in frame.chunks(1 << 16) {
            decoder.feed(piece);
        }
        assert_eq!(decoder.next().unwrap().unwrap().payload.len(), block.len());
    }
    let all = started.elapsed();
    let started = Instant::now();
    for _ in 0..10 {
        assert_eq!(checksum(&block).len(), 4);
    }
    println!(
        "40 MB: {all:?}, of which the checksums {:?}",
        started.elapsed()
    );
}
