//! A saved pool, offered again after a restart.

use bitcoin::Txid;
use bytes::Bytes;

use super::checks::{Candidate, Refused};
use super::coins::{CoinLookup, Tip};
use super::{Accepted, Arrival, Mempool, Origin};

impl Mempool {
    /// Offers a transaction of a saved pool again, with the time at which it was first seen then.
    ///
    /// # Errors
    ///
    /// [`Refused`]; [`Refused::Expired`] when its time is over.
    pub fn reload(
        &mut self,
        raw: &Bytes,
        first_seen: u64,
        now: u64,
        coins: &dyn CoinLookup,
        tip: Tip,
    ) -> Result<Accepted, Refused> {
        let first_seen = first_seen.min(now);
        if now - first_seen >= self.config.expiry_seconds {
            return Err(Refused::Expired);
        }
        let arrival = Arrival {
            from: None,
            origin: Origin::Reloaded,
            first_seen,
        };
        self.offer(raw, arrival, now, coins, tip)
    }

    /// Offers a whole pool again, parents before children. A parent that pays too little by itself comes in with the child that
    /// pays for both, as it did before. Answers with how many are in the pool again.
    pub fn reload_all(
        &mut self,
        saved: impl IntoIterator<Item = (Bytes, u64)>,
        now: u64,
        coins: &dyn CoinLookup,
        tip: Tip,
    ) -> usize {
        let before = self.graph.len();
        // Each with its id: they wait for a child.
        let mut poor: Vec<(Txid, Bytes, u64)> = Vec::new();
        for (raw, first_seen) in saved {
            match self.reload(&raw, first_seen, now, coins, tip) {
                Ok(Accepted::Orphan { missing, .. }) => {
                    let parents = poor.extract_if(.., |(txid, ..)| missing.contains(txid));
                    for (_, raw, first_seen) in parents.collect::<Vec<_>>() {
                        let _ = self.reload(&raw, first_seen, now, coins, tip);
                    }
                }
                Err(refused) if refused.is_reconsiderable() => {
                    if let Ok(candidate) = Candidate::decode(&raw) {
                        poor.push((candidate.txid, raw, first_seen));
                    }
                }
                _ => {}
            }
        }
        self.graph.len().saturating_sub(before)
    }
}
