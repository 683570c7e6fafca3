//! The commitment to the coin set, as Bitcoin Core's `gettxoutsetinfo` prints it.
//!
//! Per coin: txid in internal order, vout u32 LE, `height * 2 + coinbase` u32 LE, value i64 LE, script with its compact
//! size. `hash_serialized_3` is SHA256d over all coins in the order of their keys, `muhash` is MuHash3072 of the set. One
//! thread reads and streams the first; the others multiply, which is most of the work.

use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::coins::{COIN_PREFIX, damaged, decode_key, split_coin};
use super::columns::Keys;
use super::error::StoreError;
use super::muhash::MuHash;
use super::snapshot::StateSnapshot;

/// Coins handed to a thread at once.
const CHUNK: usize = 4_096;

/// Sums and commitments of a coin set. Hashes are hex as displayed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TxOutSet {
    /// Height of the last block in the set.
    pub height: u32,
    /// Hash of that block.
    pub bestblock: String,
    /// Number of coins.
    pub txouts: u64,
    /// Their values together, in sat.
    pub total_sats: u64,
    /// MuHash3072 of the set.
    pub muhash: String,
    /// SHA256d over the coins in order.
    pub hash_serialized_3: String,
}

/// What [`txoutset`] has done so far.
#[derive(Debug, Clone, Copy)]
pub struct TxOutSetProgress {
    /// Coins read.
    pub coins: u64,
    /// Coins read a second.
    pub rate: f64,
}

/// Serialized coins on their way to a thread.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

/// Reads the whole coin set of a snapshot of the plugin with the role `coins`. `progress` is called every few thousand
/// coins; when it says `false` the work stops and there is no answer. Without any block there is no answer either.
pub fn txoutset(
    snapshot: &StateSnapshot,
    mut progress: impl FnMut(TxOutSetProgress) -> bool,
) -> Result<Option<TxOutSet>, StoreError> {
    let Some(cursor) = snapshot.cursor() else {
        return Ok(None);
    };
    let started = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (sender, receiver) = sync_channel::<Chunk>(threads * 2);
    let receiver = Mutex::new(receiver);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| multiply(&receiver)))
            .collect();
        let mut serialized = Sha256::new();
        let (mut txouts, mut total_sats) = (0u64, 0u64);
        let mut chunk = Chunk::default();
        for entry in snapshot.iter_prefix(&[COIN_PREFIX], None) {
            let (key, value) = entry?;
            let start = chunk.bytes.len();
            total_sats =
                total_sats.saturating_add(serialize(&key, &value, &mut chunk).ok_or_else(damaged)?);
            serialized.update(chunk.bytes.get(start..).unwrap_or_default());
            txouts += 1;
            if chunk.ends.len() == CHUNK {
                sender.send(std::mem::take(&mut chunk)).ok();
                let seconds = started.elapsed().as_secs_f64().max(1e-9);
                if !progress(TxOutSetProgress {
                    coins: txouts,
                    rate: txouts as f64 / seconds,
                }) {
                    return Ok(None);
                }
            }
        }
        sender.send(chunk).ok();
        drop(sender);
        let mut muhash = MuHash::new();
        for worker in workers {
            muhash.combine(
                &worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            );
        }
        let hash_serialized_3: [u8; 32] = Sha256::digest(serialized.finalize()).into();
        Ok(Some(TxOutSet {
            height: cursor.height,
            bestblock: display(cursor.hash),
            txouts,
            total_sats,
            muhash: display(muhash.finish()),
            hash_serialized_3: display(hash_serialized_3),
        }))
    })
}

/// Bitcoin Core's `hash_serialized_3` of coins that are given in the order of their keys.
#[derive(Default)]
pub struct CoinHash {
    hash: Sha256,
    chunk: Chunk,
}

impl CoinHash {
    /// The next coin, by its key and value in the state.
    ///
    /// # Errors
    ///
    /// When it is no coin.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.chunk.bytes.clear();
        self.chunk.ends.clear();
        serialize(key, value, &mut self.chunk).ok_or_else(damaged)?;
        self.hash.update(&self.chunk.bytes);
        Ok(())
    }

    /// The hash as displayed.
    pub fn finish(self) -> String {
        display(Sha256::digest(self.hash.finalize()).into())
    }
}

/// Multiplies the chunks that it gets hold of until there are no more.
fn multiply(chunks: &Mutex<Receiver<Chunk>>) -> MuHash {
    let mut product = MuHash::new();
    loop {
        let chunk = chunks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(chunk) = chunk else {
            return product;
        };
        for coin in Keys::ends(&chunk.ends, &chunk.bytes).iter() {
            product.insert(coin);
        }
    }
}

/// Appends a coin as Core serializes it, and gives its value in sat.
fn serialize(key: &[u8], value: &[u8], to: &mut Chunk) -> Option<u64> {
    let outpoint = decode_key(key)?;
    let (code, sats, script) = split_coin(value)?;
    to.bytes.extend_from_slice(&outpoint.txid);
    to.bytes.extend_from_slice(&outpoint.vout.to_le_bytes());
    to.bytes.extend_from_slice(&code.to_le_bytes());
    to.bytes.extend_from_slice(&sats.to_le_bytes());
    match u8::try_from(script.len()) {
        Ok(len) if len < 0xfd => to.bytes.push(len),
        _ => {
            to.bytes.push(0xfd);
            to.bytes
                .extend_from_slice(&u16::try_from(script.len()).ok()?.to_le_bytes());
        }
    }
    to.bytes.extend_from_slice(script);
    to.ends.push(u32::try_from(to.bytes.len()).ok()?);
    Some(sats)
}

/// A hash in internal byte order as it is displayed.
fn display(mut hash: [u8; 32]) -> String {
    hash.reverse();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn the_empty_set_hashes_to_what_core_prints() {
        assert_eq!(
            display(MuHash::new().finish()),
            "dd5ad2a105c2d29495f577245c357409002329b9f4d6182c0af3dc2f462555c8"
        );
    }

    #[test]
    fn the_order_of_elements_does_not_matter() {
        let (mut one, mut other, mut half) = (MuHash::new(), MuHash::new(), MuHash::new());
        [&b"a"[..], b"b", b"c"]
            .iter()
            .for_each(|element| one.insert(element));
        other.insert(b"c");
        [&b"b"[..], b"a"]
            .iter()
            .for_each(|element| half.insert(element));
        other.combine(&half);
        assert_eq!(one.finish(), other.finish());
        other.insert(b"a");
        assert_ne!(one.finish(), other.finish());
    }
}
