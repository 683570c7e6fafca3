//! BIP324 once more, straight from the text of the BIP and slow, to hold the transport against: it shares the curve with
//! the crate and nothing else. BIP324's own vectors hold it to the BIP.

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use bitcoin::secp256k1::ellswift::{ElligatorSwift, ElligatorSwiftParty};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use crypto_bigint::{NonZero, U256};

const REKEY_INTERVAL: u64 = 224;

fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut engine = HmacEngine::<sha256::Hash>::new(key);
    engine.input(data);
    Hmac::<sha256::Hash>::from_engine(engine).to_byte_array()
}

/// HKDF-SHA256 with 32 bytes of output (RFC 5869).
fn hkdf(salt: &[u8], material: &[u8], info: &[u8]) -> [u8; 32] {
    hmac(&hmac(salt, material), &[info, &[1]].concat())
}

fn keystream(key: &[u8; 32], nonce: &[u8; 12], from: u64, length: usize) -> Vec<u8> {
    let mut stream = vec![0; length];
    let mut cipher = ChaCha20::new(key.into(), nonce.into());
    cipher.seek(from);
    cipher.apply_keystream(&mut stream);
    stream
}

/// Poly1305 (RFC 8439, 2.5).
fn poly1305(key: &[u8], data: &[u8]) -> [u8; 16] {
    let number = |bytes: &[u8]| {
        let mut padded = [0; 32];
        padded[..bytes.len()].copy_from_slice(bytes);
        U256::from_le_slice(&padded)
    };
    let prime = U256::ONE.shl_vartime(130).wrapping_sub(&U256::from_u8(5));
    let prime = NonZero::new(prime).unwrap();
    let mut r = key[..16].to_vec();
    for at in [3, 7, 11, 15] {
        r[at] &= 15;
    }
    for at in [4, 8, 12] {
        r[at] &= 252;
    }
    let r = number(&r);
    let mut sum = U256::ZERO;
    for block in data.chunks(16) {
        let block = number(&[block, &[1]].concat());
        sum = sum
            .wrapping_add(&block)
            .wrapping_mul(&r)
            .rem_vartime(&prime);
    }
    let tag = sum.wrapping_add(&number(&key[16..32]));
    tag.to_le_bytes().as_ref()[..16].try_into().unwrap()
}

fn pad16(length: usize) -> Vec<u8> {
    vec![0; (16 - length % 16) % 16]
}

/// AEAD_CHACHA20_POLY1305 (RFC 8439, 2.8).
fn seal(key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let mask = keystream(key, nonce, 64, plain.len());
    let mut sealed: Vec<u8> = plain.iter().zip(mask).map(|(a, b)| a ^ b).collect();
    let authenticated = [
        aad,
        &pad16(aad.len()),
        &sealed,
        &pad16(sealed.len()),
        &(aad.len() as u64).to_le_bytes(),
        &(sealed.len() as u64).to_le_bytes(),
    ]
    .concat();
    let tag = poly1305(&keystream(key, nonce, 0, 32), &authenticated);
    sealed.extend(tag);
    sealed
}

fn nonce(low: u32, high: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&low.to_le_bytes());
    nonce[4..].copy_from_slice(&high.to_le_bytes());
    nonce
}

/// One direction: the keys and counters of lengths and packets.
struct Direction {
    length_key: [u8; 32],
    packet_key: [u8; 32],
    packets: u64,
}

impl Direction {
    fn crypt_length(&mut self, bytes: [u8; 3]) -> [u8; 3] {
        let nonce = nonce(0, self.packets / REKEY_INTERVAL);
        let from = 3 * (self.packets % REKEY_INTERVAL);
        let stream = keystream(&self.length_key, &nonce, from, 3);
        if (self.packets + 1).is_multiple_of(REKEY_INTERVAL) {
            let next = keystream(&self.length_key, &nonce, from + 3, 32);
            self.length_key = next.try_into().unwrap();
        }
        std::array::from_fn(|at| bytes[at] ^ stream[at])
    }

    /// After the length of the same packet.
    fn crypt_packet(&mut self, crypt: impl FnOnce(&[u8; 32], &[u8; 12]) -> Vec<u8>) -> Vec<u8> {
        let (low, high) = (self.packets % REKEY_INTERVAL, self.packets / REKEY_INTERVAL);
        let result = crypt(&self.packet_key, &nonce(low as u32, high));
        self.packets += 1;
        if self.packets.is_multiple_of(REKEY_INTERVAL) {
            let next = seal(&self.packet_key, &nonce(u32::MAX, high), &[], &[0; 32]);
            self.packet_key = next[..32].try_into().unwrap();
        }
        result
    }
}

