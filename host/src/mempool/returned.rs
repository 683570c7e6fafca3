//! Transactions of disconnected blocks, until it is known which of them the new branch holds.

use std::collections::{HashSet, VecDeque};

use bitcoin::Txid;
use bytes::Bytes;

/// Bytes kept at most. Core keeps 20 MB; a block may have 4 MB.
const MAX_BYTES: usize = 40_000_000;

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct Returned {
    pub(super) txid: Txid,
    /// How many outputs it has.
    pub(super) outputs: u32,
    pub(super) raw: Bytes,
}

/// In the order in which the abandoned branch held them: parents before children.
#[derive(Debug, Default)]
pub(super) struct ReturnedQueue {
    queue: VecDeque<Returned>,
    /// Those of the queue that are still wanted.
    wanted: HashSet<Txid, foldhash::fast::RandomState>,
    bytes: usize,
}

impl ReturnedQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn contains(&self, txid: &Txid) -> bool {
        self.wanted.contains(txid)
    }

    /// Takes a block that came before all that were taken so far. Answers with what had to be given
    /// up: the latest, as nothing else in the queue depends on them.
    pub(super) fn disconnected(&mut self, block: Vec<Returned>) -> Vec<Returned> {
        for returned in block.into_iter().rev() {
            if self.wanted.insert(returned.txid) {
                self.bytes += returned.raw.len();
                self.queue.push_front(returned);
            }
        }
        let mut given_up = Vec::new();
        while self.bytes > MAX_BYTES {
            let Some(returned) = self.queue.pop_back() else {
                break;
            };
            self.bytes -= returned.raw.len();
            if self.wanted.remove(&returned.txid) {
                given_up.push(returned);
            }
        }
        given_up
    }

    /// A block of the new branch holds it.
    pub(super) fn confirmed(&mut self, txid: &Txid) {
        self.wanted.remove(txid);
    }

    /// The first that is still wanted.
    pub(super) fn first(&mut self) -> Option<Returned> {
        while let Some(returned) = self.queue.front() {
            if self.wanted.contains(&returned.txid) {
                return Some(returned.clone());
            }
            self.pop();
        }
        None
    }

    /// Drops the first.
    pub(super) fn pop(&mut self) {
        if let Some(returned) = self.queue.pop_front() {
            self.bytes -= returned.raw.len();
            self.wanted.remove(&returned.txid);
        }
    }
}
