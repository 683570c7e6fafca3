#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod arrivals;
pub(super) mod chain;
mod departures;
mod honest;
mod locks;
mod measure;
mod random;
mod regtest_pool;
mod sigops;

use bitcoin::Transaction;

use super::*;
use chain::{Chain, pay, raw, spend};

pub(super) const NOW: u64 = 1_700_000_000;

impl Mempool {
    /// Panics unless every figure equals what is computed from nothing.
    fn verify(&self) {
        self.graph.verify();
        let snapshot = self.snapshot();
        assert_eq!(snapshot.len(), self.graph.len());
        let mut before = std::collections::HashSet::new();
        for entry in snapshot {
            assert!(
                entry.depends.iter().all(|parent| before.contains(parent)),
                "parents come first"
            );
            before.insert(entry.txid);
        }
    }
}

const COIN: u64 = 100_000;

fn setup(coins: u32) -> (Mempool, Chain, Vec<OutPoint>) {
    let (chain, outpoints) = Chain::with_coins(200, coins, COIN);
    (Mempool::new(MempoolConfig::default()), chain, outpoints)
}

fn offer(pool: &mut Mempool, chain: &Chain, tx: &Transaction) -> Result<Accepted, Refused> {
    let outcome = pool.accept(raw(tx), NOW, chain, chain.tip());
    pool.verify();
    outcome
}

/// Offers what must enter, and answers with what it replaced and what it let in.
#[track_caller]
fn enter(pool: &mut Mempool, chain: &Chain, tx: &Transaction) -> (Vec<Txid>, Vec<Txid>) {
    match offer(pool, chain, tx).unwrap() {
        Accepted::Entered {
            entry,
            replaced,
            adopted,
        } => {
            assert_eq!(entry.txid, tx.compute_txid());
            (replaced, adopted)
        }
        Accepted::Orphan { .. } => panic!("an orphan"),
    }
}

fn txids(txs: &[&Transaction]) -> Vec<Txid> {
    txs.iter().map(|tx| tx.compute_txid()).collect()
}
