//! A chain's coins for the tests, and transactions to spend them.

use std::collections::HashMap;

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
};
use bytes::Bytes;

use super::super::{Coin, CoinLookup, Mempool, Tip};

type Spent = Vec<(OutPoint, Coin)>;

/// The coins at the tip, and what each block spent.
#[derive(Default)]
pub(in super::super) struct Chain {
    pub(super) coins: HashMap<OutPoint, Coin>,
    blocks: Vec<(Vec<Transaction>, Spent)>,
    /// When set, every lookup fails.
    pub(super) broken: bool,
    /// When set, lookups of times fail.
    pub(super) timeless: bool,
    /// Median times that are not those of blocks every ten minutes.
    pub(super) times: HashMap<u32, u32>,
}

impl CoinLookup for Chain {
    fn coin(&self, outpoint: &OutPoint) -> anyhow::Result<Option<Coin>> {
        anyhow::ensure!(!self.broken, "the coins are away");
        Ok(self.coins.get(outpoint).cloned())
    }

    fn median_time_at(&self, height: u32) -> anyhow::Result<u32> {
        anyhow::ensure!(!self.broken, "the coins are away");
        anyhow::ensure!(!self.timeless, "the times are away");
        anyhow::ensure!(height <= self.tip().height, "no block at {height} yet");
        Ok(self.time_at(height))
    }
}

impl Chain {
    /// A chain of `height` empty blocks, below which lie `count` coins of `value` sat each, not of
    /// coinbases.
    pub(in super::super) fn with_coins(
        height: u32,
        count: u32,
        value: u64,
    ) -> (Self, Vec<OutPoint>) {
        let mut chain = Self::default();
        let outpoints: Vec<OutPoint> = (0..count)
            .map(|vout| OutPoint::new(made_up_txid(), vout))
            .collect();
        for outpoint in &outpoints {
            chain.coins.insert(
                *outpoint,
                Coin {
                    value,
                    height: 1,
                    coinbase: false,
                    script: ScriptBuf::new(),
                },
            );
        }
        for _ in 0..height {
            chain.connect(Vec::new());
        }
        (chain, outpoints)
    }

    pub(in super::super) fn tip(&self) -> Tip {
        let height = self.blocks.len() as u32;
        Tip {
            height,
            median_time: self.time_at(height),
        }
    }

    fn time_at(&self, height: u32) -> u32 {
        let set = self.times.get(&height).copied();
        set.unwrap_or_else(|| median_time(height))
    }

    /// Connects a block of these transactions.
    pub(in super::super) fn connect(&mut self, txs: Vec<Transaction>) {
        let height = self.blocks.len() as u32 + 1;
        let mut spent = Vec::new();
        for tx in &txs {
            if !tx.is_coinbase() {
                for input in &tx.input {
                    let outpoint = input.previous_output;
                    let coin = self
                        .coins
                        .remove(&outpoint)
                        .expect("a block spends coins that are there");
                    spent.push((outpoint, coin));
                }
            }
            let txid = tx.compute_txid();
            for (vout, output) in tx.output.iter().enumerate() {
                let coin = Coin {
                    value: output.value.to_sat(),
                    height,
                    coinbase: tx.is_coinbase(),
                    script: output.script_pubkey.clone(),
                };
                self.coins.insert(OutPoint::new(txid, vout as u32), coin);
            }
        }
        self.blocks.push((txs, spent));
    }

    /// Takes the tip off and answers with its transactions.
    pub(in super::super) fn disconnect(&mut self) -> Vec<Transaction> {
        let (txs, spent) = self.blocks.pop().expect("a block to disconnect");
        // First what was spent, as some of it was made in this block.
        self.coins.extend(spent);
        for tx in &txs {
            let txid = tx.compute_txid();
            for vout in 0..tx.output.len() as u32 {
                self.coins.remove(&OutPoint::new(txid, vout));
            }
        }
        txs
    }

    /// Connects a block here and in the pool.
    pub(in super::super) fn connect_both(&mut self, pool: &mut Mempool, txs: Vec<Transaction>) {
        pool.connect_block(self.tip().height + 1, spends(&txs));
        self.connect(txs);
    }

    /// Disconnects the tip here and in the pool.
    pub(in super::super) fn disconnect_both(&mut self, pool: &mut Mempool) -> Vec<Transaction> {
        let txs = self.disconnect();
        pool.disconnect_block(txs.iter().map(raw));
        txs
    }

    /// Connects a decoded block here.
    pub(in super::super) fn connect_block(&mut self, block: Block) {
        self.connect(block.txdata);
    }
}

/// Blocks come every ten minutes.
pub(super) fn median_time(height: u32) -> u32 {
    1_600_000_000 + height * 600
}

/// What `Mempool::connect_block` is told of a block.
pub(in super::super) fn spends(txs: &[Transaction]) -> impl Iterator<Item = (Txid, Vec<OutPoint>)> {
    txs.iter().map(|tx| {
        (
            tx.compute_txid(),
            tx.input.iter().map(|input| input.previous_output).collect(),
        )
    })
}

pub(in super::super) fn raw(tx: &Transaction) -> Bytes {
    Bytes::from(bitcoin::consensus::serialize(tx))
}

pub(in super::super) fn made_up_txid() -> Txid {
    "00000000000000000000000000000000000000000000000000000000deadbeef"
        .parse()
        .unwrap()
}

/// A transaction that spends `inputs` into outputs of these values, in sat; 92 vB with one of each.
pub(in super::super) fn spend(inputs: &[OutPoint], values: &[u64]) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: inputs
            .iter()
            .map(|outpoint| TxIn {
                previous_output: *outpoint,
                script_sig: ScriptBuf::from_bytes(vec![0x51; 10]),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            })
            .collect(),
        output: values
            .iter()
            .map(|value| TxOut {
                value: Amount::from_sat(*value),
                script_pubkey: ScriptBuf::from_bytes(vec![0x51; 22]),
            })
            .collect(),
    }
}

/// The first output of a transaction.
pub(in super::super) fn pay(tx: &Transaction) -> OutPoint {
    OutPoint::new(tx.compute_txid(), 0)
}

pub(in super::super) fn coinbase(height: u32) -> Transaction {
    let mut tx = spend(&[OutPoint::null()], &[50_0000_0000]);
    tx.input[0].script_sig =
        ScriptBuf::from_bytes([&[4][..], &height.to_le_bytes()[..], &[0; 5][..]].concat());
    tx
}
