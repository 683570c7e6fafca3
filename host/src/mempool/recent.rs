//! Hashes seen lately.

use std::collections::HashSet;

use bitcoin::hashes::Hash as _;
use bitcoin::{Txid, Wtxid};

/// A txid or a wtxid, in internal byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TxHash([u8; 32]);

impl From<[u8; 32]> for TxHash {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl TxHash {
    /// Read as one or the other: which it is, is known by where it is found.
    pub(super) fn as_ids(&self) -> (Txid, Wtxid) {
        (
            Txid::from_byte_array(self.0),
            Wtxid::from_byte_array(self.0),
        )
    }
}

impl From<Txid> for TxHash {
    fn from(txid: Txid) -> Self {
        Self(txid.to_byte_array())
    }
}

impl From<Wtxid> for TxHash {
    fn from(wtxid: Wtxid) -> Self {
        Self(wtxid.to_byte_array())
    }
}

/// Remembers at least the last `capacity` hashes, at most twice as many.
#[derive(Debug)]
pub(super) struct Recent {
    capacity: usize,
    young: HashSet<TxHash, foldhash::fast::RandomState>,
    old: HashSet<TxHash, foldhash::fast::RandomState>,
}

impl Recent {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            young: HashSet::default(),
            old: HashSet::default(),
        }
    }

    pub(super) fn insert(&mut self, hash: TxHash) {
        if self.young.len() >= self.capacity {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash);
    }

    pub(super) fn contains(&self, hash: &TxHash) -> bool {
        self.young.contains(hash) || self.old.contains(hash)
    }

    pub(super) fn remove(&mut self, hash: &TxHash) {
        self.young.remove(hash);
        self.old.remove(hash);
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}
