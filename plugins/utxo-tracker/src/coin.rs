//! How a coin lies in the state.

use blockmill_sdk::prelude::*;

/// First byte of every coin's key.
pub const PREFIX: u8 = b'C';

/// Length of a coin's key.
pub const KEY_WIDTH: usize = 37;

/// The key of a coin: `C`, txid, output index as u32 big-endian, so that a transaction's outputs lie in order.
#[inline]
pub fn key(txid: &[u8; 32], vout: u32) -> [u8; KEY_WIDTH] {
    let mut key = [0; KEY_WIDTH];
    let (prefix, rest) = key.split_at_mut(1);
    prefix.copy_from_slice(&[PREFIX]);
    let (to_txid, to_vout) = rest.split_at_mut(32);
    to_txid.copy_from_slice(txid);
    to_vout.copy_from_slice(&vout.to_be_bytes());
    key
}

/// What is in front of the script in a coin's value: `height * 2 + coinbase` as u32 LE and the amount in sat as u64 LE.
#[inline]
pub fn head(height: u32, coinbase: bool, value: u64) -> [u8; 12] {
    let mut head = [0; 12];
    let (code, amount) = head.split_at_mut(4);
    code.copy_from_slice(&(height * 2 + u32::from(coinbase)).to_le_bytes());
    amount.copy_from_slice(&value.to_le_bytes());
    head
}

/// A coin as it is in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coin<'a> {
    /// Height of the block that made it.
    pub height: u32,
    /// True when a coinbase made it.
    pub coinbase: bool,
    /// sat.
    pub value: u64,
    /// scriptPubKey.
    pub script: &'a [u8],
}

impl<'a> Coin<'a> {
    /// Reads a coin's value; none where it is too short.
    #[inline]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (code, rest) = bytes.split_first_chunk()?;
        let (value, script) = rest.split_first_chunk()?;
        let code = u32::from_le_bytes(*code);
        Some(Coin {
            height: code >> 1,
            coinbase: code & 1 != 0,
            value: u64::from_le_bytes(*value),
            script,
        })
    }

    /// For people.
    pub fn json(&self, txid: &[u8; 32], vout: u32, tip: Option<u32>) -> Json {
        json!({
            "txid": hex::display(txid),
            "vout": vout,
            "value_sats": self.value,
            "height": self.height,
            "coinbase": self.coinbase,
            "confirmations": tip.map(|tip| tip.saturating_sub(self.height) + 1),
        })
    }
}
