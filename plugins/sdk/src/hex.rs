//! Hexadecimal text: hashes as people see them (reversed), other bytes as they are.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Bytes as hexadecimal text, first byte first.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| digits(*byte)).collect()
}

/// A hash as explorers show it: last byte first.
pub fn display(hash: &[u8; 32]) -> String {
    hash.iter().rev().flat_map(|byte| digits(*byte)).collect()
}

fn digits(byte: u8) -> [char; 2] {
    [byte >> 4, byte & 15].map(|digit| {
        DIGITS
            .get(usize::from(digit))
            .map_or('0', |digit| char::from(*digit))
    })
}

/// Reads hexadecimal text of either case; none when it is not.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|[high, low]| Some(value(*high)? << 4 | value(*low)?))
        .collect()
}

/// Reads a hash as explorers show it into internal order; none when it is not one.
pub fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let mut bytes = decode(text)?;
    bytes.reverse();
    bytes.try_into().ok()
}

fn value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_shown_reversed_and_read_back() {
        let mut hash = [0; 32];
        hash[31] = 0xab;
        let text = display(&hash);
        assert!(text.starts_with("ab00"));
        assert_eq!(parse_hash(&text), Some(hash));
        assert_eq!(parse_hash("ab"), None);
        assert_eq!(decode("0aZ0"), None);
        assert_eq!(decode("0aF"), None);
        assert_eq!(decode("0aFf"), Some(vec![10, 255]));
        assert_eq!(encode(&[1, 0xfe]), "01fe");
    }
}
