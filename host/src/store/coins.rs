//! What the role `coins` promises about its state, so that the host can read the coin set without asking the plugin.
//!
//! ```text
//! key:    'C' | txid 32, internal order | vout u32 BE
//! value:  height * 2 + coinbase, u32 LE | value u64 LE, sat | script
//! ```
//!
//! With vout big-endian the keys are in the order in which Bitcoin Core walks its coins: by txid, then by output. Not in
//! the set: the coinbase of the genesis block, and outputs that can never be spent ([`is_unspendable`]).

use super::Cursor;
use super::columns::Keys;
use super::error::StoreError;
use super::snapshot::StateSnapshot;

/// First byte of a coin's key.
pub const COIN_PREFIX: u8 = b'C';
/// Bytes of a coin's key.
pub const COIN_KEY_LEN: usize = 37;
/// Bytes of a coin's value before the script.
const COIN_HEADER: usize = 12;
/// The longest script that can be spent (Core: `MAX_SCRIPT_SIZE`), in bytes.
const MAX_SCRIPT_SIZE: usize = 10_000;
const OP_RETURN: u8 = 0x6a;

/// An unspent output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coin {
    /// Height of the block that created it.
    pub height: u32,
    /// Whether a coinbase created it.
    pub coinbase: bool,
    /// Value in sat.
    pub value: u64,
    /// The script that locks it.
    pub script: Vec<u8>,
}

/// A coin's outpoint: txid in internal byte order, and output index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutPointKey {
    /// The transaction's id, in internal byte order.
    pub txid: [u8; 32],
    /// The output's index.
    pub vout: u32,
}

/// The state key of a coin.
pub fn coin_key(outpoint: &OutPointKey) -> [u8; COIN_KEY_LEN] {
    let mut key = [COIN_PREFIX; COIN_KEY_LEN];
    let (_, rest) = key.split_at_mut(1);
    let (txid, vout) = rest.split_at_mut(32);
    txid.copy_from_slice(&outpoint.txid);
    vout.copy_from_slice(&outpoint.vout.to_be_bytes());
    key
}

/// The outpoint that a state key stands for, if it is a coin's.
pub(super) fn decode_key(key: &[u8]) -> Option<OutPointKey> {
    let rest = key.strip_prefix(&[COIN_PREFIX])?;
    let (txid, vout) = rest.split_first_chunk::<32>()?;
    Some(OutPointKey {
        txid: *txid,
        vout: u32::from_be_bytes(vout.try_into().ok()?),
    })
}

/// Appends the state value of a coin.
pub fn encode_coin(height: u32, coinbase: bool, value: u64, script: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(height * 2 + u32::from(coinbase)).to_le_bytes());
    out.extend_from_slice(&value.to_le_bytes());
    out.extend_from_slice(script);
}

/// A state value cut into its parts: `height * 2 + coinbase`, value in sat, script.
pub(super) fn split_coin(bytes: &[u8]) -> Option<(u32, u64, &[u8])> {
    let (header, script) = bytes.split_first_chunk::<COIN_HEADER>()?;
    let (code, value) = header.split_first_chunk::<4>()?;
    Some((
        u32::from_le_bytes(*code),
        u64::from_le_bytes(value.try_into().ok()?),
        script,
    ))
}

impl Coin {
    /// Reads a state value; `None` when it is too short to be one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (code, value, script) = split_coin(bytes)?;
        Some(Self {
            height: code >> 1,
            coinbase: code & 1 == 1,
            value,
            script: script.to_vec(),
        })
    }
}

/// Whether an output with this script never enters the coin set: Core's `CScript::IsUnspendable`.
pub fn is_unspendable(script: &[u8]) -> bool {
    script.first() == Some(&OP_RETURN) || script.len() > MAX_SCRIPT_SIZE
}

/// The coin set as of a snapshot of the plugin with the role `coins`.
#[derive(Clone)]
pub struct CoinView {
    snapshot: StateSnapshot,
}

impl CoinView {
    /// Reads coins from this snapshot.
    pub fn new(snapshot: StateSnapshot) -> Self {
        Self { snapshot }
    }

    /// The last block whose coins are in the set.
    pub fn cursor(&self) -> Option<Cursor> {
        self.snapshot.cursor()
    }

    /// An unspent output, if it is one.
    pub fn coin(&self, outpoint: &OutPointKey) -> Result<Option<Coin>, StoreError> {
        let value = self.snapshot.get(&coin_key(outpoint))?;
        value
            .map(|bytes| Coin::decode(&bytes).ok_or_else(damaged))
            .transpose()
    }

    /// Unspent outputs, one answer for each outpoint asked for.
    pub fn coins(&self, outpoints: &[OutPointKey]) -> Result<Vec<Option<Coin>>, StoreError> {
        outpoints
            .iter()
            .map(|outpoint| self.coin(outpoint))
            .collect()
    }

    /// Unspent outputs by their state keys of [`COIN_KEY_LEN`] bytes.
    pub fn by_keys(&self, keys: Keys<'_>) -> Result<Vec<Option<Coin>>, StoreError> {
        keys.check()?;
        keys.iter()
            .map(|key| {
                self.snapshot
                    .get(key)?
                    .map(|bytes| Coin::decode(&bytes).ok_or_else(damaged))
                    .transpose()
            })
            .collect()
    }
}

pub(super) fn damaged() -> StoreError {
    StoreError::Corrupt {
        lane: "the coins role".to_owned(),
        what: "a coin",
    }
}
