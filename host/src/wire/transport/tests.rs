#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
use super::*;
use crate::wire::codec::Command;
use proptest::prelude::*;

mod reference;
mod vectors;

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
const OTHER: [u8; 4] = [0xf9, 0xbe, 0xb4, 0xd9];

fn secret(number: u8) -> Secret {
    Secret::new([number; 32])
}

fn initiator(number: u8) -> Transport {
    Transport::new(MAGIC, Opening::Initiator(secret(number)))
}

fn responder(number: u8) -> Transport {
    Transport::new(MAGIC, Opening::Responder(secret(number)))
}

fn output(transport: &mut Transport) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(piece) = transport.pop() {
        bytes.extend_from_slice(&piece);
    }
    bytes
}

fn messages(transport: &mut Transport) -> Result<Vec<RawMessage>, TransportError> {
    let mut messages = Vec::new();
    while let Some(message) = transport.next()? {
        messages.push(message);
    }
    Ok(messages)
}

/// Carries bytes to and fro until there are none; what each side heard.
fn converse(a: &mut Transport, b: &mut Transport) -> (Vec<RawMessage>, Vec<RawMessage>) {
    let (mut at_a, mut at_b) = (Vec::new(), Vec::new());
    loop {
        let (to_b, to_a) = (output(a), output(b));
        if to_a.is_empty() && to_b.is_empty() {
            return (at_a, at_b);
        }
        b.feed(&to_b);
        at_b.extend(messages(b).unwrap());
        a.feed(&to_a);
        at_a.extend(messages(a).unwrap());
    }
}

fn pair() -> (Transport, Transport) {
    let (mut a, mut b) = (initiator(1), responder(2));
    converse(&mut a, &mut b);
    (a, b)
}

fn names(messages: &[RawMessage]) -> Vec<&str> {
    messages.iter().map(|raw| raw.command.as_str()).collect()
}

#[test]
fn messages_sent_before_the_handshake_arrive_after_it_in_both_directions() {
    let (mut a, mut b) = (initiator(1), responder(2));
    a.send("version", vec![1; 100]);
    b.send("verack", Vec::new());
    assert_eq!((a.kind(), b.kind()), (None, None));
    let (at_a, at_b) = converse(&mut a, &mut b);
    assert_eq!(names(&at_b), ["version"]);
    assert_eq!(at_b[0].payload, [1; 100][..]);
    assert_eq!(names(&at_a), ["verack"]);
    assert_eq!(a.kind(), Some(TransportKind::V2));
    assert_eq!(b.kind(), Some(TransportKind::V2));
    assert_eq!(a.session_id(), b.session_id());
    assert!(a.session_id().is_some());
}

#[test]
fn a_thousand_messages_pass_through_four_changes_of_the_key() {
    let (mut a, mut b) = pair();
    for number in 0..1_000_u32 {
        a.send("ping", number.to_le_bytes().to_vec());
        b.send("something", vec![7; (number % 50) as usize]);
        b.send("inv", vec![0]);
    }
    let (at_a, at_b) = converse(&mut a, &mut b);
    assert_eq!(at_b.len(), 1_000);
    for (number, raw) in at_b.iter().enumerate() {
        assert_eq!(raw.command.as_str(), "ping");
        assert_eq!(raw.payload, (number as u32).to_le_bytes()[..]);
    }
    assert_eq!(at_a.len(), 2_000);
    assert_eq!(names(&at_a[..2]), ["something", "inv"]);
    assert_eq!(at_a[2 * 999].payload.len(), 999 % 50);
}

#[test]
fn a_block_of_the_largest_size_passes_and_its_short_name_costs_one_byte() {
    let (mut a, mut b) = pair();
    let block = vec![9; crate::wire::codec::MAX_PAYLOAD];
    a.send("block", block.clone());
    let bytes = output(&mut a);
    assert_eq!(bytes.len(), 3 + 1 + 1 + block.len() + 16);
    b.feed(&bytes);
    assert_eq!(messages(&mut b).unwrap()[0].payload, block);
    a.send("block", vec![9; crate::wire::codec::MAX_PAYLOAD + 100]);
    assert!(output(&mut a).is_empty());
}

#[test]
fn messages_have_the_bounds_of_version_1() {
    let (mut a, mut b) = pair();
    a.send("ping", vec![0; 65]);
    b.feed(&output(&mut a));
    let error = TransportError::Wire(WireError::TooLong {
        command: Command::from_padded(*b"ping\0\0\0\0\0\0\0\0").unwrap(),
        length: 65,
        limit: 64,
    });
    assert_eq!(b.next(), Err(error));
    assert_eq!(b.next(), Err(error));
}

#[test]
fn a_responder_takes_version_1_unless_it_insists() {
    let mut b = responder(2);
    b.send("verack", Vec::new());
    let hello = encode_frame(MAGIC, "version", &[5; 90]);
    for byte in &hello[..15] {
        b.feed(&[*byte]);
        assert_eq!(b.next(), Ok(None));
        assert_eq!(b.kind(), None);
    }
    b.feed(&hello[15..]);
    assert_eq!(names(&messages(&mut b).unwrap()), ["version"]);
    assert_eq!(b.kind(), Some(TransportKind::V1));
    assert_eq!(output(&mut b), encode_frame(MAGIC, "verack", &[]));

    let mut strict = Transport::new(MAGIC, Opening::EncryptedResponder(secret(2)));
    strict.feed(&hello);
    assert_eq!(strict.next(), Err(TransportError::VersionOne));
}

