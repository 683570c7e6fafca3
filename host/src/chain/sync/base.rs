//! A block up to which everything is taken as checked: that of a snapshot from which plugins began. The blocks below it are
//! never asked for.

use bitcoin::BlockHash;

use super::Sync;
use crate::wire::Moment;

/// The block, until it is found in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Its height.
    pub height: u32,
    /// Its hash.
    pub hash: BlockHash,
}

impl Sync {
    /// Names the block. It takes effect once the branch with the most work is known to have it; until that branch is as
    /// high no block is asked for.
    pub fn set_base(&mut self, base: Base) {
        self.base = Some(base);
    }

    /// The base, as long as the branch with the most work is not known to have it.
    pub fn base(&self) -> Option<Base> {
        self.base
    }

    /// Whether blocks would be asked for that may turn out to lie below the base.
    pub(super) fn waits_for_base(&self) -> bool {
        self.base.is_some_and(|base| {
            let (height, _) = self.tree.best_header();
            height < base.height || self.tree.best_work() < self.config.minimum_work
        })
    }

    /// Takes the base as checked if the branch with the most work has it.
    pub(super) fn find_base(&mut self, now: Moment) {
        let Some(base) = self.base else {
            return;
        };
        if self.waits_for_base() {
            return;
        }
        if self.tree.best_hash_at(base.height) == Some(base.hash) {
            self.base = None;
            let change = self.tree.mark_checked_through(&base.hash);
            self.forget_source_below(base.height);
            tracing::info!(height = base.height, hash = %base.hash, "the block of the snapshot is on the chain");
            self.tip_changed(change, now);
        } else if !self.base_missed {
            self.base_missed = true;
            tracing::error!(
                height = base.height,
                hash = %base.hash,
                found = self.tree.best_hash_at(base.height).map(tracing::field::display),
                "the block of the snapshot is not on the chain with the most work"
            );
        }
    }
}
