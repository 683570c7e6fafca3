//! Addresses: a script as people write it, and back. P2PKH, P2SH, and witness programs of every version (BIP173, BIP350).

use bech32::hrp::Hrp;
use bech32::primitives::decode::SegwitHrpstring;
use bech32::primitives::gf32::Fe32;

/// The longest address (BIP173). Longer text is refused at once: base58 takes the square of its length.
const MAX_LENGTH: usize = 90;

/// Version bytes and prefix of a network's addresses.
struct Format {
    pubkey_hash: u8,
    script_hash: u8,
    prefix: &'static str,
}

/// How the addresses of a network look; `network` is what [`chain::network`](crate::chain::network) says.
fn format(network: &str) -> Format {
    match network {
        "mainnet" => Format {
            pubkey_hash: 0,
            script_hash: 5,
            prefix: "bc",
        },
        "regtest" => Format {
            pubkey_hash: 111,
            script_hash: 196,
            prefix: "bcrt",
        },
        _ => Format {
            pubkey_hash: 111,
            script_hash: 196,
            prefix: "tb",
        },
    }
}

/// The address of a script on a network (`mainnet`, `testnet3`, `testnet4`, `signet`, `regtest`). None for scripts that
/// have no address.
pub fn from_script(script: &[u8], network: &str) -> Option<String> {
    let format = format(network);
    match script {
        [0x76, 0xa9, 20, hash @ .., 0x88, 0xac] if hash.len() == 20 => {
            Some(base58(format.pubkey_hash, hash))
        }
        [0xa9, 20, hash @ .., 0x87] if hash.len() == 20 => Some(base58(format.script_hash, hash)),
        [version @ (0 | 0x51..=0x60), length, program @ ..]
            if program.len() == usize::from(*length) && (2..=40).contains(&program.len()) =>
        {
            let version = version.saturating_sub(0x50);
            if version == 0 && program.len() != 20 && program.len() != 32 {
                return None;
            }
            let hrp = Hrp::parse(format.prefix).ok()?;
            bech32::segwit::encode(hrp, Fe32::try_from(version).ok()?, program).ok()
        }
        _ => None,
    }
}

/// The script of an address on a network. None for text that is not an address of that network.
pub fn to_script(address: &str, network: &str) -> Option<Vec<u8>> {
    if address.len() > MAX_LENGTH {
        return None;
    }
    let format = format(network);
    if let Ok(segwit) = SegwitHrpstring::new(address) {
        if !segwit.hrp().as_str().eq_ignore_ascii_case(format.prefix) {
            return None;
        }
        let version = segwit.witness_version().to_u8();
        let program: Vec<u8> = segwit.byte_iter().collect();
        let opcode = if version == 0 { 0 } else { 0x50 + version };
        let mut script = vec![opcode, u8::try_from(program.len()).ok()?];
        script.extend_from_slice(&program);
        return Some(script);
    }
    let decoded = base58ck::decode_check(address).ok()?;
    let (version, hash) = decoded.split_first()?;
    if hash.len() != 20 {
        return None;
    }
    let (before, after): (&[u8], &[u8]) = match *version {
        version if version == format.pubkey_hash => (&[0x76, 0xa9, 20], &[0x88, 0xac]),
        version if version == format.script_hash => (&[0xa9, 20], &[0x87]),
        _ => return None,
    };
    Some([before, hash, after].concat())
}