/// One end of a connection.
pub(super) struct Reference {
    secret: SecretKey,
    pub(super) ours: [u8; 64],
    out: Option<Direction>,
    incoming: Option<Direction>,
    pub(super) session_id: [u8; 32],
    pub(super) our_terminator: Vec<u8>,
    pub(super) their_terminator: Vec<u8>,
}

impl Reference {
    pub(super) fn new(secret: [u8; 32], ours: Option<[u8; 64]>) -> Reference {
        let secret = SecretKey::from_slice(&secret).unwrap();
        let public = secret.public_key(&Secp256k1::new());
        Reference {
            secret,
            ours: ours.unwrap_or_else(|| ElligatorSwift::from_pubkey(public).to_array()),
            out: None,
            incoming: None,
            session_id: [0; 32],
            our_terminator: Vec::new(),
            their_terminator: Vec::new(),
        }
    }

    pub(super) fn hear_key(&mut self, theirs: [u8; 64], initiating: bool, magic: [u8; 4]) {
        let (ours, theirs) = (
            ElligatorSwift::from_array(self.ours),
            ElligatorSwift::from_array(theirs),
        );
        let (a, b, party) = match initiating {
            true => (ours, theirs, ElligatorSwiftParty::A),
            false => (theirs, ours, ElligatorSwiftParty::B),
        };
        let tag = Some(&b"bip324_ellswift_xonly_ecdh"[..]);
        let shared = ElligatorSwift::shared_secret(a, b, self.secret, party, tag);
        let salt = [&b"bitcoin_v2_shared_secret"[..], &magic].concat();
        let key = |info: &str| hkdf(&salt, shared.as_secret_bytes(), info.as_bytes());
        let direction = |length: &str, packet: &str| Direction {
            length_key: key(length),
            packet_key: key(packet),
            packets: 0,
        };
        let (from_initiator, from_responder) = (
            direction("initiator_L", "initiator_P"),
            direction("responder_L", "responder_P"),
        );
        self.session_id = key("session_id");
        let terminators = key("garbage_terminators");
        let (mut ours, mut theirs) = terminators.split_at(16);
        if initiating {
            (self.out, self.incoming) = (Some(from_initiator), Some(from_responder));
        } else {
            (self.out, self.incoming) = (Some(from_responder), Some(from_initiator));
            std::mem::swap(&mut ours, &mut theirs);
        }
        (self.our_terminator, self.their_terminator) = (ours.to_vec(), theirs.to_vec());
    }

    pub(super) fn packet(&mut self, contents: &[u8], aad: &[u8], ignore: bool) -> Vec<u8> {
        self.packet_with_flags(contents, aad, if ignore { 0x80 } else { 0 })
    }

    pub(super) fn packet_with_flags(&mut self, contents: &[u8], aad: &[u8], flags: u8) -> Vec<u8> {
        let out = self.out.as_mut().unwrap();
        let length = (contents.len() as u32).to_le_bytes();
        let mut packet = out.crypt_length([length[0], length[1], length[2]]).to_vec();
        let plain = [&[flags], contents].concat();
        packet.extend(out.crypt_packet(|key, nonce| seal(key, nonce, aad, &plain)));
        packet
    }

    /// The next packet of `stream`: whether it is to be ignored, and its contents.
    pub(super) fn open(&mut self, stream: &mut Vec<u8>, aad: &[u8]) -> (bool, Vec<u8>) {
        let incoming = self.incoming.as_mut().unwrap();
        let length = incoming.crypt_length(stream[..3].try_into().unwrap());
        let length = u32::from_le_bytes([length[0], length[1], length[2], 0]) as usize;
        let packet: Vec<u8> = stream.drain(..3 + 1 + length + 16).skip(3).collect();
        let (sealed, tag) = packet.split_at(packet.len() - 16);
        let plain = incoming.crypt_packet(|key, nonce| {
            let mask = keystream(key, nonce, 64, sealed.len());
            let plain: Vec<u8> = sealed.iter().zip(mask).map(|(a, b)| a ^ b).collect();
            assert_eq!(seal(key, nonce, aad, &plain)[sealed.len()..], *tag);
            plain
        });
        (plain[0] & 0x80 != 0, plain[1..].to_vec())
    }
}
