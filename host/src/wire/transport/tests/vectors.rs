//! BIP324's vectors, and the transport in conversation with the reference that meets them.

use super::reference::Reference;
use super::*;
use bitcoin::hex::FromHex;

/// BIP324's `packet_encoding_test_vectors.csv`, without those of megabytes and without what comes in between.
const VECTORS: &str = include_str!("vectors.csv");

fn hex(text: &str) -> Vec<u8> {
    Vec::from_hex(text).unwrap()
}

#[test]
fn the_reference_meets_the_vectors_of_the_bip() {
    let mut session_ids = 0;
    for line in VECTORS.lines().skip(1) {
        let [
            index,
            secret,
            ours,
            theirs,
            initiating,
            contents,
            aad,
            ignore,
            id,
            end,
        ] = line.split(',').collect::<Vec<_>>().try_into().unwrap();
        let ours = hex(ours).try_into().unwrap();
        let mut reference = Reference::new(hex(secret).try_into().unwrap(), Some(ours));
        let magic = [0xf9, 0xbe, 0xb4, 0xd9];
        reference.hear_key(hex(theirs).try_into().unwrap(), initiating == "1", magic);
        for _ in 0..index.parse::<u32>().unwrap() {
            reference.packet(&[], &[], false);
        }
        let packet = reference.packet(&hex(contents), &hex(aad), ignore == "1");
        assert!(packet.ends_with(&hex(end)), "{line}");
        if !id.is_empty() {
            assert_eq!(reference.session_id, hex(id)[..]);
            session_ids += 1;
        }
    }
    assert_eq!((VECTORS.lines().count(), session_ids), (6, 2));
}

/// A transport and a reference that have shaken hands, with this much garbage and these decoys from the reference.
fn shaken(initiating: bool, garbage: &[u8], decoys: usize) -> (Transport, Reference) {
    let mut reference = Reference::new([9; 32], None);
    let mut transport = match initiating {
        true => initiator(5),
        false => responder(5),
    };
    transport.feed(&reference.ours.clone());
    transport.feed(garbage);
    assert_eq!(transport.next(), Ok(None));
    let mut heard = output(&mut transport);
    let key: Vec<u8> = heard.drain(..64).collect();
    reference.hear_key(key.try_into().unwrap(), !initiating, MAGIC);
    transport.feed(&reference.our_terminator.clone());
    let mut aad = garbage;
    for _ in 0..decoys {
        transport.feed(&reference.packet(b"nothing", aad, true));
        aad = &[];
    }
    // The version packet may have contents: they are for versions to come.
    transport.feed(&reference.packet(b"later", aad, false));
    assert_eq!(transport.next(), Ok(None));
    assert_eq!(transport.kind(), Some(TransportKind::V2));
    assert_eq!(transport.session_id(), Some(reference.session_id));

    let end = heard
        .windows(16)
        .position(|window| window == reference.their_terminator)
        .unwrap();
    let theirs: Vec<u8> = heard.drain(..end + 16).collect();
    let (ignore, version) = reference.open(&mut heard, &theirs[..end]);
    assert_eq!((ignore, version), (false, Vec::new()));
    assert!(heard.is_empty());
    (transport, reference)
}

#[test]
fn the_transport_understands_the_reference_and_is_understood_in_both_roles() {
    for initiating in [true, false] {
        for (garbage, decoys) in [(0, 0), (1, 1), (4_095, 3)] {
            let (mut transport, mut reference) = shaken(initiating, &vec![3; garbage], decoys);
            // Past two changes of the key, with decoys in between.
            for number in 0..500_u32 {
                if number % 7 == 0 {
                    transport.feed(&reference.packet(&[1; 9], &[], true));
                }
                let ping = [&[18], &u64::from(number).to_le_bytes()[..]].concat();
                transport.feed(&reference.packet(&ping, &[], false));
                let heard = messages(&mut transport).unwrap();
                assert_eq!(names(&heard), ["ping"]);
                assert_eq!(heard[0].payload, u64::from(number).to_le_bytes()[..]);
                transport.send("pong", vec![number as u8; 8]);
                transport.send("wtxidrelay", Vec::new());
                let mut stream = output(&mut transport);
                let pong = [&[19], &[number as u8; 8][..]].concat();
                assert_eq!(reference.open(&mut stream, &[]), (false, pong));
                let long = b"\0wtxidrelay\0\0".to_vec();
                assert_eq!(reference.open(&mut stream, &[]), (false, long));
            }
        }
    }
}

#[test]
fn one_byte_of_garbage_too_many_ends_the_handshake() {
    let mut reference = Reference::new([9; 32], None);
    let mut b = responder(5);
    b.feed(&reference.ours.clone());
    b.next().unwrap();
    let heard = output(&mut b);
    reference.hear_key(heard[..64].try_into().unwrap(), true, MAGIC);
    b.feed(&[3; 4_096]);
    b.feed(&reference.our_terminator.clone());
    assert_eq!(b.next(), Err(TransportError::Garbage));
}

#[test]
fn garbage_that_was_tampered_with_is_found_by_the_first_packet() {
    let mut reference = Reference::new([9; 32], None);
    let mut b = responder(5);
    b.feed(&reference.ours.clone());
    b.next().unwrap();
    let heard = output(&mut b);
    reference.hear_key(heard[..64].try_into().unwrap(), true, MAGIC);
    b.feed(&[3; 100]);
    b.feed(&reference.our_terminator.clone());
    b.feed(&reference.packet(&[], &[4; 100], false));
    assert_eq!(b.next(), Err(TransportError::Decrypt));
}

#[test]
fn packets_that_mean_nothing_are_passed_over_and_names_that_are_none_end_it() {
    let (mut b, mut reference) = shaken(false, &[], 0);
    b.feed(&reference.packet(&[], &[], false));
    b.feed(&reference.packet(&[29, 1, 2], &[], false));
    b.feed(&reference.packet(&[0, b'x'], &[], false));
    // Flags that are reserved mean nothing; the one for decoys does, whatever the others are.
    b.feed(&reference.packet_with_flags(&[18; 9], &[], 0x81));
    b.feed(&reference.packet_with_flags(&[19; 9], &[], 0x7f));
    assert_eq!(names(&messages(&mut b).unwrap()), ["pong"]);
    b.feed(&reference.packet(b"\0pi\0ng\0\0\0\0\0\0\0", &[], false));
    assert_eq!(
        b.next(),
        Err(TransportError::Wire(WireError::Command(
            *b"pi\0ng\0\0\0\0\0\0\0"
        )))
    );
}

#[test]
fn a_packet_that_announces_more_than_any_message_has_is_not_waited_for() {
    let (mut b, mut reference) = shaken(false, &[], 0);
    let length = reference.packet(&vec![0; MAX_CONTENTS + 1], &[], false);
    b.feed(&length[..3]);
    let error = TransportError::PacketTooLong {
        length: MAX_CONTENTS + 1 + 17,
        limit: MAX_CONTENTS + 17,
    };
    assert_eq!(b.next(), Err(error));
    assert_eq!(b.next(), Err(error));
}
