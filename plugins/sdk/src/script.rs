//! What kind of script an output has.

/// The kinds of output scripts (Bitcoin Core's `Solver`), by the shape of the script alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A public key and OP_CHECKSIG.
    P2pk,
    /// The hash of a public key.
    P2pkh,
    /// The hash of a script.
    P2sh,
    /// Segwit: the hash of a public key.
    P2wpkh,
    /// Segwit: the hash of a script.
    P2wsh,
    /// Taproot.
    P2tr,
    /// Bare multisig.
    Multisig,
    /// Begins with OP_RETURN: nobody can ever spend it.
    OpReturn,
    /// Anything else.
    Other,
}

impl Kind {
    /// Every kind, in the order of the enum.
    pub const ALL: [Kind; 9] = [
        Kind::P2pk,
        Kind::P2pkh,
        Kind::P2sh,
        Kind::P2wpkh,
        Kind::P2wsh,
        Kind::P2tr,
        Kind::Multisig,
        Kind::OpReturn,
        Kind::Other,
    ];

    /// The kind of a scriptPubKey.
    #[inline]
    pub fn of(script: &[u8]) -> Kind {
        match script {
            [0x76, 0xa9, 20, hash @ .., 0x88, 0xac] if hash.len() == 20 => Kind::P2pkh,
            [0xa9, 20, hash @ .., 0x87] if hash.len() == 20 => Kind::P2sh,
            [0, 20, hash @ ..] if hash.len() == 20 => Kind::P2wpkh,
            [0, 32, hash @ ..] if hash.len() == 32 => Kind::P2wsh,
            [0x51, 32, key @ ..] if key.len() == 32 => Kind::P2tr,
            [0x6a, ..] => Kind::OpReturn,
            [33, 2 | 3, key @ .., 0xac] if key.len() == 32 => Kind::P2pk,
            [65, 4 | 6 | 7, key @ .., 0xac] if key.len() == 64 => Kind::P2pk,
            [0x51..=0x60, keys @ .., count @ 0x51..=0x60, 0xae] if is_keys(keys, count - 0x50) => {
                Kind::Multisig
            }
            _ => Kind::Other,
        }
    }

    /// In lower case, as a name of a column or a field: `p2wpkh`, `op_return`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::P2pk => "p2pk",
            Kind::P2pkh => "p2pkh",
            Kind::P2sh => "p2sh",
            Kind::P2wpkh => "p2wpkh",
            Kind::P2wsh => "p2wsh",
            Kind::P2tr => "p2tr",
            Kind::Multisig => "multisig",
            Kind::OpReturn => "op_return",
            Kind::Other => "other",
        }
    }
}

/// Whether these are `count` pushed public keys and nothing else.
fn is_keys(mut bytes: &[u8], count: u8) -> bool {
    for _ in 0..count {
        let length = match bytes {
            [33, 2 | 3, ..] => 34,
            [65, 4 | 6 | 7, ..] => 66,
            _ => return false,
        };
        match bytes.get(length..) {
            Some(rest) => bytes = rest,
            None => return false,
        }
    }
    bytes.is_empty()
}

/// Whether nobody can ever spend an output with this script: it begins with OP_RETURN, or is longer than the 10,000 bytes
/// that consensus allows. Bitcoin Core leaves these out of its coin set.
#[inline]
pub fn is_unspendable(script: &[u8]) -> bool {
    script.first() == Some(&0x6a) || script.len() > 10_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex;

    #[test]
    fn scripts_of_every_kind_are_told_apart() {
        let key = format!("21{}", "02".repeat(33));
        let long = format!("41{}", "04".repeat(65));
        let scripts = [
            (format!("{key}ac"), Kind::P2pk),
            (format!("{long}ac"), Kind::P2pk),
            (format!("76a914{}88ac", "11".repeat(20)), Kind::P2pkh),
            (format!("a914{}87", "11".repeat(20)), Kind::P2sh),
            (format!("0014{}", "11".repeat(20)), Kind::P2wpkh),
            (format!("0020{}", "11".repeat(32)), Kind::P2wsh),
            (format!("5120{}", "11".repeat(32)), Kind::P2tr),
            (format!("51{key}{long}52ae"), Kind::Multisig),
            (format!("51{key}52ae"), Kind::Other),
            (format!("51{key}51"), Kind::Other),
            ("6a".into(), Kind::OpReturn),
            (format!("5220{}", "11".repeat(32)), Kind::Other),
            (format!("0015{}", "11".repeat(21)), Kind::Other),
            (String::new(), Kind::Other),
            ("51".into(), Kind::Other),
            ("51ae".into(), Kind::Other),
        ];
        for (script, kind) in scripts {
            let bytes = hex::decode(&script).unwrap();
            assert_eq!(Kind::of(&bytes), kind, "{script}");
        }
        for kind in Kind::ALL {
            assert_eq!(Kind::ALL[kind as usize], kind);
        }
    }

    #[test]
    fn what_nobody_can_spend_is_known() {
        assert!(is_unspendable(&[0x6a]));
        assert!(is_unspendable(&[0x51; 10_001]));
        assert!(!is_unspendable(&[0x51; 10_000]));
        assert!(!is_unspendable(&[]));
    }
}
