//! Payments of our own.

use std::collections::HashSet;

use bitcoin::{OutPoint, Transaction, TxOut, Txid};
use rand::RngExt;

use super::State;
use crate::coins::Coins;
use crate::pool::Pool;

/// Payments that may fail one after the other before [`State::fill`] gives up.
const FAILED_PAYMENTS: usize = 100;

impl State {
    /// Writes up to `count` payments into the pool, and returns their txids. Fewer when the wallet has nothing more to
    /// spend, as before height 101.
    pub fn fill(&mut self, count: usize) -> Vec<Txid> {
        let mut made = Vec::new();
        let mut failed = 0;
        while made.len() < count && failed < FAILED_PAYMENTS {
            match self.pay() {
                Some(txid) => {
                    made.push(txid);
                    failed = 0;
                }
                None => failed += 1,
            }
        }
        made
    }

    fn pay(&mut self) -> Option<Txid> {
        let coins = self.coins.as_ref()?;
        let (pool, held) = (&self.pool, &self.held);
        let height = coins.height();
        let payment = self
            .wallet
            .pay(height, |outpoint| spendable(coins, pool, held, outpoint))?;
        let txid = payment.compute_txid();
        self.offer(payment, true).ok()?;
        Some(txid)
    }

    /// Replaces up to `count` transactions of the pool by others that spend the same coins and pay more (BIP125). Returns
    /// pairs of old and new txid.
    pub fn replace(&mut self, count: usize) -> Vec<(Txid, Txid)> {
        let mut pairs = Vec::new();
        let mut candidates = self.pool.in_order();
        while pairs.len() < count && !candidates.is_empty() {
            let at = self.wallet.rng().random_range(0..candidates.len());
            let old = candidates.swap_remove(at);
            let Some(entry) = self.pool.get(&old).cloned() else {
                continue;
            };
            // Twice the rate is enough unless it has dependants, which then must be paid for as well.
            let rate = entry
                .fee_rate()
                .saturating_mul(2)
                .div_ceil(4)
                .saturating_add(500);
            if let Some(new) = self.rival(&entry.tx, rate) {
                pairs.push((old, new));
            }
        }
        pairs
    }

    /// Pays the confirmed coins that `tx` spends to somewhere else, at `rate` sat per 1,000 weight units.
    pub(super) fn rival(&mut self, tx: &Transaction, rate: u64) -> Option<Txid> {
        let coins = self.coins.as_ref()?;
        let inputs: Vec<(OutPoint, TxOut)> = tx
            .input
            .iter()
            .filter_map(|input| {
                let coin = coins.get(&input.previous_output)?;
                coin.mature_at(coins.height() + 1)
                    .then(|| (input.previous_output, coin.output.clone()))
            })
            .collect();
        let payment = self.wallet.pay_from(&inputs, coins.height(), rate)?;
        let txid = payment.compute_txid();
        self.offer(payment, true).ok()?;
        Some(txid)
    }
}

fn spendable(
    coins: &Coins,
    pool: &Pool,
    held: &HashSet<OutPoint>,
    outpoint: &OutPoint,
) -> Option<TxOut> {
    if held.contains(outpoint) || pool.spender(outpoint).is_some() {
        return None;
    }
    if let Some(coin) = coins.get(outpoint) {
        return coin
            .mature_at(coins.height().saturating_add(1))
            .then(|| coin.output.clone());
    }
    let output = pool.output(outpoint)?;
    pool.extensible(&outpoint.txid).then(|| output.clone())
}
