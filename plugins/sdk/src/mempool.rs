//! What happened in the memory pool.

use std::ops::Deref;

#[cfg(target_arch = "wasm32")]
use crate::bindings::blockmill::plugin::pool as host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::host::pool as host;

use crate::columns::{Columns, Malformed, start};
use crate::transaction::Transaction;
use crate::wire;

/// Why a transaction left the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is in a block.
    Confirmed,
    /// A transaction in a block spends what it spent.
    Conflicted,
    /// A better paying one took its place.
    Replaced,
    /// It was there for too long.
    Expired,
    /// The pool is full, and it paid least.
    Evicted,
    /// No longer valid after a reorg.
    Invalidated,
}

/// Where a transaction that came into the pool came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// New, from a peer.
    Peer,
    /// Back from a block that a reorg left.
    Reorg,
    /// Known from before a restart.
    Saved,
}

/// What happened in the memory pool since the last call: first what left, then what came.
#[derive(Debug)]
pub struct MempoolChanges {
    reset: bool,
    time: u64,
    height: u32,
    current: bool,
    removed: Vec<u8>,
    reasons: Vec<u8>,
    added: Columns,
    fees: Vec<u64>,
    vsizes: Vec<u32>,
    first_seen: Vec<u64>,
    origins: Vec<u8>,
    parent_ends: Vec<u32>,
    parents: Vec<u8>,
}

impl MempoolChanges {
    /// Takes the changes over, if their columns agree with each other.
    pub fn new(c: wire::MempoolChanges) -> Result<Self, Malformed> {
        let added = Columns::new(c.added, false)?;
        let count = added.len();
        let fits = c.fees.len() == count
            && c.vsizes.len() == count
            && c.first_seen.len() == count
            && c.origins.len() == count
            && c.parent_ends.len() == count;
        if !fits {
            return Err(Malformed(
                "mempool-changes.fees, vsizes, first-seen, origins and parent-ends",
            ));
        }
        let parents = c.parent_ends.last().copied().unwrap_or(0) as usize;
        if c.parents.len() != parents * 32 {
            return Err(Malformed("mempool-changes.parents"));
        }
        if c.removed.len() != c.removed_reasons.len() * 32 {
            return Err(Malformed("mempool-changes.removed and removed-reasons"));
        }
        Ok(MempoolChanges {
            reset: c.reset,
            time: c.time,
            height: c.height,
            current: c.current,
            removed: c.removed,
            reasons: c.removed_reasons,
            added,
            fees: c.fees,
            vsizes: c.vsizes,
            first_seen: c.first_seen,
            origins: c.origins,
            parent_ends: c.parent_ends,
            parents: c.parents,
        })
    }

    /// True when all that was heard of the pool is to be forgotten: what is added is the whole pool. Volatile tables and
    /// the volatile space have been emptied.
    pub fn reset(&self) -> bool {
        self.reset
    }

    /// Unix seconds by the host's clock.
    pub fn time(&self) -> u64 {
        self.time
    }

    /// Height of the last block that this plugin was given.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// False while the host is still taking in blocks or its pool is fresh: what is in the pool came in earlier than it
    /// seems.
    pub fn current(&self) -> bool {
        self.current
    }

    /// What left: txid (internal order) and why.
    pub fn removed(&self) -> impl ExactSizeIterator<Item = (&[u8; 32], Removal)> {
        let txids: &[[u8; 32]] = self.removed.as_chunks().0;
        txids.iter().zip(&self.reasons).map(|(txid, reason)| {
            let reason = match reason {
                0 => Removal::Confirmed,
                1 => Removal::Conflicted,
                2 => Removal::Replaced,
                3 => Removal::Expired,
                4 => Removal::Evicted,
                _ => Removal::Invalidated,
            };
            (txid, reason)
        })
    }

    /// What came, parents before children.
    pub fn added(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        self.added.transactions().map(|transaction| Entry {
            changes: self,
            transaction,
        })
    }

    /// What the operations on signatures of each transaction that came cost, in their order: a block has room for 80,000. 0 where
    /// the chain has no such limit. The host is asked (since version 0.1.3 of the boundary); the virtual sizes have it in them.
    pub fn sigop_costs(&self) -> Vec<u32> {
        let mut costs = host::sigop_costs();
        costs.resize(self.added.len(), 0);
        costs
    }

    /// The columns of what came.
    pub fn added_columns(&self) -> &Columns {
        &self.added
    }
}

/// A transaction that came into the pool. It is its [`Transaction`] too: `entry.txid()`, `entry.inputs()`.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    changes: &'a MempoolChanges,
    transaction: Transaction<'a>,
}

impl<'a> Entry<'a> {
    /// The transaction.
    pub fn transaction(&self) -> &Transaction<'a> {
        &self.transaction
    }

    /// sat.
    pub fn fee(&self) -> u64 {
        self.changes
            .fees
            .get(self.transaction.position())
            .copied()
            .unwrap_or(0)
    }

    /// Virtual bytes by the pool's reckoning.
    pub fn vsize(&self) -> u32 {
        self.changes
            .vsizes
            .get(self.transaction.position())
            .copied()
            .unwrap_or(0)
    }

    /// Unix seconds by the host's clock.
    pub fn first_seen(&self) -> u64 {
        self.changes
            .first_seen
            .get(self.transaction.position())
            .copied()
            .unwrap_or(0)
    }

    /// Where it came from.
    pub fn origin(&self) -> Origin {
        match self.changes.origins.get(self.transaction.position()) {
            Some(0) => Origin::Peer,
            Some(1) => Origin::Reorg,
            _ => Origin::Saved,
        }
    }

    /// The txids of its unconfirmed parents, internal order.
    pub fn parents(&self) -> &'a [[u8; 32]] {
        let c = self.changes;
        let position = self.transaction.position();
        let all: &[[u8; 32]] = c.parents.as_chunks().0;
        let end = c.parent_ends.get(position).copied().unwrap_or(0) as usize;
        all.get(start(&c.parent_ends, position)..end)
            .unwrap_or_default()
    }
}

impl<'a> Deref for Entry<'a> {
    type Target = Transaction<'a>;
    fn deref(&self) -> &Transaction<'a> {
        &self.transaction
    }
}
