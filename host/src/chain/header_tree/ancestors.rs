//! The way back from a header: ancestors by skip pointers, forks, locators, and what the rules ask of a branch.

use bitcoin::{BlockHash, Work};

use super::{HeaderTree, Id, MAX_LOCATOR, Node, on};
use crate::chain::header_rules::{Ancestry, MEDIAN_TIME_SPAN};
use crate::network::RETARGET_INTERVAL;

impl HeaderTree {
    /// The last node of `id`'s branch that is also in `branch`.
    pub(super) fn fork_with(&self, branch: &[Id], id: Id) -> Id {
        let top = u32::try_from(branch.len())
            .unwrap_or(u32::MAX)
            .saturating_sub(1);
        let mut id = self
            .ancestor(id, top.min(self.node(id).height))
            .unwrap_or(Id::GENESIS);
        while !on(branch, self.node(id).height, id) && id != Id::GENESIS {
            let node = self.node(id);
            // A skip that is still off the branch is safe to take.
            let skipped = self.node(node.skip);
            id = if on(branch, skipped.height, node.skip) {
                node.parent
            } else {
                node.skip
            };
        }
        id
    }

    /// The ancestor of `id` at `height`, `id` itself included.
    pub(crate) fn ancestor(&self, mut id: Id, height: u32) -> Option<Id> {
        if height > self.node(id).height {
            return None;
        }
        loop {
            let node = self.node(id);
            if node.height == height {
                return Some(id);
            }
            if on(&self.best, node.height, id) {
                return self.best.get(height as usize).copied();
            }
            // Core's skip list: jump unless the parent's own jump would land closer (CBlockIndex::GetAncestor).
            let before = skip_height(node.height.saturating_sub(1));
            let skip = skip_height(node.height);
            let jump =
                skip == height || (skip > height && !(before + 2 < skip && before >= height));
            id = if jump { node.skip } else { node.parent };
        }
    }

    pub(crate) fn is_ancestor(&self, ancestor: Id, id: Id) -> bool {
        self.ancestor(id, self.node(ancestor).height) == Some(ancestor)
    }

    /// The last common node of `id`'s branch and the active chain.
    pub(crate) fn fork_with_active(&self, id: Id) -> Id {
        self.fork_with(&self.active, id)
    }

    pub(crate) fn locator_from(&self, start: Id) -> Vec<BlockHash> {
        let mut hashes = Vec::with_capacity(32);
        let mut id = start;
        let mut step = 1;
        while hashes.len() < MAX_LOCATOR {
            let node = self.node(id);
            hashes.push(node.hash);
            if node.height == 0 {
                break;
            }
            if hashes.len() >= 10 {
                step *= 2;
            }
            id = self
                .ancestor(id, node.height.saturating_sub(step))
                .unwrap_or(Id::GENESIS);
        }
        hashes
    }

    pub(crate) fn median_time_of(&self, id: Id) -> u32 {
        let mut times = [0u32; MEDIAN_TIME_SPAN];
        let mut count = 0;
        let mut id = id;
        for time in &mut times {
            let node = self.node(id);
            *time = node.time;
            count += 1;
            if node.height == 0 {
                break;
            }
            id = node.parent;
        }
        let (times, _) = times.split_at_mut(count);
        times.sort_unstable();
        times.get(count / 2).copied().unwrap_or_default()
    }
}

/// The branch that ends at a parent, for the rules.
pub(super) struct Branch<'t> {
    pub(super) tree: &'t HeaderTree,
    pub(super) parent: Id,
}

impl Branch<'_> {
    fn at(&self, height: u32) -> &Node {
        self.tree.node(
            self.tree
                .ancestor(self.parent, height)
                .unwrap_or(self.parent),
        )
    }
}

impl Ancestry for Branch<'_> {
    fn parent_height(&self) -> u32 {
        self.tree.node(self.parent).height
    }

    fn bits_at(&self, height: u32) -> u32 {
        self.at(height).bits.to_consensus()
    }

    fn time_at(&self, height: u32) -> u32 {
        self.at(height).time
    }

    fn last_real_bits(&self, limit: u32) -> u32 {
        let mut node = self.tree.node(self.parent);
        while node.height != 0
            && !node.height.is_multiple_of(RETARGET_INTERVAL)
            && node.bits.to_consensus() == limit
        {
            node = self.tree.node(node.parent);
        }
        node.bits.to_consensus()
    }

    fn median_time_past(&self) -> u32 {
        self.tree.median_time_of(self.parent)
    }

    fn median_time_at(&self, height: u32) -> u32 {
        let id = self.tree.ancestor(self.parent, height);
        self.tree.median_time_of(id.unwrap_or(self.parent))
    }

    fn work_at(&self, height: u32) -> Work {
        self.at(height).work
    }
}

/// The height that a node's skip pointer jumps to (Core's `GetSkipHeight`).
pub(super) fn skip_height(height: u32) -> u32 {
    let invert_lowest_one = |n: u32| n & n.wrapping_sub(1);
    match height {
        0 | 1 => 0,
        height if height & 1 == 1 => invert_lowest_one(invert_lowest_one(height - 1)) + 1,
        height => invert_lowest_one(height),
    }
}
