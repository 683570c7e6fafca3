//! A parent that pays too little by itself and a child that pays for both (Core's package of one parent and one child).

use bitcoin::Txid;

use super::checks::{Candidate, Refused};
use super::coins::{CoinLookup, Tip};
use super::entry::Entry;
use super::{Arrival, Mempool, RemoveReason};

/// Children tried for one parent each time it is offered.
const MAX_TRIED: usize = 4;

impl Mempool {
    /// Looks among the waiting transactions for a child that pays for a parent which was refused for its fee alone. Answers
    /// with what both replaced and with the child.
    pub(super) fn with_a_child(
        &mut self,
        parent: &Candidate,
        arrival: Arrival,
        now: u64,
        coins: &dyn CoinLookup,
        tip: Tip,
    ) -> Result<Option<(Vec<Txid>, Txid)>, Refused> {
        let children = self.orphans.children(&parent.txid, arrival.from);
        for child in children.into_iter().take(MAX_TRIED) {
            let child_arrival = Arrival {
                from: child.from,
                first_seen: child.since,
                ..arrival
            };
            let arrivals = (arrival, child_arrival);
            let outcome = self.enter_both(parent, &child.raw, arrivals, now, coins, tip);
            match outcome {
                Ok(replaced) => {
                    self.orphans.forget(&child.txid);
                    return Ok(Some((replaced, child.txid)));
                }
                Err(Refused::Coins(error)) => return Err(Refused::Coins(error)),
                Err(refused) => {
                    tracing::debug!(parent = %parent.txid, child = %child.txid, %refused, "package refused");
                }
            }
        }
        Ok(None)
    }

    fn enter_both(
        &mut self,
        parent: &Candidate,
        child: &bytes::Bytes,
        (of_parent, of_child): (Arrival, Arrival),
        now: u64,
        coins: &dyn CoinLookup,
        tip: Tip,
    ) -> Result<Vec<Txid>, Refused> {
        let child = Candidate::decode(child)?;
        let parent = Entry {
            first_seen: of_parent.first_seen,
            ..parent
                .clone()
                .price(&self.graph, &self.config, coins, tip)?
        };
        let child = Entry {
            first_seen: of_child.first_seen,
            ..child.price_with(&self.graph, Some(&parent), &self.config, coins, tip)?
        };
        let both = [&parent, &child];
        if child
            .spends
            .iter()
            .any(|outpoint| parent.spends.contains(outpoint))
        {
            return Err(Refused::Conflict {
                with: parent.txid,
                why: "its own parent spends the same",
            });
        }
        let (fee, vsize) = (
            parent.fee.saturating_add(child.fee),
            parent.vsize + child.vsize,
        );
        let minimum = self.min_fee_rate(now);
        let too_little = (fee as f64) < minimum * (vsize as f64) / 1000.0;
        // What does not raise its parent's rate does not pay for it.
        let no_help = u128::from(child.fee) * u128::from(parent.vsize)
            <= u128::from(parent.fee) * u128::from(child.vsize);
        if too_little || no_help {
            return Err(Refused::LowFee {
                fee,
                vsize,
                min_fee_rate: minimum,
            });
        }
        let replaced = self.replaced_by(&both)?;
        // Core: a package that replaces has no parents in the pool.
        if let Some(first) = replaced.first()
            && (!parent.depends.is_empty() || child.depends != [parent.txid])
        {
            return Err(Refused::Conflict {
                with: *first,
                why: "a package that replaces may not have other unconfirmed parents",
            });
        }
        self.graph.check_cluster(
            &both,
            &replaced,
            self.config.max_cluster_entries,
            self.config.max_cluster_vsize,
        )?;
        let (parent_id, child_id) = (parent.txid, child.txid);
        for victim in &replaced {
            self.take_out(victim, RemoveReason::Replaced { by: child_id });
        }
        self.put_in(parent, of_parent, now);
        self.put_in(child, of_child, now);
        self.trim_to_size(now);
        if self.graph.contains(&parent_id) && self.graph.contains(&child_id) {
            Ok(replaced)
        } else {
            Err(Refused::PoolFull {
                min_fee_rate: self.min_fee_rate(now),
            })
        }
    }
}
