#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod chain;
mod measure;
mod random;
mod regtest_pool;
mod rules;

use super::*;
use chain::{Chain, pay, raw, spend};

const NOW: u64 = 1_700_000_000;

impl Mempool {
    /// Panics unless every figure equals what is computed from nothing.
    fn verify(&self) {
        self.graph.verify();
        let snapshot = self.snapshot();
        assert_eq!(snapshot.len(), self.graph.len());
        let mut before = std::collections::HashSet::new();
        for entry in snapshot {
            assert!(
                entry.depends.iter().all(|parent| before.contains(parent)),
                "parents come first"
            );
            before.insert(entry.txid);
        }
    }
}
