//! The two commitments to a coin set that Bitcoin Core prints, computed from a sorted copy of the set.

use bitcoin::consensus::Encodable;
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::{BlockHash, OutPoint};
use serde::{Deserialize, Serialize};

use crate::coins::Coin;
use crate::muhash::MuHash;

/// A coin set at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Height of the block after which the set is this one.
    pub height: u32,
    /// Hash of that block.
    pub bestblock: BlockHash,
    /// The coins, sorted by outpoint (txid in internal order, then index).
    pub coins: Vec<(OutPoint, Coin)>,
}

/// What `gettxoutsetinfo` says of a coin set. Hashes are displayed (reversed) hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UtxoSet {
    /// Height of the block after which the set is this one.
    pub height: u32,
    /// Hash of that block.
    pub bestblock: BlockHash,
    /// Number of coins.
    pub txouts: u64,
    /// Their value in sat.
    pub total_sats: u64,
    /// MuHash3072, displayed.
    pub muhash: String,
    /// SHA256d over the coins in order, displayed.
    pub hash_serialized_3: String,
}

impl UtxoSet {
    /// Counts and hashes a coin set.
    pub fn of(snapshot: &Snapshot) -> Self {
        let coins = snapshot.coins.as_slice();
        // The products of two halves can be taken at the same time, and a multiplication costs ten times the rest.
        let (left, right) = coins.split_at(coins.len() / 2);
        let (mut muhash, other) = std::thread::scope(|scope| {
            let worker = scope.spawn(|| product(right));
            let left = product(left);
            (left, worker.join().unwrap_or_default())
        });
        muhash.combine(&other);

        let mut serialized = sha256d::Hash::engine();
        let mut bytes = Vec::new();
        let mut total_sats = 0_u64;
        for (outpoint, coin) in coins {
            serialize(outpoint, coin, &mut bytes);
            serialized.input(&bytes);
            total_sats = total_sats.saturating_add(coin.output.value.to_sat());
        }
        Self {
            height: snapshot.height,
            bestblock: snapshot.bestblock,
            txouts: u64::try_from(coins.len()).unwrap_or(u64::MAX),
            total_sats,
            muhash: sha256d::Hash::from_byte_array(muhash.finish()).to_string(),
            hash_serialized_3: sha256d::Hash::from_engine(serialized).to_string(),
        }
    }
}

fn product(coins: &[(OutPoint, Coin)]) -> MuHash {
    let mut muhash = MuHash::default();
    let mut bytes = Vec::new();
    for (outpoint, coin) in coins {
        serialize(outpoint, coin, &mut bytes);
        muhash.insert(&bytes);
    }
    muhash
}

/// Core's `TxOutSer`: outpoint, height·2 + coinbase (u32 LE), value (i64 LE), script with its compact size.
fn serialize(outpoint: &OutPoint, coin: &Coin, into: &mut Vec<u8>) {
    into.clear();
    into.extend(outpoint.txid.to_byte_array());
    into.extend(outpoint.vout.to_le_bytes());
    let code = coin
        .height
        .wrapping_mul(2)
        .wrapping_add(u32::from(coin.coinbase));
    into.extend(code.to_le_bytes());
    into.extend(coin.output.value.to_sat().to_le_bytes());
    // Writing to a vector cannot fail.
    let _ = coin.output.script_pubkey.consensus_encode(into);
}
