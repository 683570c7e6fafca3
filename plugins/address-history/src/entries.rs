//! How histories lie in the state.

use bitcoin_hashes::{Hash, sha256};
use blockmill_sdk::prelude::*;
use blockmill_sdk::state::Keys;
use blockmill_sdk::{KeyBytes, Single, ValueBytes, record};

/// Bytes of a script's SHA256 that stand for it.
///
/// Electrs has eight and looks into the blocks for those that are another script's. Here nobody looks again, so there are
/// enough that no two scripts share them by chance (of 2^31 scripts with a probability of 2^-35), and to find one that
/// shares those of a given script takes 2^96 hashes.
pub const HASH_WIDTH: usize = 12;

/// The part of a script's SHA256 that stands for it.
pub type ScriptHash = [u8; HASH_WIDTH];

/// What stands for a script.
pub fn hash(script: &[u8]) -> ScriptHash {
    let hash = sha256::Hash::hash(script).to_byte_array();
    shorten(&hash)
}

/// The beginning of a whole SHA256.
pub fn shorten(hash: &[u8; 32]) -> ScriptHash {
    hash.first_chunk().copied().unwrap_or_default()
}

/// Bytes of a transaction's number: 2^40 are enough for any chain.
const NUMBER_WIDTH: usize = 5;

/// Place of a transaction among all transactions of the chain, counted from 0. In keys the newest come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number(pub u64);

impl KeyBytes for Number {
    fn write(&self, to: &mut Vec<u8>) {
        let newest_first = (!self.0).to_be_bytes();
        to.extend_from_slice(
            newest_first
                .last_chunk::<NUMBER_WIDTH>()
                .unwrap_or(&[0; NUMBER_WIDTH]),
        );
    }
    fn read(from: &mut &[u8]) -> Option<Self> {
        let (bytes, rest) = from.split_first_chunk::<NUMBER_WIDTH>()?;
        *from = rest;
        let number = bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(!byte));
        Some(Number(number))
    }
}

/// A number of sat in as few bytes as it takes: seven bits each, the lowest first (LEB128).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sats(pub u64);

impl ValueBytes for Sats {
    fn write(&self, to: &mut Vec<u8>) {
        let mut left = self.0;
        while left >= 0x80 {
            to.push(left as u8 | 0x80);
            left >>= 7;
        }
        to.push(left as u8);
    }
    fn read(from: &mut &[u8]) -> Option<Self> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = from.split_first()?;
            *from = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(Sats(number));
            }
        }
        None
    }
}

record! {
    /// A transaction in the history of a script.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EntryKey: Key {
        pub script: ScriptHash,
        pub number: Number,
    }
}

record! {
    /// What a transaction paid to a script, and spent of it.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Moved: Value {
        pub received: Sats,
        pub sent: Sats,
    }
}

record! {
    /// Sums over the history of a script.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Balance: Value {
        pub received: Sats,
        pub sent: Sats,
        pub txs: Sats,
    }
}

record! {
    /// A transaction by its number.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TransactionRecord: Value {
        pub height: u32,
        pub txid: [u8; 32],
    }
}

/// The history of each script, newest first.
pub const HISTORY: Map<EntryKey, Moved> = Map::new(b"H");
/// The sums of each script.
pub const BALANCES: Map<ScriptHash, Balance> = Map::new(b"B");
/// Every transaction by its number.
pub const TRANSACTIONS: Map<Number, TransactionRecord> = Map::new(b"T");
/// Number of the next transaction.
pub const NEXT: Single<u64> = Single::new(b"N");

/// Bytes of a txid that stand for it in the key of a coin: what follows from two that share them is an unconfirmed
/// transaction shown with another script.
const TXID_WIDTH: usize = 12;

/// First byte of a coin's key.
const COIN: u8 = b'C';

/// Length of a coin's key.
pub const COIN_KEY_WIDTH: usize = 1 + TXID_WIDTH + 4;

/// The key of an output that is not spent.
pub fn coin_key(txid: &[u8; 32], vout: u32) -> [u8; COIN_KEY_WIDTH] {
    let mut key = [COIN; COIN_KEY_WIDTH];
    let (_, rest) = key.split_at_mut(1);
    let (to_txid, to_vout) = rest.split_at_mut(TXID_WIDTH);
    to_txid.copy_from_slice(txid.first_chunk::<TXID_WIDTH>().unwrap_or(&[0; TXID_WIDTH]));
    to_vout.copy_from_slice(&vout.to_be_bytes());
    key
}

/// Whose a coin is, and how much it is worth.
pub type Owner = (ScriptHash, Sats);

/// Reads what lies at the keys of coins.
pub fn owners(keys: &Keys) -> Vec<Option<Owner>> {
    let found = state::get_many(keys);
    found
        .iter()
        .map(|bytes| ValueBytes::read(&mut bytes?))
        .collect()
}

/// Bytes of a value.
pub fn bytes(value: &impl ValueBytes) -> impl FnOnce(&mut Vec<u8>) + '_ {
    |to| value.write(to)
}
