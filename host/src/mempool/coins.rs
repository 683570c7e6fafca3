//! What the pool must know of the chain: the coins that transactions spend, and the tip.

use bitcoin::{OutPoint, ScriptBuf};

/// An unspent output of the active chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coin {
    /// In sat.
    pub value: u64,
    /// Height of the block that created it.
    pub height: u32,
    /// Whether a coinbase created it.
    pub coinbase: bool,
    /// The script that locks it: what operations on signatures cost depends on it (BIP16, BIP141). It is not run, and not kept.
    pub script: ScriptBuf,
}

/// The block the pool stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// Its height.
    pub height: u32,
    /// Its median time past, in unix seconds (BIP113).
    pub median_time: u32,
}

/// The set of coins at the tip, as whoever has the role `coins` keeps it, and the times of the chain below it.
pub trait CoinLookup {
    /// The coin, or `None` when there is no such unspent output.
    ///
    /// # Errors
    ///
    /// Whatever keeps the lookup from answering; the transaction is then refused as
    /// [`Refused::Coins`](super::Refused::Coins) and may be offered again.
    fn coin(&self, outpoint: &OutPoint) -> anyhow::Result<Option<Coin>>;

    /// Many at once, in the order asked: for a lookup to which each question costs a call.
    ///
    /// # Errors
    ///
    /// As [`coin`](Self::coin).
    fn coins(&self, outpoints: &[OutPoint]) -> anyhow::Result<Vec<Option<Coin>>> {
        outpoints
            .iter()
            .map(|outpoint| self.coin(outpoint))
            .collect()
    }

    /// The median time past of the tip's ancestor at this height, in unix seconds (BIP113): relative locks by time count from
    /// there (BIP68). Asked for no height above the tip's.
    ///
    /// # Errors
    ///
    /// As [`coin`](Self::coin).
    fn median_time_at(&self, height: u32) -> anyhow::Result<u32>;
}
