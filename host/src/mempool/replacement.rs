//! Replacement by fee, as Bitcoin Core 31 has it: every transaction can be replaced, whether it signals or not (the default
//! since 28).

use std::collections::BTreeSet;

use bitcoin::Txid;

use super::checks::Refused;
use super::entry::Entry;
use super::{MAX_CLUSTERS, Mempool};

impl Mempool {
    /// The entries that newcomers push out, descendants first; empty when they spend nothing that an entry spends.
    ///
    /// The terms: no newcomer spends what it would push out; the entries in conflict are in at most 100 clusters
    /// (BIP125's rule 5, by clusters since 31); the newcomers pay all that leaves, and for their own relay (rules 3 and 4);
    /// and what a block earns is more at some size and less at none (the fee rate diagram, which took the place of the
    /// comparison of single fee rates and of rule 2).
    pub(super) fn replaced_by(&self, newcomers: &[&Entry]) -> Result<Vec<Txid>, Refused> {
        let direct: BTreeSet<Txid> = newcomers
            .iter()
            .flat_map(|entry| &entry.spends)
            .filter_map(|outpoint| self.graph.spender(outpoint))
            .collect();
        let Some(&first) = direct.first() else {
            return Ok(Vec::new());
        };
        let refuse = |why| Refused::Conflict { with: first, why };
        if direct.len() > MAX_CLUSTERS && self.graph.clusters(&direct) > MAX_CLUSTERS {
            return Err(refuse("it would push out too many"));
        }
        let victims = self.graph.with_descendants(direct.iter().copied());
        let spends_a_victim = newcomers
            .iter()
            .flat_map(|entry| &entry.spends)
            .any(|outpoint| victims.contains(&outpoint.txid));
        if spends_a_victim {
            return Err(refuse("it spends what it would push out"));
        }
        let paid: u64 = victims
            .iter()
            .filter_map(|txid| self.graph.get(txid))
            .map(|entry| entry.fee)
            .sum();
        let (fee, vsize) = newcomers.iter().fold((0u64, 0u64), |sum, entry| {
            (sum.0.saturating_add(entry.fee), sum.1 + entry.vsize)
        });
        let relay = self
            .config
            .incremental_fee
            .saturating_mul(vsize)
            .div_ceil(1000);
        if fee <= paid || fee - paid < relay {
            return Err(refuse(
                "its fee does not pay for what it would push out and for its own relay",
            ));
        }
        if !self.graph.improved_by(newcomers, &victims) {
            return Err(refuse(
                "its fee rate is not higher: a block of some size would earn less",
            ));
        }
        Ok(victims)
    }
}
