//! Coins by script, when the setting `index` is on.

use bitcoin_hashes::{Hash, sha256};
use blockmill_sdk::prelude::*;
use blockmill_sdk::state::{self, Keys};
use blockmill_sdk::wire::Spent;
use blockmill_sdk::{Pieces, Single};

use crate::coin;
use crate::rules::is_unspendable;

/// First byte of every key of the index.
pub const PREFIX: u8 = b'S';

/// Bytes of the script's SHA256 that stand in a key: enough that nobody finds two scripts with the same ones by chance,
/// and the full script is in the coin for whoever must be sure.
pub const HASH_WIDTH: usize = 16;

/// Length of a key: prefix, script hash, txid, output index.
pub const KEY_WIDTH: usize = 1 + HASH_WIDTH + 36;

const BUILT: Single<bool> = Single::new(b"I");

/// Whether the state was built with the index.
pub fn is_built() -> bool {
    BUILT.get().ok().flatten().unwrap_or(false)
}

/// Notes in an empty state whether it is built with the index.
pub fn mark(index: bool) {
    BUILT.put(&index);
}

/// Prefix of all keys of a script.
pub fn prefix(script: &[u8]) -> Vec<u8> {
    let hash = sha256::Hash::hash(script);
    let mut key = vec![PREFIX];
    key.extend(AsRef::<[u8]>::as_ref(&hash).iter().take(HASH_WIDTH));
    key
}

/// Keeps the index up; its memory is used again from block to block.
#[derive(Debug)]
pub struct Index {
    keys: Keys,
    values: Pieces,
}

impl Index {
    /// An index that changes with the next block.
    pub fn new() -> Self {
        Index {
            keys: Keys::fixed(KEY_WIDTH as u32),
            values: Pieces::new(),
        }
    }

    fn push_key(&mut self, script: &[u8], txid: &[u8; 32], vout: u32) {
        let mut key = prefix(script);
        key.extend_from_slice(txid);
        key.extend_from_slice(&vout.to_be_bytes());
        self.keys.push(&key);
    }

    /// Changes the index as the block changed the coins. `sources` and `spent_here` say which coins never reach the state.
    pub fn block(&mut self, block: &Block, sources: &[u32], spent_here: &[bool], spent: &Spent) {
        self.keys.clear();
        let inputs = block.transactions().flat_map(|tx| tx.inputs());
        let mut start = 0;
        for ((input, source), end) in inputs.zip(sources).zip(&spent.script_ends) {
            let end = *end as usize;
            let script = spent.scripts.get(start..end).unwrap_or_default();
            start = end;
            let previous = input.previous();
            if *source == u32::MAX && !previous.is_null() {
                self.push_key(script, previous.txid, previous.vout);
            }
        }
        state::delete_many(&self.keys);

        self.keys.clear();
        self.values.clear();
        let outputs = block
            .transactions()
            .flat_map(|tx| tx.outputs().map(move |output| (tx, output)));
        for ((tx, output), spent_here) in outputs.zip(spent_here) {
            if *spent_here || is_unspendable(output.script()) {
                continue;
            }
            self.push_key(output.script(), tx.txid(), output.vout());
            self.values.push(&coin::head(
                block.height(),
                tx.is_coinbase(),
                output.value(),
            ));
        }
        state::put_many(&self.keys, &self.values);
    }
}

impl Default for Index {
    fn default() -> Self {
        Index::new()
    }
}
