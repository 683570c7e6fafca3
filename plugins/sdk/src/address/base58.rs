//! Base58 with a checksum, of exactly what an address has: a version and a hash of 20 bytes.

use bitcoin_hashes::{Hash, sha256d};

const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// Bytes of the version, the hash and the checksum.
const BYTES: usize = 1 + 20 + 4;

/// Most characters of so many bytes.
const DIGITS: usize = 35;

/// The address of a hash.
pub(super) fn encode(version: u8, hash: &[u8; 20]) -> String {
    let mut payload = [version; 21];
    if let Some(rest) = payload.last_chunk_mut() {
        *rest = *hash;
    }
    let mut digits = [0u8; DIGITS];
    for byte in payload.iter().chain(&checksum(&payload)) {
        shift::<58, 256>(&mut digits, u32::from(*byte));
    }
    let zeros = payload.iter().take_while(|byte| **byte == 0).count();
    let leading = digits.iter().take_while(|digit| **digit == 0).count();
    // A zero in front is a digit of its own.
    let digits = digits.iter().skip(leading.saturating_sub(zeros));
    digits
        .filter_map(|digit| ALPHABET.get(usize::from(*digit)))
        .map(|character| char::from(*character))
        .collect()
}

/// Version and hash of an address.
pub(super) fn decode(text: &str) -> Option<(u8, [u8; 20])> {
    if text.len() > DIGITS {
        return None;
    }
    let mut bytes = [0u8; BYTES];
    for character in text.bytes() {
        let digit = ALPHABET.iter().position(|known| *known == character)?;
        if shift::<256, 58>(&mut bytes, digit as u32) != 0 {
            return None;
        }
    }
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let ones = text.bytes().take_while(|byte| *byte == b'1').count();
    let (payload, sum) = bytes.split_first_chunk::<21>()?;
    if zeros != ones || sum != checksum(payload) {
        return None;
    }
    let (version, hash) = payload.split_first()?;
    Some((*version, hash.try_into().ok()?))
}

/// Multiplies a number of digits to `BASE` by `FACTOR`, and adds `carry`; answers what has no room in it. Apart, because a loop
/// over a known number of digits becomes that many copies of itself.
#[inline(never)]
fn shift<const BASE: u32, const FACTOR: u32>(number: &mut [u8], mut carry: u32) -> u32 {
    for digit in number.iter_mut().rev() {
        carry += u32::from(*digit) * FACTOR;
        *digit = (carry % BASE) as u8;
        carry /= BASE;
    }
    carry
}

fn checksum(payload: &[u8; 21]) -> [u8; 4] {
    let hash = sha256d::Hash::hash(payload).to_byte_array();
    hash.first_chunk().copied().unwrap_or_default()
}
