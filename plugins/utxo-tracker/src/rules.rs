//! The rules of consensus that need the coins.

use blockmill_sdk::prelude::*;

/// 21 million coins, sat: no amount and no sum may be more (Core's `MAX_MONEY`).
pub const MAX_MONEY: u64 = 21_000_000 * 100_000_000;

/// A coinbase's outputs may be spent this many blocks later (Core's `COINBASE_MATURITY`).
pub const COINBASE_MATURITY: u32 = 100;

/// From this height a coinbase may again have the txid of one from before BIP34, whose script happens to begin as the
/// height would (Core's `BIP34_IMPLIES_BIP30_LIMIT`).
const BIP34_IMPLIES_BIP30_LIMIT: u32 = 1_983_702;

pub use blockmill_sdk::script::is_unspendable;

/// How a block stands to BIP30, which forbids a transaction with the txid of one that still has unspent outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bip30 {
    /// It must be checked.
    Check,
    /// The two mainnet blocks from before the rule that break it: the later coin takes the place of the earlier.
    Overwrite,
    /// BIP34 puts the height into every coinbase, so that no txid can come again.
    Impossible,
}

/// Blocks 91,842 and 91,880 of mainnet, internal byte order as text as it is displayed.
const REPEATS: [(u32, &str); 2] = [
    (
        91_842,
        "00000000000a4d0a398161ffc163c503763b1f4360639393e0e4c8e300e0caec",
    ),
    (
        91_880,
        "00000000000743f190a18c5577a3c2d2a1f610ae9601ac046a38084ccb7cd721",
    ),
];

/// What BIP30 asks of a block. `network` is that of [`chain::network`].
pub fn bip30(network: &str, header: &Header) -> Bip30 {
    let height = header.height;
    // Heights from which every parent chain has BIP34; the chains that have it from block 1 need no check at all.
    let bip34 = match network {
        "mainnet" => 227_931,
        "testnet3" => 21_111,
        _ => 0,
    };
    if network == "mainnet"
        && REPEATS
            .iter()
            .any(|(repeat, hash)| *repeat == height && hex::parse_hash(hash) == Some(header.hash))
    {
        return Bip30::Overwrite;
    }
    if height <= bip34 || height >= BIP34_IMPLIES_BIP30_LIMIT {
        Bip30::Check
    } else {
        Bip30::Impossible
    }
}
