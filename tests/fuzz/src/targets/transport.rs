//! Version 2 of the transport (BIP324): the handshake of whatever comes, and packets whose contents a peer chose, in pieces,
//! with decoys, and spoiled.

use std::sync::LazyLock;

use bip324::{
    CipherSession, GarbageResult, Handshake, Initialized, OutboundCipher, PacketType, ReceivedKey,
    Role, VersionResult,
};
use bitcoin::secp256k1::{Secp256k1, SignOnly};
use blockmill::wire::transport::{Entropy, MAX_CONTENTS, Secret};
use blockmill::wire::{Opening, RawMessage, Transport, TransportError, TransportKind};

use super::Verdict;
use crate::{Input, memory, shapes};

static CURVE: LazyLock<Secp256k1<SignOnly>> = LazyLock::new(Secp256k1::signing_only);

/// What an input does.
const MODES: u8 = 3;

/// The first byte says what is done, the second in what pieces bytes come.
pub fn run(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    let mode = input.byte();
    let piece = usize::from(input.byte()) * 4 + 1;
    // Up to a packet of the largest size is made room for.
    memory::bounded(MAX_CONTENTS + (2 << 20) + 40 * data.len(), || {
        match mode % MODES {
            0 => whatever_comes(mode / MODES, piece, input.rest()),
            1 => packets(piece, input),
            _ => between_two(piece, input),
        }
    })
}

fn secret(number: u64) -> Secret {
    Entropy::Seeded(number, 0).secret().expect("from a seed")
}

/// What a transport makes of bytes: messages, and the error that ended them.
fn feed(
    transport: &mut Transport,
    bytes: &[u8],
    piece: usize,
) -> (Vec<RawMessage>, Option<TransportError>) {
    let mut messages = Vec::new();
    for piece in bytes.chunks(piece) {
        transport.feed(piece);
        loop {
            match transport.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(transport.next(), Err(error), "it says the same again");
                    return (messages, Some(error));
                }
            }
        }
    }
    (messages, None)
}

/// Bytes from somebody whom we do not know, to each end of a connection.
fn whatever_comes(kind: u8, piece: usize, bytes: &[u8]) -> Verdict {
    let opening = match kind % 4 {
        0 => Opening::Responder(secret(1)),
        1 => Opening::EncryptedResponder(secret(1)),
        2 => Opening::Initiator(secret(1)),
        _ => Opening::V1,
    };
    let once = |piece| {
        let mut transport = Transport::new(shapes::MAGIC, opening);
        transport.send("ping", vec![7; 8]);
        let heard = feed(&mut transport, bytes, piece);
        let sent: Vec<_> = std::iter::from_fn(|| transport.pop()).collect();
        (heard, transport.kind(), sent)
    };
    let whole = once(bytes.len().max(1));
    assert_eq!(whole, once(piece));
    // A key without its secret opens nothing.
    assert!(whole.1 != Some(TransportKind::V2));
    Verdict::taken(!whole.0.0.is_empty() || !whole.2.is_empty())
}

/// A peer with the crate's own handshake, which can send any contents: messages with whatever name, decoys, and one packet
/// of which a byte is changed.
fn packets(piece: usize, mut input: Input<'_>) -> Verdict {
    let garbage = input.byte();
    let mut transport = Transport::new(shapes::MAGIC, Opening::Responder(secret(2)));
    let Some(session) = handshake(&mut transport, &vec![garbage; garbage.into()]) else {
        panic!("a handshake failed");
    };
    let mut cipher = session.into_split().1;
    let mut heard = 0;
    while !input.is_empty() {
        let flags = input.byte();
        let contents = input.chunk();
        let kind = match flags & 1 {
            0 => PacketType::Genuine,
            _ => PacketType::Decoy,
        };
        let mut packet = vec![0; OutboundCipher::encryption_buffer_len(contents.len())];
        cipher
            .encrypt(contents, &mut packet, kind, None)
            .expect("a buffer of the right size");
        let spoiled = flags & 2 != 0;
        if spoiled {
            let at = usize::from(input.u16()) % packet.len();
            packet[at] ^= input.byte() | 1;
        }
        let (messages, error) = feed(&mut transport, &packet, piece);
        if spoiled {
            assert!(messages.is_empty(), "spoiled, and taken");
            // A length that was spoiled may only be longer.
            assert!(!matches!(error, Some(TransportError::Wire(_))));
            return Verdict::Taken;
        }
        match kind {
            PacketType::Decoy => assert!(messages.is_empty() && error.is_none()),
            PacketType::Genuine => {
                assert!(messages.len() <= 1);
                for message in &messages {
                    assert!(contents.ends_with(&message.payload));
                    let name = contents.len() - message.payload.len();
                    assert!(name == 1 || name == 13, "a name of {name} bytes");
                }
            }
        }
        heard += messages.len();
        if error.is_some() {
            break;
        }
    }
    Verdict::taken(heard > 0)
}

