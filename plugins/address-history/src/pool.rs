//! What the memory pool does with each script.
//!
//! The instance that follows the pool has all of it in memory and leaves to queries, in the volatile space, what they can ask
//! for: the sums of a script and its first entries, and each transaction's txid by a number.

use blockmill_sdk::prelude::*;
use blockmill_sdk::state::Keys;
use blockmill_sdk::{HashTable, ValueBytes, record};

use crate::connect::{self, Touched};
use crate::entries::{self, COIN_KEY_WIDTH, Owner, Sats, ScriptHash};

/// Bytes of the volatile space that are used, of 16 MiB: scripts that find no more room are known to be missing.
const MAX_BYTES: usize = 12 << 20;
/// Entries of a script that queries are left.
pub const MAX_LISTED: usize = 500;
/// What an entry of the volatile space costs besides its value.
const OVERHEAD: usize = 24;

record! {
    /// What the pool does with a script.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Unconfirmed: Value {
        pub received: u64,
        pub sent: u64,
        pub txs: u32,
        /// Number of the transaction in the pool, and `received` and `sent` as they lie one behind the other.
        pub listed: Vec<u8>,
    }
}

/// Says that the pool was heard of, of which block it is, and how many scripts there was no room for.
const HEARD: &[u8] = b"h";

/// A transaction of the pool.
#[derive(Debug)]
struct Entry {
    number: u32,
    scripts: Vec<ScriptHash>,
    outputs: Vec<Owner>,
}

/// What the pool does with a script.
#[derive(Debug, Default)]
struct Script {
    /// Number of the transaction, received and sent; the lowest number first.
    moves: Vec<(u32, u64, u64)>,
    /// Bytes that it takes in the volatile space.
    published: usize,
    changed: bool,
}

/// The pool.
#[derive(Debug, Default)]
pub struct Pool {
    by_txid: HashTable<[u8; 32], Entry>,
    scripts: HashTable<ScriptHash, Script>,
    /// Scripts that queries have not been left as they are now.
    changed: Vec<ScriptHash>,
    /// A block comes in parts, and there were transactions that it might have.
    confirming: bool,
    bytes: usize,
    next: u32,
    missing: u64,
}

impl Pool {
    /// Forgets everything; the host has emptied the volatile space.
    pub fn reset(&mut self) {
        *self = Pool::default();
    }

    /// A transaction left.
    pub fn remove(&mut self, txid: &[u8; 32]) {
        let Some(entry) = self.by_txid.remove(txid) else {
            return;
        };
        for script in entry.scripts {
            let moves = &mut self.change(script).moves;
            if let Ok(place) = moves.binary_search_by_key(&entry.number, |(number, ..)| *number) {
                moves.remove(place);
            }
        }
        volatile::delete(&number_key(entry.number));
        self.bytes = self.bytes.saturating_sub(OVERHEAD + 5 + 32);
    }

    /// The script, to be changed.
    fn change(&mut self, script: ScriptHash) -> &mut Script {
        let entry = self.scripts.entry(script).or_default();
        if !entry.changed {
            entry.changed = true;
            self.changed.push(script);
        }
        entry
    }

    /// A block has some of them: they are not shown twice until the pool says so too. `last` for a whole block, or its last part.
    pub fn confirm(&mut self, block: &Block, last: bool) {
        if !self.by_txid.is_empty() {
            self.confirming = true;
            for txid in block.txids() {
                self.remove(txid);
            }
        }
        if last && std::mem::take(&mut self.confirming) {
            self.publish(block.height());
        }
    }

