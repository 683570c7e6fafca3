//! A block, from its columns into the state.

use blockmill_sdk::prelude::*;
use blockmill_sdk::state::Keys;
use blockmill_sdk::{KeyBytes, Pieces, ValueBytes, sort};

use crate::entries::{
    self, BALANCES, Balance, COIN_KEY_WIDTH, EntryKey, HASH_WIDTH, HISTORY, Moved, NEXT, Number,
    Owner, Sats, ScriptHash, TRANSACTIONS, TransactionRecord,
};

/// What a transaction did with a script.
#[derive(Clone, Copy, Debug)]
pub struct Touched {
    /// The script.
    pub script: ScriptHash,
    /// sat it was paid.
    pub received: u64,
    /// sat of it that were spent.
    pub sent: u64,
}

/// Joins what a transaction did with the same script.
pub fn join(touched: &mut Vec<Touched>) {
    sort::by(touched, |a, b| a.script.cmp(&b.script));
    touched.dedup_by(|next, first| {
        let same = next.script == first.script;
        if same {
            first.received = first.received.saturating_add(next.received);
            first.sent = first.sent.saturating_add(next.sent);
        }
        same
    });
}

/// Takes blocks into the state; its memory is used again from block to block.
#[derive(Debug)]
pub struct Connect {
    /// Whether coins are kept for what the pool spends.
    pub coins: bool,
    keys: Keys,
    values: Pieces,
}

impl Connect {
    /// What takes in the next block.
    pub fn new(coins: bool) -> Self {
        Connect {
            coins,
            keys: Keys::any(),
            values: Pieces::new(),
        }
    }

    /// Adds a block, or the next part of one, to the histories. Parts leave what the whole block would: numbers go on, sums are
    /// added to, and an output that a later part spends is a coin in between.
    pub fn part(&mut self, block: &Block) -> Result<(), String> {
        let first = NEXT.get()?.unwrap_or(0);
        let mut sums: Vec<(ScriptHash, Balance)> = Vec::new();
        let mut touched = Vec::new();
        self.clear(0);
        for tx in block.transactions() {
            touched.clear();
            // The output of the genesis block is no coin: nobody can ever spend it.
            if block.height() > 0 {
                of_transaction(&tx, &mut touched);
            }
            join(&mut touched);
            let number = Number(first + tx.position() as u64);
            let record = TransactionRecord {
                height: block.height(),
                txid: *tx.txid(),
            };
            self.put(&TRANSACTIONS, &number, &record);
            for t in &touched {
                let key = EntryKey {
                    script: t.script,
                    number,
                };
                let moved = Moved {
                    received: Sats(t.received),
                    sent: Sats(t.sent),
                };
                self.put(&HISTORY, &key, &moved);
                let sum = Balance {
                    received: moved.received,
                    sent: moved.sent,
                    txs: Sats(1),
                };
                sums.push((t.script, sum));
            }
        }
        state::put_many(&self.keys, &self.values);
        self.add_balances(sums);
        if self.coins {
            self.change_coins(block);
        }
        NEXT.put(&(first + block.len() as u64));
        Ok(())
    }

    /// Empties the columns; keys have `width` bytes, or any number of them where it is 0.
    fn clear(&mut self, width: usize) {
        self.keys.clear();
        self.keys.width = width as u32;
        self.values.clear();
    }

    fn put<K: KeyBytes, V: ValueBytes>(&mut self, map: &Map<K, V>, key: &K, value: &V) {
        self.keys.push_with(|to| map.write_key(key, to));
        self.values.push_with(entries::bytes(value));
    }

    /// Adds to the sums of every script of the block. One read and one write a script, all of them in two calls.
    fn add_balances(&mut self, mut sums: Vec<(ScriptHash, Balance)>) {
        sort::by(&mut sums, |(a, _), (b, _)| a.cmp(b));
        sums.dedup_by(|(next, more), (script, sum)| {
            let same = next == script;
            if same {
                add(sum, more);
            }
            same
        });
        self.clear(1 + HASH_WIDTH);
        for (script, _) in &sums {
            self.keys.push_with(|to| BALANCES.write_key(script, to));
        }
        let before = state::get_many(&self.keys);
        for ((_, sum), before) in sums.iter_mut().zip(before.iter()) {
            if let Some(before) = before.and_then(|mut bytes| Balance::read(&mut bytes)) {
                add(sum, &before);
            }
            self.values.push_with(entries::bytes(sum));
        }
        state::put_many(&self.keys, &self.values);
    }

    /// Keeps whose every unspent output is: what a transaction of the pool spends comes without its script.
    fn change_coins(&mut self, block: &Block) {
        self.clear(COIN_KEY_WIDTH);
        for tx in block.transactions() {
            for output in tx
                .outputs()
                .filter(|output| !script::is_unspendable(output.script()))
            {
                self.keys.push(&entries::coin_key(tx.txid(), output.vout()));
                let owner: Owner = (entries::hash(output.script()), Sats(output.value()));
                self.values.push_with(entries::bytes(&owner));
            }
        }
        state::put_many(&self.keys, &self.values);
        self.clear(COIN_KEY_WIDTH);
        for tx in block.transactions() {
            for previous in tx
                .inputs()
                .map(|input| input.previous())
                .filter(|previous| !previous.is_null())
            {
                self.keys
                    .push(&entries::coin_key(previous.txid, previous.vout));
            }
        }
        state::delete_many(&self.keys);
    }
}

/// What a transaction of a block did with each script, input for input and output for output.
fn of_transaction(tx: &Transaction<'_>, touched: &mut Vec<Touched>) {
    for output in tx
        .outputs()
        .filter(|output| !script::is_unspendable(output.script()))
    {
        touched.push(Touched {
            script: entries::hash(output.script()),
            received: output.value(),
            sent: 0,
        });
    }
    for coin in tx.inputs().filter_map(|input| input.spent()) {
        touched.push(Touched {
            script: entries::hash(coin.script),
            received: 0,
            sent: coin.value,
        });
    }
}

fn add(sum: &mut Balance, more: &Balance) {
    let add = |a: &mut Sats, b: Sats| a.0 = a.0.saturating_add(b.0);
    add(&mut sum.received, more.received);
    add(&mut sum.sent, more.sent);
    add(&mut sum.txs, more.txs);
}