/// The handshake of a peer that connects to `transport`; the session is the peer's.
fn handshake(transport: &mut Transport, garbage: &[u8]) -> Option<CipherSession> {
    let mut secret = secret(3);
    let ours = Handshake::new_with_rng(shapes::MAGIC, Role::Initiator, &mut secret, &CURVE).ok()?;
    let mut key = vec![0; Handshake::<Initialized>::send_key_len(Some(garbage))];
    let ours = ours.send_key(Some(garbage), &mut key).ok()?;
    assert_eq!(feed(transport, &key, usize::MAX), (Vec::new(), None));
    let mut theirs: Vec<u8> = std::iter::from_fn(|| transport.pop()).flatten().collect();
    let rest = theirs.split_off(64);
    let ours = ours.receive_key(theirs.try_into().ok()?).ok()?;
    let mut version = vec![0; Handshake::<ReceivedKey<'_>>::send_version_len(None)];
    let ours = ours.send_version(&mut version, None).ok()?;
    assert_eq!(feed(transport, &version, usize::MAX), (Vec::new(), None));
    let more: Vec<u8> = std::iter::from_fn(|| transport.pop()).flatten().collect();
    let heard = [rest, more].concat();
    let GarbageResult::FoundGarbage {
        handshake: mut ours,
        consumed_bytes,
    } = ours.receive_garbage(&heard).ok()?
    else {
        return None;
    };
    let length = heard.get(consumed_bytes..consumed_bytes + 3)?;
    let length = ours.decrypt_packet_len(length.try_into().ok()?).ok()?;
    let mut packet = heard
        .get(consumed_bytes + 3..consumed_bytes + 3 + length)?
        .to_vec();
    let VersionResult::Complete { cipher } = ours.receive_version(&mut packet).ok()? else {
        return None;
    };
    assert_eq!(transport.session_id(), Some(*cipher.id()), "of one session");
    Some(cipher)
}

/// What one of ours sends arrives at another of ours as it was sent, or not at all.
fn between_two(piece: usize, mut input: Input<'_>) -> Verdict {
    let mut one = Transport::new(shapes::MAGIC, Opening::Initiator(secret(4)));
    let mut other = Transport::new(shapes::MAGIC, Opening::Responder(secret(5)));
    let mut sent = Vec::new();
    while !input.is_empty() && sent.len() < 16 {
        let name = input.byte();
        let payload = input.chunk();
        let command = super::payload::command(name);
        one.send(command.as_str(), payload.to_vec());
        sent.push((command, payload));
    }
    let mut heard = Vec::new();
    let mut error = None;
    for _ in 0..4 {
        let bytes: Vec<u8> = std::iter::from_fn(|| one.pop()).flatten().collect();
        let (messages, failed) = feed(&mut other, &bytes, piece);
        heard.extend(messages);
        error = error.or(failed);
        let bytes: Vec<u8> = std::iter::from_fn(|| other.pop()).flatten().collect();
        assert_eq!(feed(&mut one, &bytes, piece), (Vec::new(), None));
    }
    assert_eq!(one.session_id(), other.session_id());
    // Too long for its name: the only thing that can be wrong here.
    let too_long = matches!(
        error,
        Some(TransportError::Wire(
            blockmill::wire::WireError::TooLong { .. }
        ))
    );
    assert!(error.is_none() || too_long, "{error:?}");
    assert!(heard.len() == sent.len() || (too_long && heard.len() < sent.len()));
    for (message, (command, payload)) in heard.iter().zip(&sent) {
        assert_eq!(message.command, *command);
        assert_eq!(message.payload, *payload);
    }
    Verdict::taken(!heard.is_empty())
}
