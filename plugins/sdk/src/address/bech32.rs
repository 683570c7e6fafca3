//! Witness programs as text (BIP173, BIP350).

const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// Most characters of an address.
const MAX_LENGTH: usize = 90;

/// Characters of the checksum.
const CHECKSUM: usize = 6;

/// Whether a witness program of this version can have so many bytes (BIP141).
pub(super) fn is_program(version: u8, length: usize) -> bool {
    match version {
        0 => length == 20 || length == 32,
        1..=16 => (2..=40).contains(&length),
        _ => false,
    }
}

/// The address of a program that [`is_program`].
pub(super) fn encode(prefix: &str, version: u8, program: &[u8]) -> String {
    let mut values = vec![version];
    regroup(program, 8, 5, &mut values);
    let end = values.len();
    values.resize(end + CHECKSUM, 0);
    let checksum = sum(prefix, &values) ^ target(version);
    values.truncate(end);
    for place in (0..CHECKSUM).rev() {
        values.push((checksum >> (5 * place) & 31) as u8);
    }
    let mut text = String::with_capacity(prefix.len() + 1 + values.len());
    text.push_str(prefix);
    text.push('1');
    text.extend(
        values
            .iter()
            .filter_map(|value| ALPHABET.get(usize::from(*value)))
            .map(|character| char::from(*character)),
    );
    text
}

/// Version and program of an address with this prefix.
pub(super) fn decode(text: &str, prefix: &str) -> Option<(u8, Vec<u8>)> {
    let lower = text.bytes().any(|byte| byte.is_ascii_lowercase());
    let upper = text.bytes().any(|byte| byte.is_ascii_uppercase());
    if text.len() > MAX_LENGTH || lower && upper {
        return None;
    }
    let text = text.to_ascii_lowercase();
    let values: Vec<u8> = text
        .strip_prefix(prefix)?
        .strip_prefix('1')?
        .bytes()
        .map(|character| {
            let value = ALPHABET.iter().position(|known| *known == character);
            value.map(|value| value as u8)
        })
        .collect::<Option<_>>()?;
    let (program, _) = values.split_at_checked(values.len().checked_sub(CHECKSUM)?)?;
    let (version, program) = program.split_first()?;
    let checked = sum(prefix, &values);
    let mut bytes = Vec::new();
    let (rest, bits) = regroup(program, 5, 8, &mut bytes);
    // What is left over is padding: zeros, and less of them than a character has.
    let padded = bits < 5 && rest == 0;
    (checked == target(*version) && padded && is_program(*version, bytes.len()))
        .then_some((*version, bytes))
}

/// What the checksum of a whole address comes to.
fn target(version: u8) -> u32 {
    if version == 0 { 1 } else { 0x2bc8_30a3 }
}

/// The checksum over the prefix and values of five bits.
#[inline(never)]
fn sum(prefix: &str, values: &[u8]) -> u32 {
    let high = prefix.bytes().map(|byte| byte >> 5);
    let low = prefix.bytes().map(|byte| byte & 31);
    let mut sum = 1;
    for value in high.chain([0]).chain(low).chain(values.iter().copied()) {
        sum = step(sum, value);
    }
    sum
}

/// The checksum with another value of five bits.
fn step(sum: u32, value: u8) -> u32 {
    const GENERATOR: [u32; 5] = [
        0x3b6a_57b2,
        0x2650_8e6d,
        0x1ea1_19fa,
        0x3d42_33dd,
        0x2a14_62b3,
    ];
    let top = sum >> 25;
    let next = (sum & 0x01ff_ffff) << 5 ^ u32::from(value);
    GENERATOR.iter().enumerate().fold(next, |sum, (bit, mask)| {
        sum ^ if top >> bit & 1 == 1 { *mask } else { 0 }
    })
}

/// Cuts a row of bits, given `from` at a time, into pieces of `to`. To five bits the last piece is filled up with zeros; to eight
/// the bits that make no whole piece are the answer, with their number.
#[inline(never)]
fn regroup(pieces: &[u8], from: u32, to: u32, out: &mut Vec<u8>) -> (u32, u32) {
    let (mut held, mut bits) = (0u32, 0);
    for piece in pieces {
        held = held << from | u32::from(*piece);
        bits += from;
        while bits >= to {
            bits -= to;
            out.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    if to < from && bits > 0 {
        out.push((held << (to - bits)) as u8);
        return (0, 0);
    }
    (held, bits)
}
