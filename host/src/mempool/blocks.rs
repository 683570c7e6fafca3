//! What a block that is connected or disconnected does to the pool.

use bitcoin::{OutPoint, Txid};
use bytes::Bytes;

use super::Mempool;
use super::changes::{Arrival, Origin, RemoveReason};
use super::checks::{Candidate, Refused};
use super::coins::{CoinLookup, Tip};
use super::coverage::Coverage;
use super::returned::Returned;

/// A block that confirms fewer of our entries says nothing about what it passed over.
const JUDGED: usize = 10;

/// Seconds that a miner may take to put what it heard into its template.
const TEMPLATE_AGE: u64 = 120;

/// An entry whose rate is so much above the median of what a block took should have been taken.
const WELL_ABOVE: f64 = 1.25;

impl Mempool {
    /// Takes out what a connected block confirms, and what its transactions make impossible.
    ///
    /// `txs` are the block's transactions in order, with the outpoints each spends (the coinbase
    /// may be left out). Costs nothing while the pool is empty. Call [`settle`](Self::settle) when
    /// the tip stands still.
    pub fn connect_block<I, S>(&mut self, height: u32, txs: I)
    where
        I: IntoIterator<Item = (Txid, S)>,
        S: IntoIterator<Item = OutPoint>,
    {
        self.take_block(
            height,
            txs.into_iter().map(|(txid, spends)| (txid, 0, spends)),
        );
    }

    /// As [`connect_block`](Self::connect_block), for a block that came at `now` while the pool was listening: what of it
    /// the pool held is counted, and so is what it passed over.
    ///
    /// `txs` are the block's transactions but for the coinbase: txid, weight, the outpoints it spends.
    pub fn hear_block<I, S>(&mut self, height: u32, now: u64, txs: I)
    where
        I: IntoIterator<Item = (Txid, u64, S)>,
        S: IntoIterator<Item = OutPoint>,
    {
        let txs: Vec<(Txid, u64, S)> = txs.into_iter().collect();
        let mut coverage = Coverage {
            blocks: 1,
            ..Coverage::default()
        };
        // Before they leave: without its parents a child has another rate.
        let mut rates = Vec::new();
        for (txid, weight, _) in &txs {
            coverage.txs += 1;
            coverage.weight += weight;
            let entry = self.graph.get(txid);
            if entry.is_some() || self.orphans.contains(txid) {
                coverage.seen += 1;
                coverage.seen_weight += weight;
            }
            rates.extend(entry.map(|entry| entry.ancestors.rate()));
        }
        self.take_block(height, txs);
        self.coverage.block(height, coverage);
        if rates.len() >= JUDGED {
            rates.sort_unstable_by(f64::total_cmp);
            let median = rates.get(rates.len() / 2).copied().unwrap_or(f64::MAX);
            let until = now.saturating_sub(TEMPLATE_AGE);
            self.graph.pass_over(|entry| {
                entry.first_seen <= until && entry.ancestors.rate() > median * WELL_ABOVE
            });
        }
    }

    fn take_block<I, S>(&mut self, height: u32, txs: I)
    where
        I: IntoIterator<Item = (Txid, u64, S)>,
        S: IntoIterator<Item = OutPoint>,
    {
        self.minimum_fee.block_connected();
        self.refused.clear();
        self.reconsiderable.clear();
        if self.graph.is_empty() && self.orphans.is_empty() && self.returned.is_empty() {
            return;
        }
        for (txid, _, spends) in txs {
            self.confirmed.insert(txid.into());
            self.returned.confirmed(&txid);
            self.orphans.confirmed(&txid);
            if self.graph.contains(&txid) {
                self.take_out(&txid, RemoveReason::Confirmed { height });
                continue;
            }
            for outpoint in spends {
                self.orphans.spent(&outpoint);
                if let Some(loser) = self.graph.spender(&outpoint) {
                    self.take_out_with_descendants(loser, RemoveReason::Conflicted { by: txid });
                }
            }
        }
    }

