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
    // In numbers, so that a change of one is seen. What is small by nature has a small bound.
    const WHOLE: usize = 4_000_000;
    for (name, limit) in [
        ("version", 1_024),
        ("verack", 64),
        ("wtxidrelay", 64),
        ("sendaddrv2", 64),
        ("sendheaders", 64),
        ("sendcmpct", 64),
        ("feefilter", 64),
        ("ping", 64),
        ("pong", 64),
        ("getaddr", 64),
        ("mempool", 64),
        ("filterclear", 64),
        ("protoconf", 1_048_576),
        ("headers", 162_003),
        ("getheaders", 3_271),
        ("getblocks", 3_271),
        ("inv", 1_800_005),
        ("getdata", 1_800_005),
        ("notfound", 1_800_005),
        ("addr", 30_003),
        ("addrv2", 531_003),
        ("block", WHOLE),
        ("tx", WHOLE),
        ("cmpctblock", WHOLE),
        ("getblocktxn", WHOLE),
        ("blocktxn", WHOLE),
        ("merkleblock", WHOLE),
        ("filterload", WHOLE),
        ("reject", WHOLE),
        ("nobodyknows", WHOLE),
        ("", WHOLE),
    ] {
        let with_length = |length: usize| {
            let mut frame = encode_frame(MAGIC, name, &[]).to_vec();
            frame[16..20].copy_from_slice(&(length as u32).to_le_bytes());
            frame
        };
        for length in [limit + 1, u32::MAX as usize] {
            let error = refused(&with_length(length));
            assert!(
                matches!(error, WireError::TooLong { length: is, limit: at, .. } if is == length && at == limit),
                "{name}: {error}"
            );
        }
        let mut decoder = Decoder::new(MAGIC);
        decoder.feed(&with_length(limit));
        assert!(
            matches!(decoder.next(), Ok(None)),
            "{name}: the longest is waited for"
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

/// A message with the extended header.
fn extended(command: &str, payload: &[u8]) -> Vec<u8> {
    let mut name = [0; 12];
    name[..command.len()].copy_from_slice(command.as_bytes());
    [
        &MAGIC[..],
        b"extmsg\0\0\0\0\0\0",
        &[0xff; 4],
        &[0; 4],
        &name,
        &(payload.len() as u64).to_le_bytes(),
        payload,
    ]
    .concat()
}

/// Everything that a decoder gives of these bytes, in pieces of a size: whole messages, and streamed blocks put together.
fn given(
    decoder: &mut Decoder,
    bytes: &[u8],
    piece: usize,
) -> Result<Vec<(String, Vec<u8>)>, WireError> {
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    let mut block = Vec::new();
    for bytes in bytes.chunks(piece) {
        decoder.feed(bytes);
        loop {
            if let Some(piece) = decoder.next_piece() {
                assert_eq!(piece.total.is_some(), block.is_empty());
                assert!(!block.is_empty() || piece.bytes.len() >= 80);
                block.extend_from_slice(&piece.bytes);
                if piece.last {
                    found.push(("streamed".into(), std::mem::take(&mut block)));
                }
                continue;
            }
            match decoder.next()? {
                Some(raw) => found.push((raw.command.to_string(), raw.payload.to_vec())),
                None if decoder.is_streaming()
                    && block.is_empty()
                    && decoder.buffer().len() >= 80 => {}
                None => break,
            }
        }
    }
    Ok(found)
}

#[test]
fn a_large_block_comes_in_pieces_and_the_messages_around_it_whole() {
    let block: Vec<u8> = (0..300_000u32).map(|n| (n * 31) as u8).collect();
    let stream = [
        encode_frame(MAGIC, "ping", &7u64.to_le_bytes()).to_vec(),
        encode_frame(MAGIC, "block", &block).to_vec(),
        encode_frame(MAGIC, "block", &[7; 90_000]).to_vec(),
        extended("block", &block),
        encode_frame(MAGIC, "pong", &7u64.to_le_bytes()).to_vec(),
    ]
    .concat();
    for piece in [1, 79, 1_000, 65_536, stream.len()] {
        let mut decoder = Decoder::new(MAGIC);
        decoder.set_blocks(10_000_000, 100_000);
        decoder.set_extended(true);
        let found = given(&mut decoder, &stream, piece).unwrap();
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["ping", "streamed", "block", "streamed", "pong"]);
        assert_eq!(found[1].1, block);
        assert_eq!(found[3].1, block);
    }
}

#[test]
fn the_extended_header_is_read_only_where_it_was_agreed_on_and_within_bounds() {
    let small = extended("ping", &7u64.to_le_bytes());
    let mut decoder = Decoder::new(MAGIC);
    // Not agreed on: a message of 4 GB.
    assert!(matches!(
        given(&mut decoder, &small, 100),
        Err(WireError::TooLong { .. })
    ));
    let mut decoder = Decoder::new(MAGIC);
    decoder.set_extended(true);
    let found = given(&mut decoder, &small, 7).unwrap();
    assert_eq!(found, [("ping".to_owned(), 7u64.to_le_bytes().to_vec())]);
    // The bounds of each message hold, and so does the largest block's.
    for (command, largest) in [("inv", u64::from(u32::MAX)), ("block", 5_000_000)] {
        let mut head = extended(command, &[]);
        let length = head.len() - 8;
        head[length..].copy_from_slice(&(5_000_000_001u64).to_le_bytes());
        let mut decoder = Decoder::new(MAGIC);
        decoder.set_extended(true);
        decoder.set_blocks(largest, 100_000);
        assert!(
            matches!(
                given(&mut decoder, &head, 100),
                Err(WireError::TooLong {
                    length: 5_000_000_001,
                    ..
                })
            ),
            "{command}"
        );
    }
}
