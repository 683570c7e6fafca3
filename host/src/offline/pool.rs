//! The memory pool of a host that knows what comes: transactions arrive before their block, leave with it, and come back
//! when it is left in a reorg.

use anyhow::{Context, Result};
use bitcoin::{Amount, OutPoint, Transaction, TxIn, TxOut, consensus};
use bytes::Bytes;
use serde::Serialize;

use super::bed::Given;
use super::spent::Coins;
use crate::frame::Frame;
use crate::lane::PoolFeed;
use crate::mempool::{Accepted, Mempool, MempoolConfig, Tip};

/// Blocks ahead of the tip whose transactions are told.
pub(super) const AHEAD: usize = 2;
/// One of so many is heard of first in its block. The pool has another one that spends the same, which the block pushes out.
const RIVALS: usize = 8;
/// What an output of a rival is short of, sat.
const SHORT: Amount = Amount::from_sat(1);

/// Transactions that no block has, at most, which are in the pool at the end.
const LAST: usize = 20;
/// What each of them pays.
const LAST_FEE: Amount = Amount::from_sat(5_000);

/// What a plugin was told of the pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PoolFigures {
    /// Transactions that came before their block.
    pub arrived: u64,
    /// Transactions that came and were pushed out by another one that a block has.
    pub rivals: u64,
    /// Transactions that were not taken: they pay too little, or wait for one that did not come.
    pub refused: u64,
    /// Transactions that are in the pool at the end.
    pub left: u64,
}

/// The host's own pool and what it tells.
pub(super) struct Pool {
    pub feed: PoolFeed,
    pub figures: PoolFigures,
    /// The clock that the pool goes by, unix seconds: that of the blocks, which is the same each time.
    now: u64,
}

fn transactions(frame: &Frame) -> Result<Vec<(Bytes, Transaction)>> {
    let layouts = frame.columns.layouts().iter();
    let raws = layouts.map(|layout| frame.raw.slice(layout.whole()));
    raws.map(|raw| {
        let transaction = consensus::deserialize(&raw);
        Ok((raw, transaction.context("a transaction cannot be decoded")?))
    })
    .collect()
}

impl Pool {
    pub(super) fn new() -> Self {
        Self {
            feed: PoolFeed::new(Mempool::new(MempoolConfig::default())),
            figures: PoolFigures::default(),
            now: 0,
        }
    }

    /// Unix seconds.
    pub(super) fn time(&self) -> u64 {
        self.now
    }

    /// Goes from the blocks `left`, lowest first, to the blocks `came`, lowest first, of which `coins` knows the last.
    pub(super) fn follow(&mut self, left: &[Given], came: &[Given], coins: &Coins) -> Result<()> {
        let mut pool = self.feed.pool();
        for given in left.iter().rev() {
            pool.disconnect_block(transactions(&given.frame)?.into_iter().map(|(raw, _)| raw));
        }
        for given in came {
            let spends = transactions(&given.frame)?.into_iter().map(|(_, tx)| {
                let spends: Vec<OutPoint> = tx.input.iter().map(|i| i.previous_output).collect();
                (tx.compute_txid(), spends)
            });
            pool.connect_block(given.position.height, spends);
        }
        let last = came.last().context("a way to no block")?;
        self.now = self.now.max(u64::from(last.frame.header.time));
        pool.settle(self.now, coins, tip(last))?;
        Ok(())
    }

    /// Takes in the transactions of a block that comes later; `coins` knows the block `at`.
    pub(super) fn arrive(&mut self, coming: &Frame, at: &Given, coins: &Coins) -> Result<()> {
        let mut pool = self.feed.pool();
        for (index, (raw, mut tx)) in transactions(coming)?.into_iter().enumerate().skip(1) {
            let rival = index.is_multiple_of(RIVALS);
            let raw = match tx.output.first_mut() {
                Some(output) if rival && output.value > SHORT => {
                    output.value -= SHORT;
                    consensus::serialize(&tx).into()
                }
                _ if rival => continue,
                _ => raw,
            };
            let count = match pool.accept(raw, self.now, coins, tip(at)) {
                Ok(Accepted::Entered { .. }) if rival => &mut self.figures.rivals,
                Ok(Accepted::Entered { .. }) => &mut self.figures.arrived,
                _ => &mut self.figures.refused,
            };
            *count += 1;
        }
        Ok(())
    }

    /// Takes in made-up transactions that spend what the last block made, so that there is a pool in the end.
    pub(super) fn arrive_last(&mut self, last: &Given, coins: &Coins) -> Result<()> {
        let mut pool = self.feed.pool();
        for (_, tx) in transactions(&last.frame)?.iter().skip(1).take(LAST) {
            let Some(spent) = tx
                .output
                .first()
                .filter(|output| output.value > LAST_FEE * 2)
            else {
                continue;
            };
            let own = Transaction {
                input: vec![TxIn {
                    previous_output: OutPoint::new(tx.compute_txid(), 0),
                    ..TxIn::default()
                }],
                output: vec![TxOut {
                    value: spent.value - LAST_FEE,
                    script_pubkey: spent.script_pubkey.clone(),
                }],
                ..tx.clone()
            };
            let raw = consensus::serialize(&own).into();
            let taken = pool.accept(raw, self.now, coins, tip(last));
            self.figures.refused += u64::from(!matches!(taken, Ok(Accepted::Entered { .. })));
        }
        Ok(())
    }

    /// Tells the plugins that have a queue what changed; the pool is at this height.
    pub(super) fn publish(&mut self, height: u32) {
        let mut pool = self.feed.pool();
        self.feed.publish(&mut pool, height);
        self.figures.left = pool.info(self.now).txs as u64;
    }
}

fn tip(given: &Given) -> Tip {
    Tip {
        height: given.position.height,
        median_time: given.median_time,
    }
}