    /// Transactions came, parents before children.
    pub fn add<'a>(&mut self, transactions: impl Iterator<Item = Transaction<'a>> + Clone) {
        let mut keys = Keys::fixed(COIN_KEY_WIDTH as u32);
        for previous in transactions
            .clone()
            .flat_map(|tx| tx.inputs())
            .map(|input| input.previous())
        {
            keys.push(&entries::coin_key(previous.txid, previous.vout));
        }
        let mut owners = entries::owners(&keys).into_iter();
        for tx in transactions {
            // It may be told twice.
            self.remove(tx.txid());
            let mut touched = Vec::new();
            for input in tx.inputs() {
                let previous = input.previous();
                let confirmed = owners.next().flatten();
                let parent = self.by_txid.get(previous.txid);
                let owner = parent
                    .and_then(|parent| parent.outputs.get(previous.vout as usize).copied())
                    .or(confirmed);
                if let Some((script, value)) = owner {
                    touched.push(Touched {
                        script,
                        received: 0,
                        sent: value.0,
                    });
                }
            }
            let mut outputs = Vec::new();
            for output in tx.outputs() {
                let script = entries::hash(output.script());
                outputs.push((script, Sats(output.value())));
                if !script::is_unspendable(output.script()) {
                    touched.push(Touched {
                        script,
                        received: output.value(),
                        sent: 0,
                    });
                }
            }
            connect::join(&mut touched);
            let number = self.next;
            self.next = self.next.saturating_add(1);
            for t in &touched {
                let moves = &mut self.change(t.script).moves;
                moves.push((number, t.received, t.sent));
            }
            let entry = Entry {
                number,
                scripts: touched.iter().map(|t| t.script).collect(),
                outputs,
            };
            self.by_txid.insert(*tx.txid(), entry);
            if self.bytes + OVERHEAD + 5 + 32 <= MAX_BYTES {
                volatile::put(&number_key(number), tx.txid());
            }
            // Counted in any case: it is taken off again when the transaction leaves.
            self.bytes += OVERHEAD + 5 + 32;
        }
    }

    /// Leaves what changed to queries.
    pub fn publish(&mut self, height: u32) {
        for script in std::mem::take(&mut self.changed) {
            let Some(entry) = self.scripts.get_mut(&script) else {
                continue;
            };
            entry.changed = false;
            self.bytes = self
                .bytes
                .saturating_sub(std::mem::take(&mut entry.published));
            let mut unconfirmed = Unconfirmed::default();
            for (number, received, sent) in &entry.moves {
                unconfirmed.received = unconfirmed.received.saturating_add(*received);
                unconfirmed.sent = unconfirmed.sent.saturating_add(*sent);
                unconfirmed.txs += 1;
                if unconfirmed.txs as usize <= MAX_LISTED {
                    ValueBytes::write(
                        &(*number, (Sats(*received), Sats(*sent))),
                        &mut unconfirmed.listed,
                    );
                }
            }
            let key = script_key(&script);
            if unconfirmed.txs == 0 {
                volatile::delete(&key);
                self.scripts.remove(&script);
                continue;
            }
            let mut value = Vec::new();
            unconfirmed.write(&mut value);
            let bytes = OVERHEAD + key.len() + value.len();
            if self.bytes + bytes > MAX_BYTES {
                self.missing += 1;
                volatile::delete(&key);
                continue;
            }
            self.bytes += bytes;
            entry.published = bytes;
            volatile::put(&key, &value);
        }
        let mut heard = Vec::new();
        ValueBytes::write(&(height, self.missing), &mut heard);
        volatile::put(HEARD, &heard);
    }
}

fn number_key(number: u32) -> Vec<u8> {
    [b"t".as_slice(), &number.to_be_bytes()].concat()
}

fn script_key(script: &ScriptHash) -> Vec<u8> {
    [b"s".as_slice(), script].concat()
}

/// What queries see of the pool: the block it is of, and how many scripts there was no room for. None where it was not
/// heard of yet.
pub fn heard() -> Option<(u32, u64)> {
    ValueBytes::read(&mut volatile::get(HEARD)?.as_slice())
}

/// What queries see of a script.
pub fn of_script(script: &ScriptHash) -> Unconfirmed {
    volatile::get(&script_key(script))
        .and_then(|bytes| Unconfirmed::read(&mut bytes.as_slice()))
        .unwrap_or_default()
}

/// The entries that are listed: txid, received, sent.
pub fn listed(unconfirmed: &Unconfirmed) -> Vec<([u8; 32], u64, u64)> {
    let mut rest = unconfirmed.listed.as_slice();
    let mut entries = Vec::new();
    while let Some((number, (received, sent))) = <(u32, (Sats, Sats))>::read(&mut rest) {
        let txid = volatile::get(&number_key(number)).and_then(|txid| txid.try_into().ok());
        if let Some(txid) = txid {
            entries.push((txid, received.0, sent.0));
        }
    }
    entries
}