#[test]
fn version_1_of_another_network_is_no_key() {
    let mut b = responder(2);
    b.feed(&encode_frame(OTHER, "version", &[5; 90]));
    assert_eq!(b.next(), Err(TransportError::OtherNetwork(OTHER)));
}

#[test]
fn a_peer_that_answers_a_key_in_version_1_is_told_as_such() {
    let mut a = initiator(1);
    a.feed(&encode_frame(MAGIC, "version", &[5; 90]));
    assert_eq!(a.next(), Err(TransportError::VersionOne));
    assert_eq!(a.kind(), None);
}

#[test]
fn two_networks_do_not_understand_one_another() {
    let mut a = initiator(1);
    let mut b = Transport::new(OTHER, Opening::Responder(secret(2)));
    let result = (0..4).find_map(|_| {
        b.feed(&output(&mut a));
        let failed = b.next().err();
        a.feed(&output(&mut b));
        failed.or(a.next().err())
    });
    // The terminators differ, so at the least one side has too much garbage, if it has heard enough to say so.
    assert!(matches!(result, None | Some(TransportError::Garbage)));
    assert_eq!((a.kind(), b.kind()), (None, None));
    a.feed(&[0; 4_200]);
    assert_eq!(a.next(), Err(TransportError::Garbage));
}

#[test]
fn garbage_without_end_is_given_up_after_4095_bytes_and_what_came_is_let_go() {
    for piece in [1, 1_000, 100_000] {
        let mut b = responder(2);
        b.feed(&[7; 64]);
        assert_eq!(b.next(), Ok(None));
        let mut fed = 0;
        let error = loop {
            b.feed(&vec![7; piece]);
            fed += piece;
            if let Err(error) = b.next() {
                break error;
            }
            assert!(fed < 4_095 + 16);
        };
        assert_eq!(error, TransportError::Garbage);
        assert!(fed >= 4_095 + 16);
        b.feed(&[0; 100]);
        assert_eq!(b.next(), Err(TransportError::Garbage));
    }
}

#[test]
fn secrets_differ_and_a_seed_gives_the_same_ones_again() {
    let bytes = |entropy: &mut Entropy| {
        let opening = Opening::Initiator(entropy.secret().unwrap());
        output(&mut Transport::new(MAGIC, opening))
    };
    let (mut a, mut b) = (Entropy::Seeded(7, 0), Entropy::Seeded(7, 0));
    let first = bytes(&mut a);
    assert_eq!(first, bytes(&mut b));
    assert_ne!(first, bytes(&mut b));
    assert_ne!(bytes(&mut Entropy::System), bytes(&mut Entropy::System));
    assert_eq!(format!("{:?}", secret(1)), "Secret(…)");
}

/// What an initiator sends that greets and says four things, and the responder it sends it to, before it hears a byte.
fn conversation() -> (Vec<u8>, Transport, Vec<RawMessage>) {
    let (mut a, mut b) = (initiator(3), responder(4));
    let mut stream = output(&mut a);
    b.feed(&stream);
    b.next().unwrap();
    a.feed(&output(&mut b));
    a.next().unwrap();
    a.send("version", vec![1; 86]);
    a.send("verack", Vec::new());
    a.send("unheardof", vec![2; 300]);
    a.send("tx", vec![3; 3_000]);
    let rest = output(&mut a);
    b.feed(&rest);
    let said = messages(&mut b).unwrap();
    stream.extend(rest);
    assert_eq!(names(&said), ["version", "verack", "unheardof", "tx"]);
    (stream, responder(4), said)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_splitting_of_the_bytes_gives_the_same_messages(cuts in proptest::collection::vec(1..2_000_usize, 0..40)) {
        let (stream, mut b, said) = conversation();
        let (mut heard, mut rest) = (Vec::new(), &stream[..]);
        for cut in cuts {
            let (piece, left) = rest.split_at(cut.min(rest.len()));
            b.feed(piece);
            heard.extend(messages(&mut b).unwrap());
            rest = left;
        }
        for byte in rest.chunks(1) {
            b.feed(byte);
            heard.extend(messages(&mut b).unwrap());
        }
        prop_assert_eq!(heard, said);
    }

    #[test]
    fn a_flipped_bit_anywhere_ends_the_connection_or_keeps_it_waiting(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let (mut stream, mut b, said) = conversation();
        let at = at.index(stream.len());
        stream[at] ^= 1 << bit;
        b.feed(&stream);
        let mut heard = Vec::new();
        let ended = loop {
            match b.next() {
                Ok(Some(message)) => heard.push(message),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        // Nothing that was not said is heard, and the message with the spoiled bit is not.
        prop_assert!(heard.len() < said.len());
        prop_assert_eq!(&heard[..], &said[..heard.len()]);
        // A spoiled length may announce more than came: then it is the next bytes that end it.
        if ended.is_none() {
            b.feed(&vec![0; MAX_CONTENTS + 100]);
            prop_assert!(messages(&mut b).is_err());
        }
    }

    #[test]
    fn any_bytes_are_messages_or_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..6_000), v2 in any::<bool>()) {
        let mut transport = if v2 { initiator(1) } else { responder(1) };
        transport.feed(&bytes);
        let _ = messages(&mut transport);
    }
}
