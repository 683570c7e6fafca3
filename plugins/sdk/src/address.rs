//! Addresses: a script as people write it, and back. P2PKH, P2SH, and witness programs of every version (BIP173, BIP350).

use bech32::hrp::Hrp;
use bech32::primitives::decode::SegwitHrpstring;
use bech32::primitives::gf32::Fe32;

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
}