fn base58(version: u8, hash: &[u8]) -> String {
    let mut bytes = vec![version];
    bytes.extend_from_slice(hash);
    base58ck::encode_check(&bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::str::FromStr;

    use bitcoin::{Address, Network, ScriptBuf};
    use proptest::prelude::*;

    use super::*;
    use crate::hex;

    /// Addresses of BIP173 and BIP350, and of the genesis coinbase's key.
    const KNOWN: &[(&str, &str, &str)] = &[
        (
            "mainnet",
            "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
            "76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac",
        ),
        (
            "mainnet",
            "3P14159f73E4gFr7JterCCQh9QjiTjiZrG",
            "a914e9c3dd0c07aac76179ebc76a6c78d4d67c6c160a87",
        ),
        (
            "mainnet",
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
            "0014751e76e8199196d454941c45d1b3a323f1433bd6",
        ),
        (
            "testnet3",
            "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7",
            "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262",
        ),
        (
            "mainnet",
            "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
            "512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
        ),
        (
            "mainnet",
            "bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kt5nd6y",
            "5128751e76e8199196d454941c45d1b3a323f1433bd6751e76e8199196d454941c45d1b3a323f1433bd6",
        ),
        ("mainnet", "bc1sw50qgdz25j", "6002751e"),
    ];

    #[test]
    fn known_addresses_become_their_scripts_and_back() {
        for (network, address, script) in KNOWN {
            let script = hex::decode(script).unwrap();
            assert_eq!(
                to_script(address, network),
                Some(script.clone()),
                "{address}"
            );
            assert_eq!(from_script(&script, network).as_deref(), Some(*address));
        }
    }

    #[test]
    fn an_address_of_another_network_or_with_a_slip_is_refused() {
        assert_eq!(
            to_script("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "regtest"),
            None
        );
        assert_eq!(
            to_script("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "regtest"),
            None
        );
        assert_eq!(
            to_script("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb", "mainnet"),
            None
        );
        assert_eq!(
            to_script("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", "mainnet"),
            None
        );
        // A version 1 program with the checksum of version 0.
        assert_eq!(
            to_script(
                "bc1p38j9r5y49hruaue7wxjce0updqjuyyx0kh56v8s25huc6995vvpql3jow4",
                "mainnet"
            ),
            None
        );
        assert_eq!(to_script("", "mainnet"), None);
    }

    #[test]
    fn scripts_without_address_have_none() {
        assert_eq!(from_script(&[], "mainnet"), None);
        assert_eq!(from_script(&[0x6a, 1, 2], "mainnet"), None);
        assert_eq!(from_script(&[0, 3, 1, 2, 3], "mainnet"), None);
        assert_eq!(from_script(&[0x51, 1, 2], "mainnet"), None);
    }

    /// Wrong ones of BIP173 and BIP350.
    const WRONG: &[&str] = &[
        "tc1qw508d6qejxtdg4y5r3zarvary0c5xw7kg3g4ty",
        "BC13W508D6QEJXTDG4Y5R3ZARVARY0C5XW7KN40WF2",
        "bc1rw5uspcuh",
        "bc10w508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kw5rljs90",
        "BC1QR508D6QEJXTDG4Y5R3ZARVARYV98GJ9P",
        "bc1zw508d6qejxtdg4y5r3zarvaryvqyzf3du",
        "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3pjxtptv",
        "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sL5k7",
        "bc1gmk9yu",
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd",
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v8n0nx0muaewav253zgeav",
        "bc1p38j9r5y49hruaue7wxjce0updqjuyyx0kh56v8s25huc6995vvpql3jow4",
        "BC1S0XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ54WELL",
        "bc1",
        "1",
    ];

    #[test]
    fn wrong_addresses_are_refused_and_long_ones_at_once() {
        for network in ["mainnet", "testnet3", "regtest"] {
            for address in WRONG {
                assert_eq!(to_script(address, network), None, "{address}");
            }
            for character in ["1", "z", "q", "bc1"] {
                assert_eq!(to_script(&character.repeat(1 << 20), network), None);
            }
        }
        let upper = "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4";
        assert!(to_script(upper, "mainnet").is_some());
    }

    const NETWORKS: [(&str, Network); 4] = [
        ("mainnet", Network::Bitcoin),
        ("testnet3", Network::Testnet),
        ("signet", Network::Signet),
        ("regtest", Network::Regtest),
    ];

    /// Scripts of every kind that has an address, and such that nearly have one.
    fn scripts() -> impl Strategy<Value = Vec<u8>> {
        let bytes = || proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..44);
        let program = (0u8..20, bytes()).prop_map(|(version, program)| {
            let opcode = if version == 0 { 0 } else { 0x50 + version };
            [&[opcode, program.len() as u8], program.as_slice()].concat()
        });
        let hash = proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 19..=21);
        prop_oneof![
            program,
            hash.clone()
                .prop_map(|hash| [&[0x76, 0xa9, 20], hash.as_slice(), &[0x88, 0xac]].concat()),
            hash.prop_map(|hash| [&[0xa9, 20], hash.as_slice(), &[0x87]].concat()),
            bytes(),
        ]
    }

    /// What the crate `bitcoin` makes of an address.
    fn theirs(text: &str, network: Network) -> Option<Vec<u8>> {
        let address = Address::from_str(text)
            .ok()?
            .require_network(network)
            .ok()?;
        Some(address.script_pubkey().into_bytes())
    }

    proptest! {
        #[test]
        fn addresses_are_those_of_the_crate_bitcoin(script in scripts(), place in 0usize..4) {
            let (name, network) = NETWORKS[place];
            let ours = from_script(&script, name);
            let script = ScriptBuf::from_bytes(script);
            let expected = Address::from_script(&script, network).ok();
            prop_assert_eq!(&ours, &expected.map(|address| address.to_string()));
            if let Some(text) = ours {
                prop_assert_eq!(to_script(&text, name), Some(script.into_bytes()));
            }
        }

        #[test]
        fn a_changed_address_is_what_the_crate_bitcoin_says(
            script in scripts(),
            changes in proptest::collection::vec((any::<usize>(), 0x20u8..0x7f, 0u8..3), 1..3),
            place in 0usize..4,
        ) {
            let (name, network) = NETWORKS[place];
            let mut text = from_script(&script, name).unwrap_or_default().into_bytes();
            for (at, character, how) in changes {
                let at = at % (text.len() + 1);
                match how {
                    0 => text.insert(at, character),
                    1 if at < text.len() => text[at] = character,
                    _ => text.truncate(at),
                }
            }
            let text = String::from_utf8(text).unwrap();
            prop_assert_eq!(to_script(&text, name), theirs(&text, network), "{}", text);
        }
    }
}