    /// Remembers the transactions of a disconnected block, to be put back by
    /// [`settle`](Self::settle).
    ///
    /// `raws` are its transactions in order, serialized, the coinbase first. Blocks are
    /// disconnected from the tip downwards. What spends the block's coinbase leaves at once.
    pub fn disconnect_block<I>(&mut self, raws: I)
    where
        I: IntoIterator<Item = Bytes>,
    {
        self.went_back = true;
        self.refused.clear();
        self.reconsiderable.clear();
        let mut block = Vec::new();
        for raw in raws {
            let Ok(tx) = bitcoin::consensus::deserialize::<bitcoin::Transaction>(&raw) else {
                continue;
            };
            let txid = tx.compute_txid();
            self.confirmed.remove(&txid.into());
            let outputs = tx.output.len() as u32;
            if tx.is_coinbase() {
                self.take_out_spenders(txid, outputs, RemoveReason::Reorg);
            } else {
                let raw = Bytes::copy_from_slice(&raw);
                block.push(Returned { txid, outputs, raw });
            }
        }
        for lost in self.returned.disconnected(block) {
            self.take_out_spenders(lost.txid, lost.outputs, RemoveReason::Reorg);
        }
    }

    /// Settles on a new tip: puts back what disconnected blocks held and the new branch did not
    /// take, drops what no longer fits, and tries orphans whose parents were confirmed.
    ///
    /// Call it after the last of a run of [`connect_block`](Self::connect_block) and
    /// [`disconnect_block`](Self::disconnect_block), when `coins` answers as of `tip`; between
    /// those calls and this one the pool is between two states, so offer nothing and drain nothing.
    ///
    /// Answers with what came in by it, some of which may have left again.
    ///
    /// # Errors
    ///
    /// That of the coin lookup; what was not put back yet is by the next call.
    pub fn settle(
        &mut self,
        now: u64,
        coins: &dyn CoinLookup,
        tip: Tip,
    ) -> anyhow::Result<Vec<Txid>> {
        let mut entered = Vec::new();
        while let Some(Returned { txid, outputs, raw }) = self.returned.first() {
            let outcome = Candidate::decode(&raw).and_then(|candidate| {
                let arrival = Arrival {
                    from: None,
                    origin: Origin::Returned,
                    first_seen: now,
                };
                self.enter(candidate, arrival, now, coins, tip)
            });
            match outcome {
                Ok(_) => entered.push(txid),
                Err(Refused::Known) => {}
                Err(Refused::Coins(error)) => {
                    return Err(
                        error.context("failed to look up the coins of a returned transaction")
                    );
                }
                Err(refused) => {
                    tracing::debug!(%txid, %refused, "a transaction of a disconnected block does not fit any more");
                    self.take_out_spenders(txid, outputs, RemoveReason::Reorg);
                }
            }
            self.returned.pop();
        }
        if self.lost_track {
            for entry in self.snapshot() {
                self.check_again(entry.txid, coins, tip)?;
            }
        } else if self.went_back {
            for txid in self.graph.closed_at(tip) {
                self.take_out_with_descendants(txid, RemoveReason::Reorg);
            }
            for txid in self.graph.with_relative_locks() {
                self.check_again(txid, coins, tip)?;
            }
        }
        (self.went_back, self.lost_track) = (false, false);
        self.trim_to_size(now);
        let parents = self.orphans.parents(|parent| {
            self.graph.contains(parent) || self.confirmed.contains(&(*parent).into())
        });
        entered.extend(self.adopt_orphans(parents, now, coins, tip));
        Ok(entered)
    }

    /// Blocks came and went that the pool is not told of: [`settle`](Self::settle) looks at everything again.
    pub fn lost_track(&mut self) {
        self.lost_track = true;
        self.refused.clear();
        self.reconsiderable.clear();
    }

    /// Takes an entry out that may not stay: its relative locks, counted from where its coins are now, are not open, or what it
    /// spends is gone.
    fn check_again(&mut self, txid: Txid, coins: &dyn CoinLookup, tip: Tip) -> anyhow::Result<()> {
        let Some(entry) = self.graph.get(&txid) else {
            return Ok(());
        };
        let outcome = Candidate::decode(&entry.raw)
            .and_then(|candidate| candidate.price(&self.graph, &self.config, coins, tip));
        match outcome {
            Ok(_) => {}
            Err(Refused::Coins(error)) => {
                return Err(error.context("failed to look up the coins of an entry"));
            }
            Err(Refused::Confirmed) => {
                let height = tip.height;
                self.take_out(&txid, RemoveReason::Confirmed { height });
            }
            Err(_) => self.take_out_with_descendants(txid, RemoveReason::Reorg),
        }
        Ok(())
    }
}
