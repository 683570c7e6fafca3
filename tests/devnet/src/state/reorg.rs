//! Reorganisations on demand.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use bitcoin::{BlockHash, Transaction, Txid};
use rand::RngExt;
use serde::Serialize;

use super::{News, State};

/// What became of the chain and of the transactions of the abandoned blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reorg {
    /// The last height that both branches share.
    pub fork_height: u32,
    /// The blocks left behind, lowest first.
    pub abandoned: Vec<BlockHash>,
    /// The blocks that took their place, lowest first.
    pub added: Vec<BlockHash>,
    /// Abandoned transactions that are in the new branch as well.
    pub confirmed_again: Vec<Txid>,
    /// Abandoned transactions that are back in the pool.
    pub returned: Vec<Txid>,
    /// Abandoned transactions that a transaction of the new branch made impossible, with that transaction.
    pub replaced: Vec<(Txid, Txid)>,
    /// Abandoned transactions that went with something they had spent.
    pub dropped: Vec<Txid>,
}

/// What is meant to become of an abandoned transaction.
enum Fate {
    ConfirmAgain,
    Return,
    Replace,
}

impl State {
    /// Leaves the last `depth` blocks for a branch of `length` new ones. Of the abandoned transactions some confirm again,
    /// some go back to the pool, and some are double-spent.
    ///
    /// # Errors
    /// When the branch would not have more work (`length` ≤ `depth`), when the chain is not that long, and where nothing can be
    /// mined.
    pub fn reorg(&mut self, depth: u32, length: u32) -> Result<Reorg> {
        ensure!(depth > 0, "a reorganisation is at least one block deep");
        ensure!(
            length > depth,
            "a branch of {length} does not outweigh {depth} blocks"
        );
        self.ensure_mining()?;
        let fork_height = self
            .chain
            .height()
            .checked_sub(depth)
            .with_context(|| format!("the chain has no {depth} blocks to leave"))?;

        let abandoned = self.disconnect_to(fork_height)?;
        let mut reorg = Reorg {
            fork_height,
            abandoned: abandoned.iter().map(|block| block.block_hash()).collect(),
            ..Reorg::default()
        };
        let old_txids: HashSet<Txid> = super::payments(&abandoned)
            .map(Transaction::compute_txid)
            .collect();
        let pooled = self.pool.drain();
        self.wallet_recount();
        self.hold(&pooled);

        let mut later: Vec<Transaction> = Vec::new();
        let mut old_blocks = abandoned.iter();
        let mut headers = Vec::new();
        for _ in 0..length {
            let old = old_blocks
                .next()
                .map(|block| block.txdata.as_slice())
                .unwrap_or_default();
            for tx in old.iter().skip(1) {
                if let Some(returning) = self.decide(tx, &mut reorg) {
                    self.hold(std::slice::from_ref(&returning));
                    later.push(returning);
                }
            }
            // Fresh payments, so that the branches differ in more than what they took over.
            let fresh = self.mining.txs_per_block / 2;
            self.fill(fresh);
            let block = self.extend()?;
            headers.push(block.header);
            reorg.added.push(block.block_hash());
            let txids = block.txdata.iter().map(Transaction::compute_txid);
            reorg
                .confirmed_again
                .extend(txids.filter(|txid| old_txids.contains(txid)));
        }

        self.held.clear();
        // Clients that hear of these before they hear of the branch would refuse them.
        let early = std::mem::take(&mut self.news);
        self.news.push(News::Blocks(headers));
        self.news
            .extend(early.into_iter().filter(|news| match news {
                News::Transaction { txid, .. } => self.pool.get(txid).is_some(),
                News::Blocks(_) => true,
            }));
        let _ = self.offer_all(pooled, false);
        let _ = self.offer_all(later, true);
        self.account(&abandoned, &mut reorg);
        Ok(reorg)
    }

    /// Lets a transaction of an abandoned block confirm again, replaces it, or hands it back to be returned to the pool.
    fn decide(&mut self, tx: &Transaction, reorg: &mut Reorg) -> Option<Transaction> {
        let fate = match self.wallet.rng().random_range(0..100_u32) {
            0..50 => Fate::ConfirmAgain,
            50..78 => Fate::Return,
            _ => Fate::Replace,
        };
        match fate {
            // One whose parent is held back waits with it.
            Fate::ConfirmAgain => self.offer(tx.clone(), false).is_err().then(|| tx.clone()),
            Fate::Return => Some(tx.clone()),
            Fate::Replace => {
                let free = tx.input.iter().all(|input| {
                    !self.held.contains(&input.previous_output)
                        && self.pool.spender(&input.previous_output).is_none()
                });
                let rate = self.wallet.rng().random_range(1_000..6_000);
                match free.then(|| self.rival(tx, rate)).flatten() {
                    Some(rival) => {
                        reorg.replaced.push((tx.compute_txid(), rival));
                        None
                    }
                    None => Some(tx.clone()),
                }
            }
        }
    }

    /// Keeps payments away from what these transactions spend.
    fn hold(&mut self, txs: &[Transaction]) {
        let inputs = txs.iter().flat_map(|tx| &tx.input);
        self.held.extend(inputs.map(|input| input.previous_output));
    }

    /// Says of every abandoned transaction where it is now.
    fn account(&self, abandoned: &[bitcoin::Block], reorg: &mut Reorg) {
        let mut settled: HashSet<Txid> = reorg.confirmed_again.iter().copied().collect();
        settled.extend(reorg.replaced.iter().map(|(old, _)| *old));
        for tx in super::payments(abandoned) {
            let txid = tx.compute_txid();
            if self.pool.get(&txid).is_some() {
                reorg.returned.push(txid);
            } else if !settled.contains(&txid) {
                reorg.dropped.push(txid);
            }
        }
    }
}
