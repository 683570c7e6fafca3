//! What came and went, as it is told to plugins.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bitcoin::Txid;

use super::entry::Entry;
use super::graph::Graph;

/// Why an entry is in the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A peer sent it.
    New,
    /// A block that held it was disconnected.
    Returned,
    /// It was in the pool that was saved at the last stop.
    Reloaded,
}

/// How a transaction comes into the pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// The peer that sent it.
    pub(super) from: Option<SocketAddr>,
    pub(super) origin: Origin,
    /// In unix seconds.
    pub(super) first_seen: u64,
}

/// Why an entry left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveReason {
    /// A block holds it.
    Confirmed {
        /// The block's.
        height: u32,
    },
    /// A block holds another transaction that spends what it, or an ancestor, spends.
    Conflicted {
        /// That transaction.
        by: Txid,
    },
    /// A transaction that pays more spends what it, or an ancestor, spends.
    Replaced {
        /// That transaction.
        by: Txid,
    },
    /// It, or an ancestor, was in the pool for too long.
    Expired,
    /// The pool was full.
    Evicted,
    /// A reorg made it invalid.
    Reorg,
}

/// The difference between two states of the pool: take `removed` out, then put `added` in.
///
/// An entry that came and went in between is in neither. One that went and came back is in both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MempoolChanges {
    /// What came, parents before children, with its figures as of now.
    pub added: Vec<(Arc<Entry>, Origin)>,
    /// What went, in order.
    pub removed: Vec<(Txid, RemoveReason)>,
}

impl MempoolChanges {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

/// Gathers changes until they are drained.
#[derive(Debug, Default)]
pub(super) struct ChangeLog {
    added: HashMap<Txid, Origin>,
    removed: Vec<(Txid, RemoveReason)>,
}

impl ChangeLog {
    pub(super) fn added(&mut self, txid: Txid, origin: Origin) {
        self.added.insert(txid, origin);
    }

    pub(super) fn removed(&mut self, txid: Txid, reason: RemoveReason) {
        // What nobody was told of need not be taken back.
        if self.added.remove(&txid).is_none() {
            self.removed.push((txid, reason));
        }
    }

    pub(super) fn drain(&mut self, graph: &Graph) -> MempoolChanges {
        let mut added: Vec<(Arc<Entry>, Origin)> = std::mem::take(&mut self.added)
            .into_iter()
            .filter_map(|(txid, origin)| graph.get(&txid).map(|entry| (Arc::clone(entry), origin)))
            .collect();
        added.sort_unstable_by_key(|(entry, _)| {
            (entry.ancestors.count, entry.first_seen, entry.txid)
        });
        MempoolChanges {
            added,
            removed: std::mem::take(&mut self.removed),
        }
    }
}
